// Every kernel in one module: on a Jetson each run of nvcc takes seconds.
#include "decode.cu"
#include "letterbox.cu"
#include "nms.cu"
