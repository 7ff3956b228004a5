"""The gRPC service of the queries."""
