"""What robots need and nothing more: the encoder card and the client (numpy, grpcio, protobuf).

The parts are imported from their modules: `card` needs the standard library only.
"""
