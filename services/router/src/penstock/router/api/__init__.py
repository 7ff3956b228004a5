"""The gRPC services of the router: messages to values and back. May import every subject."""
