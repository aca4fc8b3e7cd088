"""TensorRT: which flavor is here, and how a graph becomes an engine. Needs neither torch nor onnx."""
