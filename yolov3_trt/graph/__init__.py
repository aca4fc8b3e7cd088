"""From a spec and its weights to ONNX graphs: layers, in-graph stages, precision. Needs no PyTorch."""
