// A stand-in for CUDA's header: float16 as bits, converted as IEEE 754 says, to nearest and ties to even.
#pragma once

#include "simulated_cuda.h"

struct __half {
    unsigned short bits;
};

inline float __half2float(__half value)
{
    const unsigned sign = (value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7fffu;
    if (magnitude >= 0x7c00u) {  // infinite, or not a number
        return __uint_as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    }
    // The bits of a float16 are those of a float 2^112 times too small, subnormal numbers too.
    const float scaled = __uint_as_float(magnitude << 13) * std::ldexp(1.0f, 112);
    return __uint_as_float(sign | __float_as_uint(scaled));
}

inline __half __float2half_rn(float value)
{
    const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    unsigned half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // below 2^-14: multiples of 2^-24
        half = static_cast<unsigned>(std::nearbyint(std::ldexp(__uint_as_float(magnitude), 24)));
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    }
    return {static_cast<unsigned short>(sign | half)};
}
