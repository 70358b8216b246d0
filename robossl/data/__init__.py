"""Read foreign formats, store their frames, and sample batches from the store."""
