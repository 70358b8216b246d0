"""The load generator: simulated robots and batch clients send frames to a server and record the replies."""
