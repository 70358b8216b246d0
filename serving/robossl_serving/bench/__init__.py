"""The load generator: robots and batch clients that ask a server, and what they met with."""
