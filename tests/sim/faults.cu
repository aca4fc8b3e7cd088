// Kernels with one fault each, to show that the simulation finds it.
#include <cuda_fp16.h>

struct Fault {
    float* values;
    int count;
};

extern "C" __global__ void barrier_in_a_branch(Fault p)
{
    if (static_cast<int>(threadIdx.x) < p.count) {
        __syncthreads();
    }
}

extern "C" __global__ void write_beyond_the_end(Fault p) { p.values[threadIdx.x] = 1.0f; }

extern "C" __global__ void misaligned_vector(Fault p) { *reinterpret_cast<float4*>(p.values + 1) = make_float4(1, 2, 3, 4); }

// Without a barrier between the two, what a thread finds depends on which came first.
extern "C" __global__ void missing_barrier(Fault p)
{
    __shared__ float shared[32];
    shared[threadIdx.x] = threadIdx.x;
    p.values[threadIdx.x] = shared[(threadIdx.x + 1) % 32];
}

extern "C" __global__ void sum(Fault p)
{
    __shared__ float total;
    if (threadIdx.x == 0) {
        total = 0;
    }
    __syncthreads();
    atomicAdd(&total, 1.0f);
    __syncthreads();
    p.values[threadIdx.x] = total;
}

extern "C" __global__ void through_half(Fault p)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    p.values[i] = __half2float(__float2half_rn(p.values[i]));
}
