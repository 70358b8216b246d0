"""Encoders: timm backbones with named outputs, their weights and cards, and one way to open and call any of them."""
