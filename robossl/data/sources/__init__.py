"""Sources: one file a foreign format."""
