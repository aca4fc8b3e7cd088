"""CUDA kernels of the runtime, and how to launch each; nothing here touches a GPU."""
