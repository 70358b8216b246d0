"""One page and two pictures of what a probe found."""
