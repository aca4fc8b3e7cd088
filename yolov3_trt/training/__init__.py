"""Training of the PyTorch reference on a data set in YOLO format."""
