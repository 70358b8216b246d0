"""Training: build a run from a configuration, train it, save it and resume it."""
