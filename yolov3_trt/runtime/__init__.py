"""Running engines: a plan and pictures become detections on the GPU."""
