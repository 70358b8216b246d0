"""What a robot needs to use a server: the client and the encoder card.

The package needs only numpy, grpcio and protobuf. Import names from its modules, such as `robossl_client.client`. The
package itself imports nothing, so that `robossl_client.card` needs only the standard library.
"""
