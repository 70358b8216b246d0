"""Training: build a run from a configuration, train it, save it, go on with it."""
