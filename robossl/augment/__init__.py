"""Augmentation: random views of frames, drawn from a seed and rendered in threads."""
