"""From the PyTorch reference to ONNX graphs: export, in-graph stages, precision."""
