"""Export: an encoder as a verified ONNX model in a model repository."""
