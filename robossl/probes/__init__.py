"""Probes: which changes of a picture an encoder ignores, and whether that suits a task."""
