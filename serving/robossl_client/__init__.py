"""What a robot needs to use a server: the client and the encoder card.

The package needs only numpy, grpcio and protobuf. Import names from its modules, not from the package itself, because
`robossl_client.card` works with the standard library alone.
"""
