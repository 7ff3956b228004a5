"""ONNX models at run time: model cards, tokenizers, sessions, local decoders."""
