/* A stand-in for NVIDIA's libcuda.so.1, with which the real pycuda runs on the simulated device's kernels.
 *
 * It has what pycuda and yolov3_trt call, in the memory of the host: contexts with a stack per thread, memory, streams
 * whose work is done at once, events, modules, launches, and graphs that record and repeat. Whatever needs a current context
 * fails without one, as on a GPU, and what a captured stream cannot take ends its capture. What nobody calls is in
 * missing.c, made from pycuda's undefined symbols, and fails. It compiles nothing and times nothing: no result of it is one of a GPU.
 *
 * SIMULATED_KERNELS names the library of the kernels (tests/sim/device.py). simulated_driver_live() counts what is not freed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))
typedef int Result;
enum { OK = 0, BAD_VALUE = 1, NO_MEMORY = 2, NO_CONTEXT = 201, NOT_FOUND = 500, CAPTURE_FORBIDS = 900, CAPTURE_INVALID = 901, FAILED = 719 };

static __thread int depth;       /* of this thread's context stack */
static int retained;             /* primary contexts */
static long live;                /* memory, streams, events, modules and graphs */
static int context_object, device_total_mib = 1024;

API long simulated_driver_live(void) { return live; }
API int simulated_driver_retained(void) { return retained; }
API int simulated_driver_depth(void) { return depth; }

#define NEEDS_CONTEXT if (!depth) return NO_CONTEXT

/* --- device and context --- */
API Result cuInit(unsigned flags) { return flags ? BAD_VALUE : OK; }
API Result cuDriverGetVersion(int *version) { *version = 13000; return OK; }
API Result cuDeviceGetCount(int *count) { *count = 1; return OK; }
API Result cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal ? 101 : OK; }
API Result cuDeviceGetName(char *name, int size, int device) { snprintf(name, (size_t)size, "simulated driver"); return OK; }
API Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)device_total_mib << 20; return OK; }
API Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? getenv("SIMULATED_INTEGRATED") != NULL : 0;
    return OK;
}
API Result cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 8; *minor = 7; return OK; }
API Result cuDevicePrimaryCtxRetain(void **context, int device) { retained++; *context = &context_object; return OK; }
API Result cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) { return device || flags != 1 ? BAD_VALUE : OK; }
API Result cuDevicePrimaryCtxRelease_v2(int device) { return retained-- > 0 ? OK : NO_CONTEXT; }
API Result cuCtxPushCurrent_v2(void *context) { if (context != &context_object) return BAD_VALUE; depth++; return OK; }
API Result cuCtxPopCurrent_v2(void **context) { NEEDS_CONTEXT; depth--; if (context) *context = &context_object; return OK; }
API Result cuCtxGetCurrent(void **context) { *context = depth ? &context_object : NULL; return OK; }
API Result cuCtxGetDevice(int *device) { NEEDS_CONTEXT; *device = 0; return OK; }
API Result cuCtxSynchronize(void) { NEEDS_CONTEXT; return OK; }
API Result cuCtxDetach(void *context) { return OK; }
API Result cuGetErrorString(int code, const char **text) {
    *text = code == NO_MEMORY ? "out of memory" : code == NO_CONTEXT ? "invalid device context" : code == CAPTURE_FORBIDS
        ? "operation not permitted when stream is capturing" : code == FAILED ? "unspecified launch failure" : "error of the simulated driver";
    return OK;
}

/* --- streams and what is recorded of one --- */
typedef struct Operation { struct Operation *next; int kind; void *to, *from; size_t bytes; unsigned size[6]; char name[64]; unsigned char *arguments; } Operation;
enum { COPY, FILL, LAUNCH };
typedef struct { int is_capturing; Operation *first, **end; int is_invalid; } Stream;
typedef struct { Operation *first; } Graph;

static Result run(const Operation *operation) {
    static Result (*launch)(const char *, unsigned *, unsigned *, const void *, size_t, unsigned);
    if (operation->kind == COPY) { memcpy(operation->to, operation->from, operation->bytes); return OK; }
    if (operation->kind == FILL) { memset(operation->to, (int)operation->size[0], operation->bytes); return OK; }
    if (!launch) {
        const char *path = getenv("SIMULATED_KERNELS");
        void *library = path ? dlopen(path, RTLD_NOW) : NULL;
        if (!library) { fprintf(stderr, "SIMULATED_KERNELS=%s: %s\n", path, dlerror()); return NOT_FOUND; }
        *(void **)&launch = dlsym(library, "launch");
    }
    unsigned grid[3], block[3];
    memcpy(grid, operation->size, sizeof grid);
    memcpy(block, operation->size + 3, sizeof block);
    return launch(operation->name, grid, block, operation->arguments, operation->bytes, 0) ? FAILED : OK;
}

static Result put(Stream *stream, Operation operation) {
    if (!stream || !stream->is_capturing) return run(&operation);
    Operation *kept = malloc(sizeof *kept);
    *kept = operation;
    if (operation.kind == LAUNCH) { kept->arguments = malloc(operation.bytes); memcpy(kept->arguments, operation.arguments, operation.bytes); }
    kept->next = NULL;
    *stream->end = kept;
    stream->end = &kept->next;
    return OK;
}

API Result cuStreamCreate(Stream **stream, unsigned flags) { NEEDS_CONTEXT; if (flags != 1) return BAD_VALUE; *stream = calloc(1, sizeof **stream); live++; return OK; }
API Result cuStreamDestroy_v2(Stream *stream) { NEEDS_CONTEXT; free(stream); live--; return OK; }
API Result cuStreamSynchronize(Stream *stream) { NEEDS_CONTEXT; if (stream && stream->is_capturing) { stream->is_invalid = 1; return CAPTURE_FORBIDS; } return OK; }
API Result cuStreamQuery(Stream *stream) { NEEDS_CONTEXT; return OK; }

static void free_operations(Operation *operation) {
    while (operation) { Operation *next = operation->next; if (operation->kind == LAUNCH) free(operation->arguments); free(operation); operation = next; }
}

API Result cuStreamBeginCapture_v2(Stream *stream, int mode) {
    NEEDS_CONTEXT;
    if (mode != 1 || stream->is_capturing) return BAD_VALUE;
    stream->is_capturing = 1; stream->is_invalid = 0; stream->first = NULL; stream->end = &stream->first;
    return OK;
}
API Result cuStreamEndCapture(Stream *stream, Graph **graph) {
    NEEDS_CONTEXT;
    if (!stream->is_capturing) return BAD_VALUE;
    stream->is_capturing = 0;
    *graph = NULL;
    if (stream->is_invalid) { free_operations(stream->first); return CAPTURE_INVALID; }
    *graph = malloc(sizeof **graph); (*graph)->first = stream->first; live++;
    return OK;
}
static Operation *copy_of(const Operation *operation) {
    Operation *first = NULL, **end = &first;
    for (; operation; operation = operation->next) {
        Operation *kept = malloc(sizeof *kept);
        *kept = *operation; kept->next = NULL;
        if (kept->kind == LAUNCH) { kept->arguments = malloc(kept->bytes); memcpy(kept->arguments, operation->arguments, kept->bytes); }
        *end = kept; end = &kept->next;
    }
    return first;
}
API Result cuGraphInstantiateWithFlags(Graph **made, Graph *graph, unsigned long long flags) {
    NEEDS_CONTEXT;
    *made = malloc(sizeof **made); (*made)->first = copy_of(graph->first); live++;
    return OK;
}
API Result cuGraphLaunch(Graph *graph, Stream *stream) {
    NEEDS_CONTEXT;
    for (Operation *operation = graph->first; operation; operation = operation->next) { Result code = run(operation); if (code) return code; }
    return OK;
}
API Result cuGraphExecDestroy(Graph *graph) { NEEDS_CONTEXT; free_operations(graph->first); free(graph); live--; return OK; }
API Result cuGraphDestroy(Graph *graph) { NEEDS_CONTEXT; free_operations(graph->first); free(graph); live--; return OK; }

/* --- events, by the clock of the host --- */
typedef struct { double ms; int is_recorded; } Event;
API Result cuEventCreate(Event **event, unsigned flags) { NEEDS_CONTEXT; *event = calloc(1, sizeof **event); live++; return OK; }
API Result cuEventDestroy_v2(Event *event) { NEEDS_CONTEXT; free(event); live--; return OK; }
API Result cuEventRecord(Event *event, Stream *stream) {
    NEEDS_CONTEXT;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->ms = now.tv_sec * 1e3 + now.tv_nsec / 1e6; event->is_recorded = 1;
    return OK;
}
API Result cuEventSynchronize(Event *event) { NEEDS_CONTEXT; return OK; }
API Result cuEventQuery(Event *event) { NEEDS_CONTEXT; return OK; }
API Result cuEventElapsedTime_v2(float *ms, Event *begin, Event *end) {
    NEEDS_CONTEXT;
    if (!begin->is_recorded || !end->is_recorded) return 400;
    *ms = (float)(end->ms - begin->ms);
    return OK;
}

/* --- memory --- */
static size_t taken;
typedef struct { size_t bytes; char pad[4096 - sizeof(size_t)]; } Header; /* keeps what follows on a page of its own */
static Result allocate(void **memory, size_t bytes) {
    NEEDS_CONTEXT;
    if (!bytes) return BAD_VALUE;
    if (taken + bytes > (size_t)device_total_mib << 20) return NO_MEMORY;
    Header *header = aligned_alloc(4096, (sizeof(Header) + bytes + 4095) / 4096 * 4096);
    if (!header) return NO_MEMORY;
    header->bytes = bytes; taken += bytes; live++;
    memset(header + 1, 0xcd, bytes);
    *memory = header + 1;
    return OK;
}
static Result release(void *memory) { NEEDS_CONTEXT; if (!memory) return BAD_VALUE; Header *header = (Header *)memory - 1; taken -= header->bytes; live--; free(header); return OK; }
API Result cuMemAlloc_v2(void **memory, size_t bytes) { return allocate(memory, bytes); }
API Result cuMemFree_v2(void *memory) { return release(memory); }
API Result cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) { return allocate(memory, bytes); }
API Result cuMemFreeHost(void *memory) { return release(memory); }
API Result cuMemHostGetDevicePointer_v2(void **device, void *host, unsigned flags) { NEEDS_CONTEXT; *device = host; return OK; }
API Result cuMemGetInfo_v2(size_t *unused, size_t *total) { NEEDS_CONTEXT; *total = (size_t)device_total_mib << 20; *unused = *total - taken; return OK; }
API Result cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) { NEEDS_CONTEXT; return put(stream, (Operation){.kind = COPY, .to = to, .from = (void *)from, .bytes = bytes}); }
API Result cuMemcpyDtoHAsync_v2(void *to, void *from, size_t bytes, Stream *stream) { NEEDS_CONTEXT; return put(stream, (Operation){.kind = COPY, .to = to, .from = from, .bytes = bytes}); }
API Result cuMemcpyDtoDAsync_v2(void *to, void *from, size_t bytes, Stream *stream) { NEEDS_CONTEXT; return put(stream, (Operation){.kind = COPY, .to = to, .from = from, .bytes = bytes}); }
API Result cuMemsetD8Async(void *to, unsigned char byte, size_t bytes, Stream *stream) { NEEDS_CONTEXT; return put(stream, (Operation){.kind = FILL, .to = to, .bytes = bytes, .size = {byte}}); }

/* --- modules and launches --- */
typedef struct { char name[64]; unsigned block[3]; } Function;
API Result cuModuleLoadDataEx(void **module, const void *image, unsigned count, void *options, void **values) { NEEDS_CONTEXT; *module = calloc(1, 1); live++; return OK; }
API Result cuModuleLoadData(void **module, const void *image) { return cuModuleLoadDataEx(module, image, 0, NULL, NULL); }
API Result cuModuleUnload(void *module) { NEEDS_CONTEXT; free(module); live--; return OK; }
API Result cuModuleGetFunction(Function **function, void *module, const char *name) {
    NEEDS_CONTEXT;
    *function = calloc(1, sizeof **function); /* lives as long as the process, as the driver's own would with its module */
    snprintf((*function)->name, sizeof (*function)->name, "%s", name);
    return OK;
}
API Result cuFuncGetAttribute(int *value, int attribute, Function *function) { NEEDS_CONTEXT; *value = 0; return OK; }
API Result cuFuncSetBlockShape(Function *function, int x, int y, int z) { NEEDS_CONTEXT; function->block[0] = (unsigned)x; function->block[1] = (unsigned)y; function->block[2] = (unsigned)z; return OK; }
API Result cuFuncSetSharedSize(Function *function, unsigned bytes) { return OK; }
API Result cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, Stream *stream, void **parameters, void **extra) {
    NEEDS_CONTEXT;
    void *arguments = NULL; size_t bytes = 0;
    for (; extra && *extra; extra += 2) { /* CU_LAUNCH_PARAM_BUFFER_POINTER and _SIZE */
        if ((uintptr_t)extra[0] == 1) arguments = extra[1];
        if ((uintptr_t)extra[0] == 2) bytes = *(size_t *)extra[1];
    }
    if (parameters || !arguments || shared) return BAD_VALUE;
    Operation operation = {.kind = LAUNCH, .bytes = bytes, .size = {gx, gy, gz, bx, by, bz}, .arguments = arguments};
    memcpy(operation.name, function->name, sizeof operation.name);
    return put(stream, operation);
}
