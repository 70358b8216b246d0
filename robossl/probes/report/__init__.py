"""Write the HTML page of a probe report, and two pictures next to it."""
