"""The page of a probe report, and two pictures beside it."""
