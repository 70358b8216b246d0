"""Generated from ../protos/inference.proto by serving/generate.py."""
