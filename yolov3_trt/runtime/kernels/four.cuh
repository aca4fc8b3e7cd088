// Four values in one load or store.
#pragma once

#include <cuda_fp16.h>

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
