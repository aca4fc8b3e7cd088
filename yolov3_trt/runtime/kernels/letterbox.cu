// Fits frames into the network's input in one pass: what preprocess.InputBuffer does on the host, to the last bit.
//
// The resize is OpenCV's INTER_LINEAR of uint8 (modules/imgproc/src/resize.cpp): half-pixel centres, no antialiasing, weights
// rounded to 2048ths, and a result rounded to uint8 before anything else is done with it. Its fixed point is repeated here
// step by step. Compiled with -fmad=false: a fused multiply-add would round once where OpenCV and NumPy round twice.
//
// The bytes of the frame that a block needs are brought to shared memory first, in pieces of 16: gathered pixel by pixel, each
// would be fetched many times over, which costs most where the frame lies in memory that is not cached, as a Jetson's mapped one.
//
// Grid: (input_w / 128, input_h / 8, frames) rounded up; block: (32, 8), four pixels of a row per thread.

#include "four.cuh"

struct Letterbox {
    const unsigned char* frames;  // uint8 (image_h, image_w, 3) BGR, on any byte
    void* batch;                  // the first row of the batch that is written, for the first frame
    long long row_stride;         // bytes from one line of a frame to the next
    long long frame_stride;       // bytes from one frame to the next
    double step_y, step_x;        // image px per input px
    int image_h, image_w;
    int resized_h, resized_w;     // input px covered by the frame
    int offset_y, offset_x;       // input px above and left of it
    int input_h, input_w;
    float scale;                  // from 0..255 to the network's 0..1
    int pad_value;                // of the border, 0..255
    int channels;                 // of planes: 3, or 1 for grey; pixels have 3
    int is_packed;                // a frame is only the two lines of each line to be made, one pair after the other
    int parts;                    // of a block's columns, whose lines fit into shared memory; 0: none do, frames are read in place
    int pitch;                    // bytes from one line to the next there
};

namespace {

constexpr int THREADS_X = 32, THREADS_Y = 8, TILE_W = 4 * THREADS_X;
constexpr int STAGED_BYTES = 28928;  // two blocks to the 64 KiB of a Turing; letterbox.py knows it too
constexpr int ONE = 2048;  // OpenCV's INTER_RESIZE_COEF_SCALE

struct Taps {
    int first, second;              // neighbours in the image, px
    int first_weight, second_weight;  // 2048ths
};

// The taps of a tile's columns, by fields so that a thread reads its four in pieces that meet no bank conflict.
struct ColumnTaps {
    Four<int> first[THREADS_X], second[THREADS_X], first_weight[THREADS_X], second_weight[THREADS_X];
};

__device__ int clamp(int value, int last) { return value < 0 ? 0 : value > last ? last : value; }

__device__ Taps taps(int position, double step, int last)
{
    const float centre = static_cast<float>((position + 0.5) * step - 0.5);  // of the pixel to be made, in the image
    const int first = static_cast<int>(floorf(centre));
    const float share = centre - static_cast<float>(first);
    // Beyond the edge both taps are the edge's pixel. Their weights stay apart, as OpenCV's do for lines: each product is
    // rounded by itself there. For columns, where none is, they only add up to the whole.
    Taps result;
    result.first = clamp(first, last);
    result.second = clamp(first + 1, last);
    result.first_weight = static_cast<int>(rintf((1.0f - share) * ONE));
    result.second_weight = static_cast<int>(rintf(share * ONE));
    return result;
}

// Once per tile, not per pixel: these few lines are in double, which most GPUs do 32 or 64 times slower than float.
__device__ void fill_taps(const Letterbox& p, ColumnTaps& columns, Taps* lines)
{
    const int thread = threadIdx.y * THREADS_X + threadIdx.x;
    if (thread < TILE_W) {
        const Taps column = taps(blockIdx.x * TILE_W + thread - p.offset_x, p.step_x, p.image_w - 1);
        columns.first[thread / 4].at[thread % 4] = column.first;
        columns.second[thread / 4].at[thread % 4] = column.second;
        columns.first_weight[thread / 4].at[thread % 4] = column.first_weight;
        columns.second_weight[thread / 4].at[thread % 4] = column.second_weight;
    } else if (thread < TILE_W + THREADS_Y) {
        const int line = thread - TILE_W;
        const int made = blockIdx.y * THREADS_Y + line - p.offset_y;
        lines[line] = taps(made, p.step_y, p.image_h - 1);
        if (p.is_packed) {
            lines[line].first = 2 * made;
            lines[line].second = 2 * made + 1;
        }
    }
}

// One channel of one pixel from its four neighbours: HResizeLinear, then VResizeLinear with its shifts.
__device__ int blend(const unsigned char* upper, const unsigned char* lower, int first, int second, int first_weight,
                     int second_weight, const Taps& line)
{
    const int above = upper[first] * first_weight + upper[second] * second_weight;
    const int below = lower[first] * first_weight + lower[second] * second_weight;
    return (((line.first_weight * (above >> 4)) >> 16) + ((line.second_weight * (below >> 4)) >> 16) + 2) >> 2;
}

__device__ void store_value(float* place, float value) { *place = value; }

__device__ void store_value(__half* place, float value) { *place = __float2half_rn(value); }

// Weights and order of preprocess.grey_plane.
__device__ float grey(const int (&bgr)[3][4], int i)
{
    return static_cast<float>(bgr[2][i]) * 0.299f + static_cast<float>(bgr[1][i]) * 0.587f +
           static_cast<float>(bgr[0][i]) * 0.114f;
}

// RGB planes (3, input_h, input_w), or grey (1, input_h, input_w).
template <typename T>
__device__ void store(T* image, const Letterbox& p, int y, int x, const int (&bgr)[3][4])
{
    for (int channel = 0; channel < 3; ++channel) {  // a known number: `bgr` then stays in registers
        if (channel == p.channels) {
            return;
        }
        T* place = image + (static_cast<long long>(channel) * p.input_h + y) * p.input_w + x;
        Four<T> values;
        for (int i = 0; i < 4; ++i) {
            const float value = p.channels == 1 ? grey(bgr, i) : static_cast<float>(bgr[2 - channel][i]);
            store_value(&values.at[i], value * p.scale);
        }
        if (holds_four(place, p.input_w - x)) {
            *reinterpret_cast<Four<T>*>(place) = values;
        } else {
            for (int i = 0; i < 4 && x + i < p.input_w; ++i) {
                place[i] = values.at[i];
            }
        }
    }
}

// BGR pixels (input_h, input_w, 3).
__device__ void store(unsigned char* image, const Letterbox& p, int y, int x, const int (&bgr)[3][4])
{
    unsigned char* place = image + (static_cast<long long>(y) * p.input_w + x) * 3;
    Four<unsigned char> bytes[3];
    for (int i = 0; i < 12; ++i) {
        bytes[i / 4].at[i % 4] = static_cast<unsigned char>(bgr[i % 3][i / 3]);
    }
    const bool aligned = holds_four(place, p.input_w - x);
    for (int part = 0; part < 3; ++part) {
        if (aligned) {
            reinterpret_cast<Four<unsigned char>*>(place)[part] = bytes[part];
        } else {
            for (int i = 4 * part; i < 4 * part + 4 && x + i / 3 < p.input_w; ++i) {
                place[i] = bytes[part].at[i % 4];
            }
        }
    }
}

// The lines of a frame that a block reads, as they lie in shared memory.
struct Stage {
    const unsigned char* frame;
    int begin, end;       // lines of the block that are made
    int first_line, count;  // lines of the frame; where they are no run without gaps, two for each line that is made
    bool is_run;
};

__device__ Stage stage_of(const Letterbox& p, const unsigned char* frame, const Taps* lines)
{
    const int top = blockIdx.y * THREADS_Y;
    Stage stage = {frame, max(p.offset_y - top, 0), min(p.offset_y + p.resized_h - top, THREADS_Y), 0, 0, false};
    if (stage.begin < stage.end) {
        stage.first_line = lines[stage.begin].first;
        const int run = lines[stage.end - 1].second - stage.first_line + 1;
        stage.is_run = run <= 2 * THREADS_Y;
        stage.count = stage.is_run ? run : 2 * (stage.end - stage.begin);
    }
    return stage;
}

// Where a pixel of a line begins in the frame, and in shared memory: at the same byte of a piece of 16.
__device__ const unsigned char* in_frame(const Letterbox& p, const Stage& stage, int line, int column)
{
    return stage.frame + line * p.row_stride + 3LL * column;
}

__device__ const unsigned char* in_stage(const Letterbox& p, const Stage& stage, const uint4* staged, int slot, int line, int column)
{
    const int skew = reinterpret_cast<unsigned long long>(in_frame(p, stage, line, column)) % sizeof(uint4);
    return reinterpret_cast<const unsigned char*>(staged) + slot * p.pitch + skew;
}

// Copies columns of the lines; each warp takes whole lines, in pieces of 16 bytes but where those would reach beyond the frame.
__device__ void fill(const Letterbox& p, const Stage& stage, const Taps* lines, int first_column, int last_column, uint4* staged)
{
    const long long frame_bytes = (p.is_packed ? 2LL * p.resized_h : p.image_h) * p.row_stride - (p.row_stride - 3LL * p.image_w);
    for (int slot = threadIdx.y; slot < stage.count; slot += THREADS_Y) {
        const Taps& made = lines[stage.begin + (stage.is_run ? 0 : slot / 2)];
        const int line = stage.is_run ? stage.first_line + slot : slot % 2 ? made.second : made.first;
        const unsigned char* from = in_frame(p, stage, line, first_column);
        const int skew = reinterpret_cast<unsigned long long>(from) % sizeof(uint4);
        uint4* to = staged + slot * p.pitch / static_cast<int>(sizeof(uint4));
        const int bytes = skew + 3 * (last_column + 1 - first_column);
        for (int at = threadIdx.x * static_cast<int>(sizeof(uint4)); at < bytes; at += THREADS_X * static_cast<int>(sizeof(uint4))) {
            const unsigned char* piece = from - skew + at;
            if (piece >= stage.frame && piece + sizeof(uint4) <= stage.frame + frame_bytes) {
                to[at / sizeof(uint4)] = *reinterpret_cast<const uint4*>(piece);
            } else {
                for (int i = max(at, skew); i < min(at + static_cast<int>(sizeof(uint4)), bytes); ++i) {
                    reinterpret_cast<unsigned char*>(to)[i] = from[i - skew];
                }
            }
        }
    }
}

template <typename T>
__device__ void letterbox(const Letterbox& p)
{
    __shared__ ColumnTaps columns;
    __shared__ Taps lines[THREADS_Y];
    __shared__ uint4 staged[STAGED_BYTES / sizeof(uint4)];
    fill_taps(p, columns, lines);
    __syncthreads();

    const int left = blockIdx.x * TILE_W, y = blockIdx.y * THREADS_Y + threadIdx.y;
    const Taps line = lines[threadIdx.y];
    const Stage stage = stage_of(p, p.frames + blockIdx.z * p.frame_stride, lines);
    const bool in_lines = y >= p.offset_y && y < p.offset_y + p.resized_h;
    const Four<int> first = columns.first[threadIdx.x], second = columns.second[threadIdx.x];
    const Four<int> first_weight = columns.first_weight[threadIdx.x], second_weight = columns.second_weight[threadIdx.x];
    T* image = static_cast<T*>(p.batch) + blockIdx.z * (static_cast<long long>(p.channels) * p.input_h * p.input_w);

    const int parts = max(p.parts, 1), threads = THREADS_X / parts;  // of a line, for one part
    for (int part = 0; part < parts; ++part) {
        const int begin = max(p.offset_x - left, 4 * threads * part);
        const int end = min(p.offset_x + p.resized_w - left, 4 * threads * (part + 1));
        int column = 0;  // of the frame, at which `upper` and `lower` begin
        const unsigned char *upper = in_frame(p, stage, line.first, 0), *lower = in_frame(p, stage, line.second, 0);
        if (p.parts && begin < end) {  // so for the whole block
            column = columns.first[begin / 4].at[begin % 4];
            __syncthreads();  // the part before is done
            fill(p, stage, lines, column, columns.second[(end - 1) / 4].at[(end - 1) % 4], staged);
            __syncthreads();
            const int slot = 2 * (static_cast<int>(threadIdx.y) - stage.begin);
            upper = in_stage(p, stage, staged, stage.is_run ? line.first - stage.first_line : slot, line.first, column);
            lower = in_stage(p, stage, staged, stage.is_run ? line.second - stage.first_line : slot + 1, line.second, column);
        }
        const int x = left + 4 * threadIdx.x;
        if (static_cast<int>(threadIdx.x) / threads != part || x >= p.input_w || y >= p.input_h) {
            continue;
        }
        int bgr[3][4];
        for (int i = 0; i < 4; ++i) {
            const bool inside = in_lines && x + i >= p.offset_x && x + i < p.offset_x + p.resized_w;
            for (int channel = 0; channel < 3; ++channel) {
                bgr[channel][i] = !inside ? p.pad_value
                                          : blend(upper + channel, lower + channel, 3 * (first.at[i] - column),
                                                  3 * (second.at[i] - column), first_weight.at[i], second_weight.at[i], line);
            }
        }
        store(image, p, y, x, bgr);
    }
}

}  // namespace

extern "C" __global__ void letterbox_f32(Letterbox p) { letterbox<float>(p); }

extern "C" __global__ void letterbox_f16(Letterbox p) { letterbox<__half>(p); }

extern "C" __global__ void letterbox_u8(Letterbox p) { letterbox<unsigned char>(p); }
