// What a kernel reads of some memory, by the 32-byte sectors that each load of a warp touches, as a GPU fetches them.
//
// The compiler calls __tsan_read* before every load (-fsanitize=thread, without its library): this has them. A load of a warp is
// one place in the code, come to for the n-th time by each of 32 threads.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "simulated_cuda.h"

#define NOT_TRACED __attribute__((no_sanitize("thread"), noinline))

namespace trace {

constexpr unsigned WARP = 32, SECTOR_BYTES = 32;

inline std::vector<std::pair<std::uintptr_t, std::uintptr_t>> memory;  // that is traced: pieces of it, to beyond their last byte
inline bool is_on, is_counting;
inline long long sectors, block = -1;
inline std::unordered_map<std::uint64_t, unsigned> times;                                  // by thread and place
inline std::set<std::tuple<std::uintptr_t, unsigned, unsigned, std::uintptr_t>> touched;  // place, time, warp, sector

NOT_TRACED inline void finish_block()
{
    sectors += touched.size();
    touched.clear();
    times.clear();
}

NOT_TRACED inline void count(std::uintptr_t address, std::size_t bytes, std::uintptr_t code)
{
    bool counts = false;
    for (const auto& piece : memory) {
        counts |= piece.first <= address && address < piece.second;
    }
    if (!counts) {
        return;
    }
    const long long now = blockIdx.x + 65536LL * (blockIdx.y + 65536LL * blockIdx.z);
    if (now != block) {
        finish_block();
        block = now;
    }
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned time = times[code << 10 | thread]++;
    for (std::uintptr_t at = address / SECTOR_BYTES; at <= (address + bytes - 1) / SECTOR_BYTES; ++at) {
        touched.emplace(code, time, thread / WARP, at);
    }
}

NOT_TRACED inline void read(void* place, std::size_t bytes, void* caller)
{
    if (is_counting || !is_on) {
        return;  // counting reads too
    }
    is_counting = true;
    count(reinterpret_cast<std::uintptr_t>(place), bytes, reinterpret_cast<std::uintptr_t>(caller));
    is_counting = false;
}

}  // namespace trace

extern "C" NOT_TRACED void trace_add(void* start, std::size_t bytes)
{
    const auto address = reinterpret_cast<std::uintptr_t>(start);
    trace::memory.emplace_back(address, address + bytes);
    trace::is_on = true;
}

// The sectors since the last call; from here on nothing is traced.
extern "C" NOT_TRACED long long trace_stop()
{
    trace::is_on = false;
    trace::finish_block();
    trace::memory.clear();
    trace::block = -1;
    return std::exchange(trace::sectors, 0);
}

#define READ(name, bytes) \
    extern "C" NOT_TRACED void __tsan_##name(void* place) { trace::read(place, bytes, __builtin_return_address(0)); }
READ(read1, 1)
READ(read2, 2)
READ(read4, 4)
READ(read8, 8)
READ(read16, 16)
READ(unaligned_read2, 2)
READ(unaligned_read4, 4)
READ(unaligned_read8, 8)
READ(unaligned_read16, 16)
#define IGNORED(name) \
    extern "C" NOT_TRACED void __tsan_##name(void*) {}
IGNORED(write1)
IGNORED(write2)
IGNORED(write4)
IGNORED(write8)
IGNORED(write16)
IGNORED(unaligned_write2)
IGNORED(unaligned_write4)
IGNORED(unaligned_write8)
IGNORED(unaligned_write16)
IGNORED(func_entry)
extern "C" NOT_TRACED void __tsan_read_range(void* place, std::size_t bytes)
{
    trace::read(place, bytes, __builtin_return_address(0));
}
extern "C" NOT_TRACED void __tsan_write_range(void*, std::size_t) {}
extern "C" NOT_TRACED void __tsan_func_exit() {}
extern "C" NOT_TRACED void __tsan_init() {}
extern "C" NOT_TRACED void __tsan_vptr_update(void**, void*) {}
