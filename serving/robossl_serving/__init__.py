"""The server of encoders: scheduling, model repository and inference behind gRPC."""
