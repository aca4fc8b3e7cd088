from yolov3_trt.cli import entrypoint

entrypoint()
