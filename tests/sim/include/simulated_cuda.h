// As much of CUDA's C++ as the kernels use, for a C++ compiler: a simulated device on the host. What it gives is never a
// GPU's result, and its time never a GPU's time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

using std::isnan;
using std::max;
using std::min;

#define __global__
#define __device__
#define __host__
// One block runs at a time, so what its threads share is static. A section of its own lets the simulator overwrite it before
// each block: on a GPU, too, a block finds no more than garbage there.
#define __shared__ static __attribute__((section("simulated_shared")))

struct Dim3 {
    unsigned x, y, z;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern Dim3 threadIdx, blockIdx, blockDim, gridDim;

void __syncthreads();

template <typename T>
T atomicAdd(T* place, T value)  // threads change places only at barriers
{
    const T before = *place;
    *place = before + value;
    return before;
}

template <typename T>
T atomicOr(T* place, T value)
{
    const T before = *place;
    *place = before | value;
    return before;
}

inline unsigned __float_as_uint(float value)
{
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
