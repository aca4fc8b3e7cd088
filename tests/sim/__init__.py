"""A simulated device: the CUDA kernels compiled by g++ and run on the host, to test what they compute.

What it gives is never a GPU's result. It shows that the source computes what it should for any order of threads, keeps to
its memory and meets its barriers; not that a GPU compiles or runs it.
"""

from tests.sim.device import SimulatedDevice, SimulationError

__all__ = ["SimulatedDevice", "SimulationError"]
