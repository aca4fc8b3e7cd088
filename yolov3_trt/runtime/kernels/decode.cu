// Heads to candidates: what postprocess.decode_head does on the host, for all heads of a batch in one launch.
//
// With t the logits of one anchor in one cell, s = scale_x_y and the input measured in input px (Darknet src/yolo_layer.c):
//
//     x = (sigmoid(t_x) * s - (s - 1) / 2 + column) * stride_x        y alike
//     w = exp(t_w) * anchor_w                                        h alike
//     score[c] = sigmoid(t_obj) * sigmoid(t_c)
//
// Other kinds of heads differ in one of these each; see postprocess.py.
//
// Nearly every cell fails on its objectness, so that is compared as a logit, and only what passes meets an exponential. The
// comparisons are the host's, so NaN passes none. Compiled with -fmad=false, to round where NumPy rounds.
//
// Grid: (blocks of all heads, images); block: 128, four cells of one anchor per thread.

#include "four.cuh"

constexpr int MAX_HEADS = 8, MAX_ANCHORS = 16;
constexpr int SCALED = 1, REGION = 2, GAUSSIAN = 3;  // kinds of heads, in the order of layers.HeadKind

struct Head {
    const void* logits;              // (N, A * F, grid_h, grid_w)
    int anchors, grid_h, grid_w;
    int first_block;                 // of the grid's x
    int first_box;                   // number of boxes in the heads before
    float scale_xy, corner;          // corner: (scale_xy - 1) / 2
    float stride_x, stride_y;        // input px per cell
    float anchors_wh[MAX_ANCHORS][2];  // input px
};

struct Decode {
    Head heads[MAX_HEADS];
    int* counts;               // (N,) candidates that wanted in, zero before the launch; beyond `capacity` they are not kept
    unsigned long long* keys;  // (N, capacity) see `candidate_key`, in no order
    float4* boxes;             // (N, capacity) corners, input px
    int num_heads, num_classes, capacity;
    int kind, box_values;      // box_values: before the objectness of an anchor
    float conf_threshold, conf_logit;
};

namespace {

constexpr int DECODE_THREADS = 128, BLOCK_CELLS = 4 * DECODE_THREADS;

// A box whose objectness passed, until its classes are compared.
struct Box {
    float4 xyxy;             // input px
    float certainty;         // what the classes' probabilities are multiplied by
    float class_threshold;   // logit that a class must exceed; NaN: none can
    float largest, sum;      // of REGION: of the class logits, and of their exponentials less the largest
    int cell;
};

__device__ float value_of(float value) { return value; }

__device__ float value_of(__half value) { return __half2float(value); }

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Inverse of the sigmoid, of p >= 0 or NaN; infinite at 0, and at 1 and above.
__device__ float logit(float p)
{
    p = p > 1.0f ? 1.0f : p;
    return logf(p) - log1pf(-p);
}

// Sorts as the host's stable sort by descending score does: the larger score is the smaller key, and of equal scores the one
// that the host meets first, by head, anchor, cell and class. The bits of floats that are not negative sort as they do.
__device__ unsigned long long candidate_key(float score, unsigned host_index)
{
    return static_cast<unsigned long long>(~__float_as_uint(score)) << 32 | host_index;
}

__device__ int head_of_block(const Decode& p)
{
    int head = 0;
    while (head + 1 < p.num_heads && static_cast<int>(blockIdx.x) >= p.heads[head + 1].first_block) {
        ++head;
    }
    return head;
}

// The cells of this thread whose objectness passes go into the block's list, in no order.
template <typename T>
__device__ void list_cells(const T* objectness, int cells, int first_cell, float conf_logit, int* passed, int* num_passed)
{
    const int start = first_cell + 4 * threadIdx.x;
    Four<T> logits;
    if (start < cells && holds_four(objectness + start, cells - start)) {
        logits = *reinterpret_cast<const Four<T>*>(objectness + start);
    } else {
        for (int i = 0; i < 4 && start + i < cells; ++i) {
            logits.at[i] = objectness[start + i];
        }
    }
    for (int i = 0; i < 4 && start + i < cells; ++i) {
        if (value_of(logits.at[i]) > conf_logit) {
            passed[atomicAdd(num_passed, 1)] = start + i;
        }
    }
}

// Side of a box in units of its anchor.
__device__ float side(float logit, int kind)
{
    if (kind == SCALED) {
        const float twice = 2.0f * sigmoid(logit);
        return twice * twice;
    }
    return expf(logit);
}

// `fields`: the planes of its anchor, (F, cells).
template <typename T>
__device__ Box decode_box(const T* fields, int cells, const Head& head, int anchor, int cell, const Decode& p)
{
    const long long step = static_cast<long long>(cells) * (p.kind == GAUSSIAN ? 2 : 1);  // from x to y, to w, to h
    const T* at = fields + cell;
    const int row = cell / head.grid_w, column = cell - row * head.grid_w;
    const float left = static_cast<float>(column) - head.corner, top = static_cast<float>(row) - head.corner;
    const float x = (sigmoid(value_of(at[0])) * head.scale_xy + left) * head.stride_x;
    const float y = (sigmoid(value_of(at[step])) * head.scale_xy + top) * head.stride_y;
    const float half_w = side(value_of(at[2 * step]), p.kind) * head.anchors_wh[anchor][0] / 2.0f;
    const float half_h = side(value_of(at[3 * step]), p.kind) * head.anchors_wh[anchor][1] / 2.0f;
    Box box;
    box.cell = cell;
    box.xyxy = make_float4(x - half_w, y - half_h, x + half_w, y + half_h);
    box.certainty = sigmoid(value_of(at[static_cast<long long>(p.box_values) * cells]));
    if (p.kind == GAUSSIAN) {
        float uncertainty = 0.0f;
        for (int i = 0; i < 4; ++i) {
            uncertainty += sigmoid(value_of(at[(2LL * i + 1) * cells]));
        }
        box.certainty = box.certainty * (1.0f - uncertainty / 4.0f);
    }
    box.class_threshold = logit(p.conf_threshold / box.certainty);
    if (p.kind == REGION) {
        const T* classes = at + (p.box_values + 1LL) * cells;
        box.class_threshold = 0.0f;  // a softmax is compared as such
        box.largest = -__uint_as_float(0x7f800000u);  // NVRTC has no INFINITY
        for (int i = 0; i < p.num_classes; ++i) {
            const float value = value_of(classes[static_cast<long long>(i) * cells]);
            box.largest = value > box.largest || isnan(value) ? value : box.largest;
        }
        box.sum = 0.0f;
        for (int i = 0; i < p.num_classes; ++i) {
            box.sum += expf(value_of(classes[static_cast<long long>(i) * cells]) - box.largest);
        }
    }
    // An infinite box is clipped to the image later; one that is not a number is none.
    if (isnan(box.xyxy.x) || isnan(box.xyxy.y) || isnan(box.xyxy.z) || isnan(box.xyxy.w)) {
        box.class_threshold = nanf("");
    }
    return box;
}

__device__ void append(const Decode& p, int image, const Box& box, float score, unsigned host_index)
{
    const int slot = atomicAdd(&p.counts[image], 1);
    if (slot < p.capacity) {
        const long long at = static_cast<long long>(image) * p.capacity + slot;
        p.keys[at] = candidate_key(score, host_index);
        p.boxes[at] = box.xyxy;
    }
}

template <typename T>
__device__ void decode(const Decode& p)
{
    __shared__ int passed[BLOCK_CELLS], num_passed;
    __shared__ Box boxes[DECODE_THREADS];
    const Head& head = p.heads[head_of_block(p)];
    const int cells = head.grid_h * head.grid_w, blocks_per_anchor = (cells + BLOCK_CELLS - 1) / BLOCK_CELLS;
    const int block = static_cast<int>(blockIdx.x) - head.first_block, image = blockIdx.y, thread = threadIdx.x;
    const int anchor = block / blocks_per_anchor, first_cell = (block - anchor * blocks_per_anchor) * BLOCK_CELLS;
    const long long plane = (static_cast<long long>(image) * head.anchors + anchor) * (p.box_values + 1 + p.num_classes);
    const T* fields = static_cast<const T*>(head.logits) + plane * cells;

    if (thread == 0) {
        num_passed = 0;
    }
    __syncthreads();
    list_cells(fields + static_cast<long long>(p.box_values) * cells, cells, first_cell, p.conf_logit, passed, &num_passed);
    __syncthreads();

    for (int first = 0; first < num_passed; first += DECODE_THREADS) {
        const int num_boxes = num_passed - first < DECODE_THREADS ? num_passed - first : DECODE_THREADS;
        if (thread < num_boxes) {
            boxes[thread] = decode_box(fields, cells, head, anchor, passed[first + thread], p);
        }
        __syncthreads();
        // The classes of these boxes are shared out over all threads; neighbours first, whose logits lie together.
        for (int i = thread; i < num_boxes * p.num_classes; i += DECODE_THREADS) {
            const int class_id = i / num_boxes;
            const Box& box = boxes[i - class_id * num_boxes];
            const float class_logit = value_of(fields[(p.box_values + 1LL + class_id) * cells + box.cell]);
            const unsigned host_index = (head.first_box + anchor * cells + box.cell) * p.num_classes + class_id;
            if (p.kind == REGION) {
                const float score = box.certainty * (expf(class_logit - box.largest) / box.sum);
                if (score > p.conf_threshold && !isnan(box.class_threshold)) {
                    append(p, image, box, score, host_index);
                }
            } else if (class_logit > box.class_threshold) {
                append(p, image, box, box.certainty * sigmoid(class_logit), host_index);
            }
        }
        __syncthreads();
    }
}

}  // namespace

extern "C" __global__ void decode_f32(Decode p) { decode<float>(p); }

extern "C" __global__ void decode_f16(Decode p) { decode<__half>(p); }
