"""Bundle files: golden set, staging, and ONNX writing."""
