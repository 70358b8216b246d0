"""Export: write an encoder as a verified ONNX model into a model repository."""
