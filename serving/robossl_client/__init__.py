"""What a robot needs to use a server: the client and the encoder card. Needs only numpy, grpcio and protobuf.

Import names from the modules, not from this package, because `robossl_client.card` needs only the standard library.
"""
