"""Beyond one machine: what NVIDIA's servers and Frigate need to run an artifact."""
