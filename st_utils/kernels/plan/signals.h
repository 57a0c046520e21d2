// What goes from step to step of a plan: spikes and counts of spikes as strings of bits, everything else as float32.
//
// A string has the channels of a pixel, from the lowest bit on, and is filled up with zeros to whole words of 64 bits.
// Plane p has the binary digits of worth 2^p of all counts. Numbers are [images, height, width, channels]; the images are
// those of all time steps, one step after the other.
#pragma once
#include "../spike_conv/fire.h"

extern "C" struct Signal {
    int64_t images, height, width, channels, planes;  // planes: 0 for numbers
    uint16_t *bits;                                    // [plane, image, row, column, unit]
    int32_t *set;                                      // [plane, image, chunk]: bits that are set
    float *numbers;
};

namespace {

const int64_t WORD = 4;           // units of 64 bits
const int64_t CHUNK = BITS / UNIT;  // units of a chunk

inline int64_t pixels_of(const Signal &x) { return x.height * x.width; }
inline int64_t all_pixels(const Signal &x) { return x.images * pixels_of(x); }
inline int64_t pitch_of(const Signal &x) { return (x.channels + 63) / 64 * WORD; }
inline int64_t words_of(const Signal &x) { return (x.channels + 63) / 64; }
inline int64_t chunks_of(const Signal &x) { return (x.channels + BITS - 1) / BITS; }
inline uint16_t *string_of(const Signal &x, int plane, int64_t pixel) {
    return x.bits + (plane * all_pixels(x) + pixel) * pitch_of(x);
}
inline int32_t *set_of(const Signal &x, int plane, int64_t image) { return x.set + (plane * x.images + image) * chunks_of(x); }

inline uint64_t word_of(const uint16_t *string, int64_t word) { return read<uint64_t>(string + word * WORD); }
inline void write_word(uint16_t *string, int64_t word, uint64_t bits) { std::memcpy(string + word * WORD, &bits, sizeof bits); }

// Count what pixels first ... first + n - 1 have in some units, for the way in which their sums are taken.
inline void count_set(const Signal &x, int plane, int64_t first, int64_t n, int64_t from, int64_t to) {
    while (n > 0 && from < to) {
        const int64_t image = first / pixels_of(x), here = std::min(n, (image + 1) * pixels_of(x) - first);
        for (int64_t begin = from; begin < to;) {
            const int64_t end = std::min(to, (begin / CHUNK + 1) * CHUNK);
            int32_t found = 0;
            for (int64_t p = first; p < first + here; p++)
                for (int64_t unit = begin; unit < end; unit++) found += __builtin_popcount(string_of(x, plane, p)[unit]);
            if (found) __atomic_fetch_add(set_of(x, plane, image) + begin / CHUNK, found, __ATOMIC_RELAXED);
            begin = end;
        }
        first += here, n -= here;
    }
}

// Which of LANES spikes are there.
inline uint32_t fired_lanes(Vector spikes) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(spikes, _mm512_setzero_ps(), _CMP_NEQ_OQ);
#elif defined(__AVX__)
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(spikes, _mm256_setzero_ps(), _CMP_NEQ_OQ)));
#elif defined(__SSE2__)
    return uint32_t(_mm_movemask_ps(_mm_cmpneq_ps(spikes, _mm_setzero_ps())));
#else
    uint32_t found = 0;
    for (int k = 0; k < LANES; k++) found |= uint32_t(spikes[k] != 0.0f) << k;
    return found;
#endif
}

// The spikes of fire_piece into bits: neurons i ... i + WIDTH - 1 of [pixels, ROW], whose first pixel is `pixel` and whose
// channels begin at `channel`.
inline void write_fired(const Signal &out, int64_t pixel, int64_t pixels, int64_t channel, int64_t i, const Vector *fired) {
    uint64_t all = 0;
    EACH all |= uint64_t(fired_lanes(fired[k])) << (k * LANES);
    for (int64_t at = i; at < std::min(i + WIDTH, pixels * ROW); at += UNIT, all >>= UNIT) {
        const int64_t from = channel + at % ROW, rest = out.channels - from;
        if (rest <= 0) continue;
        const uint32_t bits = uint32_t(all) & (rest < UNIT ? (1u << rest) - 1u : 0xffffu);
        string_of(out, 0, pixel + at / ROW)[from / UNIT] = uint16_t(bits);
    }
}

}  // namespace
