"""HTTP to one upstream: pooled connections, resumed TLS sessions, streams that can be left."""
