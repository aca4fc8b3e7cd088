"""The acceptance on a real GPU: `make gpu-test`, see docs/gpu.md.

`acceptance` runs the steps, each in a process of its own: graphs are made where PyTorch is, engines are built, tested and
measured where TensorRT is, and `report` joins what both found. With YOLOV3_TRT_SIMULATED_GPU=1 the same steps run on the
simulated device of `tests.sim`, which shows that the suite works, and nothing about a GPU.
"""
