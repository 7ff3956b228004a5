"""The batcher over gRPC: messages to values and back."""
