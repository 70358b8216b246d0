"""Data: read foreign formats into a store of frames, and sample batches from it."""
