"""The gRPC services of an instance: ours, and KServe v2."""
