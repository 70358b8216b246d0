"""The command line: the table of commands, and `robossl list`."""
