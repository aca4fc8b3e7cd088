"""Building engines: a graph and options become a plan and its sidecar."""
