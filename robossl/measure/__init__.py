"""Measurement: everything between opening an encoder and a score with its interval."""
