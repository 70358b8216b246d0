"""What robots need and nothing more: the encoder card and the client (numpy, grpcio, protobuf)."""
