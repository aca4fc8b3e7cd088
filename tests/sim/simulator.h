// Runs a grid on one thread of the host: block after block, a block's threads as fibers that change places at barriers.
//
// It is stricter than a GPU where a GPU would be silent. Threads that do not all come to a barrier, an access beyond an
// allocation (the pages beside it are closed) and a misaligned vector load (the compiler's check traps) end the launch with an
// error. Threads and blocks run in an order shuffled by a seed.
#pragma once

#include <csetjmp>
#include <csignal>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#include "simulated_cuda.h"

Dim3 threadIdx, blockIdx, blockDim, gridDim;

extern char __start_simulated_shared[], __stop_simulated_shared[];

namespace simulator {

enum Status { DONE, UNKNOWN_KERNEL, WRONG_SIZE, WRONG_BLOCK, DIVERGED, FAULT };

struct Kernel {
    const char* name;
    std::size_t size;  // of its struct
    void (*call)(const void* args);
};

template <typename Args>
constexpr std::size_t args_size(void (*)(Args))
{
    return sizeof(Args);
}

template <typename Args>
void call_with(void (*kernel)(Args), const void* bytes)
{
    Args args;
    std::memcpy(&args, bytes, sizeof args);
    kernel(args);
}

template <auto kernel>
void call(const void* args)
{
    call_with(kernel, args);
}

enum class State { READY, WAITING, FINISHED };

struct Fiber {
    ucontext_t context;
    Dim3 index;
    State state;
};

constexpr std::size_t STACK_BYTES = 64 << 10;
constexpr unsigned MAX_THREADS = 1024;

inline Fiber fibers[MAX_THREADS];
inline ucontext_t scheduler;
inline Fiber* current;
inline const Kernel* running;
inline const void* running_args;
inline sigjmp_buf launch_start;
inline long long barriers;  // of the last launch: times that all threads of a block waited for each other

inline void run_fiber()
{
    running->call(running_args);
    current->state = State::FINISHED;
    swapcontext(&current->context, &scheduler);
}

inline void start_block(const Dim3& block, char* stacks)
{
    std::memset(__start_simulated_shared, 0xcd, __stop_simulated_shared - __start_simulated_shared);
    for (unsigned i = 0; i < block.x * block.y * block.z; ++i) {
        Fiber& fiber = fibers[i];
        fiber.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
        fiber.state = State::READY;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks + i * STACK_BYTES;
        fiber.context.uc_stack.ss_size = STACK_BYTES;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, run_fiber, 0);
    }
}

// Lets each thread run to its next barrier or end, until all have ended.
inline Status run_block(const Dim3& block, char* stacks, std::mt19937* random)
{
    start_block(block, stacks);
    const unsigned count = block.x * block.y * block.z;
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    while (true) {
        if (random) {
            std::shuffle(order.begin(), order.end(), *random);
        }
        unsigned waiting = 0;
        for (unsigned i : order) {
            current = &fibers[i];
            threadIdx = current->index;
            swapcontext(&scheduler, &current->context);
            waiting += current->state == State::WAITING;
        }
        if (waiting == 0) {
            return DONE;
        }
        if (waiting < count) {
            return DIVERGED;
        }
        ++barriers;
    }
}

inline Status run_grid(const Dim3& grid, const Dim3& block, char* stacks, unsigned seed)
{
    std::mt19937 random(seed);
    std::vector<std::uint64_t> order(std::uint64_t{grid.x} * grid.y * grid.z);
    std::iota(order.begin(), order.end(), std::uint64_t{0});
    if (seed) {
        std::shuffle(order.begin(), order.end(), random);
    }
    for (std::uint64_t i : order) {
        blockIdx = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                    static_cast<unsigned>(i / grid.x / grid.y)};
        const Status status = run_block(block, stacks, seed ? &random : nullptr);
        if (status != DONE) {
            return status;
        }
    }
    return DONE;
}

inline void leave_launch(int signal) { siglongjmp(launch_start, signal); }

constexpr int FAULTS[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT};

// `run_grid` with the signals of a faulty kernel caught.
inline Status run_guarded(const Dim3& grid, const Dim3& block, char* stacks, unsigned seed)
{
    struct sigaction caught = {}, before[std::size(FAULTS)];
    caught.sa_handler = leave_launch;
    for (std::size_t i = 0; i < std::size(FAULTS); ++i) {
        sigaction(FAULTS[i], &caught, &before[i]);
    }
    volatile Status status = FAULT;
    if (sigsetjmp(launch_start, 1) == 0) {
        status = run_grid(grid, block, stacks, seed);
    }
    for (std::size_t i = 0; i < std::size(FAULTS); ++i) {
        sigaction(FAULTS[i], &before[i], nullptr);
    }
    return status;
}

}  // namespace simulator

void __syncthreads()
{
    simulator::current->state = simulator::State::WAITING;
    swapcontext(&simulator::current->context, &simulator::scheduler);
}

extern const simulator::Kernel KERNELS[];
extern const int NUM_KERNELS;

// Runs a kernel to its end; `seed` 0 keeps threads and blocks in their order.
extern "C" int launch(const char* name, const unsigned* grid, const unsigned* block, const void* args, std::size_t size,
                      unsigned seed)
{
    using namespace simulator;
    static std::mutex one_at_a_time;
    static char* const stacks = static_cast<char*>(
        mmap(nullptr, MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    std::lock_guard<std::mutex> lock(one_at_a_time);
    const Kernel* found = std::find_if(KERNELS, KERNELS + NUM_KERNELS, [&](const Kernel& k) { return !std::strcmp(k.name, name); });
    if (found == KERNELS + NUM_KERNELS) {
        return UNKNOWN_KERNEL;
    }
    if (found->size != size) {
        return WRONG_SIZE;
    }
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const std::uint64_t threads = std::uint64_t{block[0]} * block[1] * block[2];
    if (threads == 0 || threads > MAX_THREADS || !grid[0] || !grid[1] || !grid[2]) {
        return WRONG_BLOCK;
    }
    barriers = 0;
    running = found;
    running_args = args;
    return run_guarded(gridDim, blockDim, stacks, seed);
}

extern "C" long long barriers() { return simulator::barriers; }

// Memory that ends, but for what rounds it to 16 bytes, where a closed page begins; another closed page lies before it.
extern "C" void* allocate(std::size_t bytes)
{
    const std::size_t page = sysconf(_SC_PAGESIZE), rounded = (bytes + 15) / 16 * 16;
    const std::size_t inside = (rounded + page - 1) / page * page;
    char* start = static_cast<char*>(mmap(nullptr, inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start == MAP_FAILED || mprotect(start + page, inside, PROT_READ | PROT_WRITE)) {
        return nullptr;
    }
    std::memset(start + page, 0xcd, inside);
    return start + page + inside - rounded;
}

extern "C" void release(void* place, std::size_t bytes)
{
    const std::size_t page = sysconf(_SC_PAGESIZE), rounded = (bytes + 15) / 16 * 16;
    const std::size_t inside = (rounded + page - 1) / page * page;
    munmap(static_cast<char*>(place) + rounded - inside - page, inside + 2 * page);
}
