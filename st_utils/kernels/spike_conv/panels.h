// What both directions of the convolution of spikes share: lists of what is not zero, panels, and their sums.
//
//     Lists lists;
//     lists.clear(pixels, channels), lists.add(x, channels);                    // which channels of a pixel spike
//     add_rows_of(strips.vectors, lists.ones)(panel, row, value, n, from, to);  // to = from + the panel's rows of these
//
// A panel is a matrix whose rows are a strip wide, small enough for the second-level cache.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

// One convolution of stride 1, with as many rows and columns out as in; the kernel's rows and columns are odd.
extern "C" struct Shape {
    int64_t images, height, width, in, out, rows, columns;
};

namespace {

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
const int64_t FLOAT = sizeof(float);
const int64_t PANEL = 256 * 1024;      // bytes of the second-level cache that a panel may fill
const int64_t FEWEST = 4, MOST = 8;    // vectors per strip, whose sums stay in registers
const int64_t AHEAD = 8;               // panel rows that are prefetched ahead of their use
const int64_t COPIED = 16;             // entries per copy of a list: whole vectors, whose excess is written over

// The output channels [out] in strips of `width`; the last strip may have fewer. Takes the number of vectors per strip
// that pads `out` least, as padded channels are computed too.
struct Strips {
    int64_t vectors = MOST, width, count;
    explicit Strips(int64_t out) {
        for (int64_t v = MOST - 1; v >= FEWEST; v--)
            if (padded(out, v) < padded(out, vectors)) vectors = v;
        width = vectors * LANES, count = padded(out, vectors) / width;
    }
    static int64_t padded(int64_t out, int64_t v) { return (out + v * LANES - 1) / (v * LANES) * v * LANES; }
};

// n floats that begin at a cache line: a vector load across two lines costs two.
struct Lines {
    std::unique_ptr<float[]> memory;
    float *data;
    explicit Lines(int64_t n) : memory(new float[n + 16]) {
        data = reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(memory.get()) + 63) & ~uintptr_t(63));
    }
};

#ifdef __AVX2__
// For each byte, the positions of its set bits. With it 8 channels are listed without a branch, which would be
// mispredicted about as often as there are spikes.
struct SetBits {
    alignas(16) uint16_t places[256][8] = {};
    SetBits() {
        for (int byte = 0; byte < 256; byte++)
            for (int bit = 0, n = 0; bit < 8; bit++)
                if (byte >> bit & 1) places[byte][n++] = uint16_t(bit);
    }
};
const SetBits SET_BITS;
#endif

// The channels that are not zero and their values, pixel after pixel: those of pixel p are the entries
// start[p] ... start[p + 1] - 1.
struct Lists {
    std::vector<int32_t> start;
    std::vector<uint16_t> channel;
    std::vector<float> value;
    bool ones = true;  // every value is 1: plain spikes, which need no multiplication

    // Empty lists with room for this many pixels. Memory is kept: it is as large for the next rows.
    void clear(int64_t pixels, int64_t channels) {
        start.assign(1, 0), ones = true;
        if (int64_t(value.size()) >= pixels * channels) return;
        channel.resize(pixels * channels + COPIED), value.resize(pixels * channels);
    }

    // The list of one more pixel, x [channels].
    void add(const float *x, int64_t channels) {
        const int32_t first = start.back();
        int32_t n = first;
        int64_t c = 0;
#ifdef __AVX2__
        __m256 other = _mm256_setzero_ps();
        for (; c + 8 <= channels; c += 8) {
            const __m256 numbers = _mm256_loadu_ps(x + c);
            const __m256 listed = _mm256_cmp_ps(numbers, _mm256_setzero_ps(), _CMP_NEQ_UQ);
            const __m256 not_one = _mm256_cmp_ps(numbers, _mm256_set1_ps(1.0f), _CMP_NEQ_UQ);
            other = _mm256_or_ps(other, _mm256_and_ps(listed, not_one));
            const int byte = _mm256_movemask_ps(listed);
            const __m128i places = _mm_load_si128(reinterpret_cast<const __m128i *>(SET_BITS.places[byte]));
            const __m128i channels_of = _mm_add_epi16(places, _mm_set1_epi16(int16_t(c)));
            _mm_storeu_si128(reinterpret_cast<__m128i *>(channel.data() + n), channels_of);
            n += __builtin_popcount(byte);
        }
        ones &= _mm256_movemask_ps(other) == 0;
#endif
        for (; c < channels; c++) {  // without a branch: an entry of a zero is written over by the next
            channel[n] = uint16_t(c);
            n += x[c] != 0.0f;
            ones &= x[c] == 0.0f || x[c] == 1.0f;
        }
        for (int32_t i = first; i < n; i++) value[i] = x[channel[i]];
        start.push_back(n);
    }
};

// to = from + sum over i < n of value[i] panel[row[i]], one strip [VECTORS * LANES] per panel row; with ONES the values
// are 1 and not read. The sums stay in registers. `row` is read AHEAD entries past its end, for the prefetch.
template <int VECTORS, bool ONES>
void add_rows(const float *panel, const uint16_t *row, const float *value, int64_t n, const float *from, float *to) {
    const Vector *rows = reinterpret_cast<const Vector *>(panel);
    Vector sum[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) std::memcpy(&sum[v], from + v * LANES, sizeof(Vector));
    for (int64_t i = 0; i < n; i++) {
        const Vector *numbers = rows + int64_t(row[i]) * VECTORS;
        const char *later = reinterpret_cast<const char *>(rows + int64_t(row[i + AHEAD]) * VECTORS);
#pragma GCC unroll 8
        for (int64_t line = 0; line < int64_t(VECTORS * sizeof(Vector)); line += 64) __builtin_prefetch(later + line);
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[v] += ONES ? numbers[v] : numbers[v] * value[i];
    }
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) std::memcpy(to + v * LANES, &sum[v], sizeof(Vector));
}

using AddRows = void (*)(const float *, const uint16_t *, const float *, int64_t, const float *, float *);
template <bool ONES> AddRows add_rows_of(int64_t vectors) {
    const AddRows all[] = {add_rows<4, ONES>, add_rows<5, ONES>, add_rows<6, ONES>, add_rows<7, ONES>, add_rows<8, ONES>};
    return all[vectors - FEWEST];
}
AddRows add_rows_of(int64_t vectors, bool ones) { return ones ? add_rows_of<true>(vectors) : add_rows_of<false>(vectors); }

// work(index in the weight [out, in, rows, columns] of these strides, index in the panels [strip, tap, in, width]) for
// every number of the weight; a tap is a row and column of the kernel.
template <class Work> void each_weight(const int64_t *strides, const Shape &s, const Strips &strips, int threads, Work work) {
    const int64_t taps = s.rows * s.columns, jobs = strips.count * taps, tile = 16;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t job = 0; job < jobs; job++) {
        const int64_t first = job / taps * strips.width, n = std::min(strips.width, s.out - first), tap = job % taps;
        const int64_t at = first * strides[0] + tap / s.columns * strides[2] + tap % s.columns * strides[3];
        for (int64_t c0 = 0; c0 < s.in; c0 += tile)
            for (int64_t o = 0; o < n; o++)
                for (int64_t c = c0; c < std::min(c0 + tile, s.in); c++)
                    work(at + o * strides[0] + c * strides[1], (job * s.in + c) * strips.width + o);
    }
}

}  // namespace
