"""How the scaler is asked and told: our gRPC service, KEDA's, notices over HTTP."""
