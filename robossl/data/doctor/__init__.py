"""`robossl doctor data`: find what in a data set would hurt later. A check is one function of `CHECKS`."""
