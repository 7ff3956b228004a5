"""The gRPC service of the queries: messages to values and back."""
