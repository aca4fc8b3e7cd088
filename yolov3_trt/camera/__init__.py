"""Frames with their detections on them."""
