// Spikes as strings of bits, made from float32: one string per pixel (and group), the channels in it.
//
//     Strings strings(shape, gathered(shape), threads);
//     if (!strings.read(x)) ...;                        // an x that is not spikes, nor counts of them
//     strings.at(plane, row, column, group)             // its bits; strings.way(plane, row, group, chunk): how to sum them
//
// Counts of spikes, from 0 to 255, have their binary digits in planes: plane 0 has the bits of worth 1, plane 1 of worth 2.
// Where numbers are eighths, as those of neurons that fire in parts of 1, the counts are of eighths: `worth` says of what.
#pragma once
#include <atomic>

#include "shape.h"

namespace {

// Bit `plane` of each count.
inline uint32_t digits(Ints counts, int plane) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)counts, _mm512_set1_epi32(1 << plane));
#elif defined(__AVX2__)
    return uint32_t(_mm256_movemask_ps((__m256)(counts << (31 - plane))));
#elif defined(__SSE2__) && !defined(__AVX__)
    return uint32_t(_mm_movemask_ps((__m128)(counts << (31 - plane))));
#else
    uint32_t found = 0;
    for (int k = 0; k < LANES; k++) found |= uint32_t(counts[k] >> plane & 1) << k;
    return found;
#endif
}

// What numbers were read: the bits of all counts, and -1 where a number is no count.
struct Seen {
    Ints counts = {}, others = {};
    uint32_t most() const {
        uint32_t all = 0;
        for (int k = 0; k < LANES; k++) all |= uint32_t(counts[k]);
        return all;
    }
    bool spikes() const {
        int32_t any = 0;
        for (int k = 0; k < LANES; k++) any |= others[k];
        return !any && most() < 256;
    }
};

// The string of n numbers, their bits of one plane. `times` is a power of two, so that nothing is rounded.
inline void write_string(const float *x, int64_t n, float times, int plane, uint16_t *string, Seen &seen) {
    const int64_t per = UNIT / LANES;
    for (int64_t unit = 0; unit * UNIT < n; unit++) {
        uint32_t bits = 0;
        for (int64_t v = 0; v < per; v++) {
            const int64_t at = unit * UNIT + v * LANES;
            float rest[LANES] = {};
            if (at + LANES > n) std::copy(x + std::min(at, n), x + n, rest);
            const Vector numbers = load(at + LANES > n ? rest : x + at) * times;
            const Ints counts = __builtin_convertvector(numbers, Ints);
            seen.others |= __builtin_convertvector(counts, Vector) != numbers, seen.counts |= counts;
            bits |= digits(counts, plane) << (v * LANES);
        }
        string[unit] = uint16_t(bits);
    }
}

enum Way : uint8_t { EMPTY, BY_BITS, BY_TABLE };

// The way of strings that have `set` bits set of `all`.
inline Way way_for(int64_t set, int64_t all) { return !set ? EMPTY : set * UNIT <= all * FEW ? BY_BITS : BY_TABLE; }

struct Strings {
    const Shape &s;
    const Layout layout;
    const bool all_taps;
    const int threads;
    const int64_t rows = s.images * (all_taps ? s.out_height : s.height), width = all_taps ? s.out_width : s.width;
    const int64_t size = rows * width * s.groups * layout.pitch;  // units of a plane
    const int64_t per_image = all_taps ? s.out_height : s.height;  // rows
    int planes = 0;
    float worth = 1.0f;  // of a bit of plane 0
    std::vector<std::unique_ptr<uint16_t[]>> bits;
    std::vector<Way> ways;     // [plane, image, group, chunk]
    std::vector<int32_t> set;  // [row, group, chunk]: bits of the last plane that are set

    // With all_taps, a string per output pixel has the channels of all taps behind one another.
    Strings(const Shape &shape, bool all_taps, int threads)
        : s(shape), layout(shape, all_taps), all_taps(all_taps), threads(threads) {}

    const uint16_t *at(int plane, int64_t row, int64_t column, int64_t group) const {
        return bits[plane].get() + ((row * width + column) * s.groups + group) * layout.pitch;
    }
    Way way(int plane, int64_t row, int64_t group, int64_t chunk) const {
        return ways[((plane * s.images + row / per_image) * s.groups + group) * layout.chunks + chunk];
    }
    float worth_of(int plane) const { return worth * float(1 << plane); }

    // False where x has another number than counts from 0 to 255, or eighths of them; then there are no strings.
    bool read(const float *x) {
        if (read(x, 1.0f)) return true;
        worth = 0.125f;
        return read(x, 8.0f);
    }

  private:
    bool read(const float *x, float times) {
        uint32_t most = 1;
        bits.clear(), ways.clear();
        for (planes = 0; most >> planes; planes++) {
            std::unique_ptr<uint16_t[]> single;  // a unit per pixel, from which strings are gathered
            if (all_taps) single.reset(new uint16_t[s.images * s.height * s.width]);
            bits.emplace_back(new uint16_t[size]);
            set.assign(rows * s.groups * layout.chunks, 0);
            std::atomic<uint32_t> all{0};
            std::atomic<bool> whole{true};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
            for (int64_t line = 0; line < s.images * s.height; line++) {
                if (!whole.load(std::memory_order_relaxed)) continue;
                Seen seen;
                const float *from = x + line * s.width * s.in;
                if (all_taps)
                    for (int64_t c = 0; c < s.width; c++)
                        write_string(from + c * s.in, s.in, times, planes, single.get() + line * s.width + c, seen);
                else
                    write_row(from, times, line, seen);
                if (!seen.spikes()) whole = false;
                all |= seen.most();
            }
            if (!whole) return false;
            most |= all;
            if (all_taps) gather(single.get());
            choose();
        }
        return true;
    }

    void write_row(const float *x, float times, int64_t row, Seen &seen) {
        const int64_t in = s.in / s.groups;
        for (int64_t p = 0; p < width * s.groups; p++) {
            uint16_t *string = bits[planes].get() + (row * width * s.groups + p) * layout.pitch;
            write_string(x + p * in, in, times, planes, string, seen);
            std::fill(string + layout.units, string + layout.pitch, uint16_t(0));
        }
        count(row);
    }

    void count(int64_t row) {
        for (int64_t group = 0; group < s.groups; group++)
            for (int64_t chunk = 0; chunk < layout.chunks; chunk++) {
                const int64_t first = chunk * BITS / UNIT, last = std::min(layout.pitch, first + BITS / UNIT);
                int32_t here = 0;
                for (int64_t column = 0; column < width; column++)
                    for (int64_t unit = first; unit < last; unit += 4) {
                        uint64_t word;
                        std::memcpy(&word, at(planes, row, column, group) + unit, sizeof word);
                        here += __builtin_popcountll(word);
                    }
                set[(row * s.groups + group) * layout.chunks + chunk] = here;
            }
    }

    // A way for all strings of an image: equal inputs then have equal sums, wherever they are in it, and no image's sums
    // depend on another's. (Max pooling looks for the first of equal numbers.)
    void choose() {
        for (int64_t image = 0; image < s.images; image++)
            for (int64_t i = 0; i < s.groups * layout.chunks; i++) {
                const int64_t bits_here = std::min(BITS, layout.bits - i % layout.chunks * BITS);
                int64_t of_image = 0;
                for (int64_t row = image * per_image; row < (image + 1) * per_image; row++)
                    of_image += set[row * s.groups * layout.chunks + i];
                ways.push_back(way_for(of_image, bits_here * width * per_image));
            }
    }

    // The strings of all taps from a unit per input pixel.
    void gather(const uint16_t *single) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            uint16_t *strings = bits[planes].get() + row * width * layout.pitch;
            std::fill(strings, strings + width * layout.pitch, uint16_t(0));
            const int64_t image = row / s.out_height, y = row % s.out_height;
            for (int64_t i = 0; i < s.rows; i++) {
                const int64_t line = y * s.stride[0] + i * s.dilation[0] - s.padding[0];
                if (line < 0 || line >= s.height) continue;
                const uint16_t *from = single + (image * s.height + line) * s.width;
                for (int64_t j = 0; j < s.columns; j++) {
                    const Range columns(s.width, s.out_width, j, s.stride[1], s.padding[1], s.dilation[1]);
                    const int64_t bit = (i * s.columns + j) * s.in, unit = bit / UNIT, shift = bit % UNIT;
                    const uint16_t *source = from + columns.start;
                    for (int64_t x = columns.first; x < columns.last; x++, source += s.stride[1]) {
                        const uint32_t shifted = uint32_t(*source) << shift;
                        strings[x * layout.pitch + unit] |= uint16_t(shifted);
                        if (shifted >> UNIT) strings[x * layout.pitch + unit + 1] |= uint16_t(shifted >> UNIT);
                    }
                }
            }
            count(row);
        }
    }
};

}  // namespace
