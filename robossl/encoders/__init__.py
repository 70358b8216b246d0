"""Encoders: timm backbones with named outputs, their weights and cards (descriptions), and one way to open them all."""
