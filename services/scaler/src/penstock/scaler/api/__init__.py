"""The scaler's APIs: our gRPC service, KEDA's external scaler, notices over HTTP."""
