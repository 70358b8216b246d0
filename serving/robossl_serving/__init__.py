"""The encoder service: scheduler, repository and backends behind gRPC."""
