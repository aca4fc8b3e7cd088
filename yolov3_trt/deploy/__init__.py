"""Beyond one machine: what NVIDIA's own servers need to run an artifact."""
