// Candidates to detections: what postprocess.candidates_from_heads and suppress do on the host, one block per image.
//
// The order in which candidates were appended leaves no trace: their keys are distinct and give the host's order. So the
// `max_candidates` smallest keys are the host's best, found by radix selection where there are more, and each key's place
// among them is the number of smaller ones.
//
// The arithmetic of boxes is the host's, operation by operation (geometry.iou and centre_distance), on boxes in fractions of
// the input. Compiled with -fmad=false, to round where NumPy rounds.
//
// Grid: (images); block: 512.

struct Nms {
    int* counts;                     // (N,) of `Decode`; left at zero, so that the next frame needs no launch to clear it
    const unsigned long long* keys;  // (N, capacity) of `Decode`
    const float4* boxes;             // (N, capacity) of `Decode`
    int* num_candidates;             // (N,) what `counts` was
    int* num_detections;             // (N,) -1 where there were more candidates than `capacity`: the best may be missing
    float4* detected_boxes;          // (N, max_detections) corners, input px; rows beyond the detections are zero
    float* scores;                   // (N, max_detections)
    int* class_ids;                  // (N, max_detections)
    int capacity, num_classes, max_candidates, max_detections;
    float input_w, input_h, iou_threshold;
    float distance_power;            // p of similarity = IoU - (d²/c²)^p; NaN for plain IoU
};

namespace {

constexpr int NMS_THREADS = 512;
constexpr int MAX_CANDIDATES = 1024;  // as many as the 48 KiB of shared memory hold that every GPU has
constexpr int DIGITS = 256;
constexpr int GROUP = 32;  // bits of a word

// The best candidates, by descending score.
struct Shortlist {
    unsigned long long unsorted_keys[MAX_CANDIDATES];
    int unsorted_slots[MAX_CANDIDATES];
    float4 boxes[MAX_CANDIDATES];  // fractions of the input
    int slots[MAX_CANDIDATES];     // in the image's candidates
    float scores[MAX_CANDIDATES];
    int class_ids[MAX_CANDIDATES];
    unsigned char dropped[MAX_CANDIDATES];
    int size;
};

__device__ float square(float x) { return x * x; }

__device__ float area(const float4& box) { return (box.z - box.x) * (box.w - box.y); }

// 0 where infinite boxes make it no number, as on the host.
__device__ float iou(const float4& a, const float4& b)
{
    const float width = fminf(a.z, b.z) - fmaxf(a.x, b.x), height = fminf(a.w, b.w) - fmaxf(a.y, b.y);
    const float intersection = fmaxf(width, 0.0f) * fmaxf(height, 0.0f);
    const float both = area(a) + area(b) - intersection;
    return both > 0.0f ? intersection / both : 0.0f;
}

// d²/c² of DIoU, arXiv 1911.08287, equation 7.
__device__ float centre_distance(const float4& a, const float4& b)
{
    const float distance = square((a.x + a.z) / 2.0f - (b.x + b.z) / 2.0f) + square((a.y + a.w) / 2.0f - (b.y + b.w) / 2.0f);
    const float diagonal = square(fmaxf(a.z, b.z) - fminf(a.x, b.x)) + square(fmaxf(a.w, b.w) - fminf(a.y, b.y));
    return diagonal > 0.0f ? distance / diagonal : 0.0f;
}

__device__ bool is_similar(const Nms& p, const float4& a, const float4& b)
{
    const float overlap = iou(a, b);
    // What the distance takes away is never negative, so a small overlap needs no power.
    if (!(overlap > p.iou_threshold) || isnan(p.distance_power)) {
        return overlap > p.iou_threshold;
    }
    return overlap - powf(centre_distance(a, b), p.distance_power) > p.iou_threshold;
}

// Whether one candidate drops another, if neither is dropped yet.
__device__ bool may_drop(const Nms& p, const Shortlist& list, int i, int j)
{
    return !list.dropped[i] && !list.dropped[j] && list.class_ids[i] == list.class_ids[j] &&
           is_similar(p, list.boxes[i], list.boxes[j]);
}

// The `wanted`-th smallest of distinct keys, or some number between it and the next: digit by digit from the top, each time
// counting the keys that share the digits found so far.
__device__ unsigned long long nth_smallest(const unsigned long long* keys, int count, int wanted)
{
    __shared__ int histogram[DIGITS];
    __shared__ int digit, before, inside;  // the digit found, keys with a smaller one, keys with this one
    unsigned long long prefix = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < DIGITS; i += NMS_THREADS) {
            histogram[i] = 0;
        }
        __syncthreads();
        // Scores from a quarter to 1 have two values of the top digit: a thread adds a run of equal ones at once.
        int run_digit = 0, run = 0;
        for (int i = threadIdx.x; i < count; i += NMS_THREADS) {
            if (shift == 56 || keys[i] >> (shift + 8) == prefix) {
                const int key_digit = keys[i] >> shift & (DIGITS - 1);
                if (key_digit != run_digit && run) {
                    atomicAdd(&histogram[run_digit], run);
                    run = 0;
                }
                run_digit = key_digit;
                ++run;
            }
        }
        if (run) {
            atomicAdd(&histogram[run_digit], run);
        }
        __syncthreads();
        if (threadIdx.x < DIGITS) {
            int smaller_digits = 0;
            for (int i = 0; i < static_cast<int>(threadIdx.x); ++i) {
                smaller_digits += histogram[i];
            }
            if (smaller_digits < wanted && wanted <= smaller_digits + histogram[threadIdx.x]) {  // so for one thread
                digit = threadIdx.x;
                before = smaller_digits;
                inside = histogram[threadIdx.x];
            }
        }
        __syncthreads();
        prefix = prefix << 8 | digit;
        wanted -= before;
        if (inside == wanted) {
            return ~(~prefix << shift);  // every key with this prefix is wanted
        }
    }
    return prefix;
}

// Copies the keys up to `last`, and where they lie.
__device__ void gather(const unsigned long long* keys, int count, unsigned long long last, Shortlist& list)
{
    if (threadIdx.x == 0) {
        list.size = 0;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += NMS_THREADS) {
        if (keys[i] <= last) {
            const int place = atomicAdd(&list.size, 1);
            list.unsorted_keys[place] = keys[i];
            list.unsorted_slots[place] = i;
        }
    }
    __syncthreads();
}

// Puts each gathered candidate where the number of smaller keys says. All threads read the same key at a time, which shared
// memory serves at once; there is no barrier to wait at, as in a sorting network.
__device__ void sort(const Nms& p, const float4* boxes, Shortlist& list)
{
    for (int i = threadIdx.x; i < list.size; i += NMS_THREADS) {
        const unsigned long long key = list.unsorted_keys[i];
        int rank = 0;
        for (int j = 0; j < list.size; ++j) {
            rank += list.unsorted_keys[j] < key;
        }
        const float4 box = boxes[list.unsorted_slots[i]];
        list.boxes[rank] = make_float4(box.x / p.input_w, box.y / p.input_h, box.z / p.input_w, box.w / p.input_h);
        list.slots[rank] = list.unsorted_slots[i];
        list.scores[rank] = __uint_as_float(~static_cast<unsigned>(key >> 32));
        list.class_ids[rank] = static_cast<unsigned>(key) % static_cast<unsigned>(p.num_classes);
        list.dropped[rank] = 0;
    }
    __syncthreads();
}

// Walks down the list in groups of GROUP and drops what is too similar to a candidate that is not dropped; then writes those that
// are left. Returns how many they are.
//
// A group's own pairs are compared by all threads at once. Each thread then walks through the group by itself, and drops of the
// candidates after the group those that are similar to what it keeps: two barriers a group, where one a candidate would be waited
// at up to a thousand times.
__device__ int suppress(const Nms& p, const float4* boxes, long long first_row, Shortlist& list)
{
    __shared__ unsigned similar[2][GROUP];  // bit j of i: the j-th of the group is too similar to the i-th, which is before it
    if (threadIdx.x < 2 * GROUP) {
        similar[threadIdx.x / GROUP][threadIdx.x % GROUP] = 0;
    }
    __syncthreads();
    int kept = 0;
    for (int start = 0, turn = 0; start < list.size && kept < p.max_detections; start += GROUP, turn ^= 1) {
        const int size = min(GROUP, list.size - start);
        for (int pair = threadIdx.x; pair < GROUP * size; pair += NMS_THREADS) {
            const int i = pair / GROUP, j = pair % GROUP;
            if (i < j && j < size && may_drop(p, list, start + i, start + j)) {
                atomicOr(&similar[turn][i], 1u << j);
            }
        }
        __syncthreads();
        unsigned dropped = 0, keeps = 0;
        for (int i = 0; i < size && kept < p.max_detections; ++i) {
            if (list.dropped[start + i] || dropped >> i & 1) {
                continue;
            }
            if (threadIdx.x == 0) {
                list.unsorted_slots[kept] = start + i;  // they are sorted by now, so this is free
            }
            dropped |= similar[turn][i];
            keeps |= 1u << i;
            ++kept;
        }
        for (int j = start + GROUP + threadIdx.x; j < list.size; j += NMS_THREADS) {
            for (int i = 0; i < size; ++i) {
                if (keeps >> i & 1 && may_drop(p, list, start + i, j)) {
                    list.dropped[j] = 1;
                    break;
                }
            }
        }
        if (threadIdx.x < GROUP) {
            similar[turn ^ 1][threadIdx.x] = 0;  // of the group before, which nobody reads any more
        }
        __syncthreads();
    }
    for (int row = threadIdx.x; row < kept; row += NMS_THREADS) {
        const int i = list.unsorted_slots[row];
        p.detected_boxes[first_row + row] = boxes[list.slots[i]];
        p.scores[first_row + row] = list.scores[i];
        p.class_ids[first_row + row] = list.class_ids[i];
    }
    return kept;
}

}  // namespace

extern "C" __global__ void nms(Nms p)
{
    __shared__ Shortlist list;
    const int image = blockIdx.x, count = p.counts[image];
    const long long first_candidate = static_cast<long long>(image) * p.capacity;
    const long long first_row = static_cast<long long>(image) * p.max_detections;

    int kept = 0;
    if (count <= p.capacity) {
        const unsigned long long* keys = p.keys + first_candidate;
        const bool cut = count > p.max_candidates;
        gather(keys, count, cut ? nth_smallest(keys, count, p.max_candidates) : ~0ULL, list);
        sort(p, p.boxes + first_candidate, list);
        kept = suppress(p, p.boxes + first_candidate, first_row, list);
    }
    for (int row = kept + threadIdx.x; row < p.max_detections; row += NMS_THREADS) {
        p.detected_boxes[first_row + row] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        p.scores[first_row + row] = 0.0f;
        p.class_ids[first_row + row] = 0;
    }
    __syncthreads();  // `counts` has been read by all
    if (threadIdx.x == 0) {
        p.num_candidates[image] = count;
        p.num_detections[image] = count <= p.capacity ? kept : -1;
        p.counts[image] = 0;
    }
}
