"""The gRPC service of the batcher: messages to values and back."""
