"""Calibration: compare what probes say about encoders with what their policies lose under the same factors."""
