// Four values in one load or store.
#pragma once

#ifdef __CUDACC_RTC__  // NVRTC comes without the header, of which two conversions are needed

struct __half {
    unsigned short bits;
};

__device__ inline float __half2float(__half value)
{
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

__device__ inline __half __float2half_rn(float value)
{
    __half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}

#else
#include <cuda_fp16.h>
#endif

namespace {

// The compiler moves a type that is aligned to its size in one piece, of 4, 8 or 16 bytes here.
template <typename T>
struct alignas(4 * sizeof(T)) Four {
    T at[4];
};

template <typename T>
__device__ bool holds_four(const T* place, int left)  // whether four values can be moved at once
{
    return left >= 4 && reinterpret_cast<unsigned long long>(place) % sizeof(Four<T>) == 0;
}

}  // namespace
