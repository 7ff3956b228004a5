"""The gRPC services of the limiter: ours, the operators', Envoy's."""
