"""Measurement: open encoders and baselines, embed frames, and compute scores with intervals."""
