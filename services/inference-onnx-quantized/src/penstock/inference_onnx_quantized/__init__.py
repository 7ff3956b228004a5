"""An inference instance that runs quantised ONNX models on this machine."""
