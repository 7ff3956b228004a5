"""The inference contract over gRPC, answered by an upstream."""
