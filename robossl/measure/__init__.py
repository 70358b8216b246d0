"""What evaluate, probes and transfer share: subjects, references, cached features, heads, scores and intervals."""
