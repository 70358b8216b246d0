"""Data: sources in foreign formats, the store they are ingested into, the sampler that draws from it."""
