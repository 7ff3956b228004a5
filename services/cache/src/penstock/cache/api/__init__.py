"""The gRPC service of the cache: messages to values and back."""
