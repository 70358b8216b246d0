"""Code that `evaluate`, `probe` and `transfer` share: from opening an encoder to a score with its interval."""
