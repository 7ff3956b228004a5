"""The Open Inference Protocol (KServe v2) over gRPC and HTTP, for whatever runs models.

`model_server` says what a service must be able to do; `inference` answers the protocol's calls with
it; `grpc_service` and `http_service` are the two transports.
"""
