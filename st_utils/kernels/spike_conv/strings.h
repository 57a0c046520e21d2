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

// Strings that lie somewhere, and how each image's are summed.
struct Bits {
    const Shape &s;
    const Layout layout;
    const bool all_taps;
    const int64_t rows = s.images * (all_taps ? s.out_height : s.height), width = all_taps ? s.out_width : s.width;
    const int64_t size = rows * width * s.groups * layout.pitch;  // units of a plane
    const int64_t per_image = all_taps ? s.out_height : s.height;  // rows
    int planes = 0;
    float worth = 1.0f;  // of a bit of plane 0
    std::vector<const uint16_t *> bits;
    std::vector<Way> ways;  // [plane, image, group, chunk]

    // With all_taps, a string per output pixel has the channels of all taps behind one another.
    Bits(const Shape &shape, bool all_taps) : s(shape), layout(shape, all_taps), all_taps(all_taps) {}

    const uint16_t *at(int plane, int64_t row, int64_t column, int64_t group) const {
        return bits[plane] + ((row * width + column) * s.groups + group) * layout.pitch;
    }
    Way way(int plane, int64_t row, int64_t group, int64_t chunk) const {
        return ways[((plane * s.images + row / per_image) * s.groups + group) * layout.chunks + chunk];
    }
    float worth_of(int plane) const { return worth * float(1 << plane); }

    // One plane more, of which set[image, group, chunk] bits are set. A way for all strings of an image: equal inputs then
    // have equal sums, wherever they are in it, and no image's sums depend on another's. (Max pooling looks for the first
    // of equal numbers.)
    void add_plane(const uint16_t *plane, const int32_t *set) {
        bits.push_back(plane), planes++;
        for (int64_t i = 0; i < s.images * s.groups * layout.chunks; i++)
            ways.push_back(way_for(set[i], std::min(BITS, layout.bits - i % layout.chunks * BITS) * width * per_image));
    }

    // Row `row` of the strings of all taps, from a unit per input pixel, `pitch` units apart.
    void gather(const uint16_t *single, int64_t pitch, int64_t row, uint16_t *strings) const {
        std::fill(strings, strings + width * layout.pitch, uint16_t(0));
        const int64_t image = row / s.out_height, y = row % s.out_height;
        for (int64_t i = 0; i < s.rows; i++) {
            const int64_t line = y * s.stride[0] + i * s.dilation[0] - s.padding[0];
            if (line < 0 || line >= s.height) continue;
            const uint16_t *from = single + (image * s.height + line) * s.width * pitch;
            for (int64_t j = 0; j < s.columns; j++) {
                const Range columns(s.width, s.out_width, j, s.stride[1], s.padding[1], s.dilation[1]);
                const int64_t bit = (i * s.columns + j) * s.in, unit = bit / UNIT, shift = bit % UNIT;
                const uint16_t *source = from + columns.start * pitch;
                for (int64_t x = columns.first; x < columns.last; x++, source += s.stride[1] * pitch) {
                    const uint32_t shifted = uint32_t(*source) << shift;
                    strings[x * layout.pitch + unit] |= uint16_t(shifted);
                    if (shifted >> UNIT) strings[x * layout.pitch + unit + 1] |= uint16_t(shifted >> UNIT);
                }
            }
        }
    }

    // The set bits of a row of strings, in one group and chunk.
    int32_t count(const uint16_t *strings, int64_t group, int64_t chunk) const {
        const int64_t first = chunk * BITS / UNIT, last = std::min(layout.pitch, first + BITS / UNIT);
        int32_t found = 0;
        for (int64_t column = 0; column < width; column++)
            for (int64_t unit = first; unit < last; unit += 4) {
                uint64_t word;
                std::memcpy(&word, strings + (column * s.groups + group) * layout.pitch + unit, sizeof word);
                found += __builtin_popcountll(word);
            }
        return found;
    }
};

// Strings read from float32.
struct Strings : Bits {
    const int threads;
    std::vector<std::unique_ptr<uint16_t[]>> memory;
    std::vector<int32_t> set;  // [row, group, chunk]: bits of the last plane that are set

    Strings(const Shape &shape, bool all_taps, int threads) : Bits(shape, all_taps), threads(threads) {}

    // False where x has another number than counts from 0 to 255, or eighths of them; then there are no strings.
    bool read(const float *x) {
        if (read(x, 1.0f)) return true;
        worth = 0.125f;
        return read(x, 8.0f);
    }

  private:
    bool read(const float *x, float times) {
        uint32_t most = 1;
        planes = 0, bits.clear(), ways.clear(), memory.clear();
        while (most >> planes) {
            std::unique_ptr<uint16_t[]> single;  // a unit per pixel, from which strings are gathered
            if (all_taps) single.reset(new uint16_t[s.images * s.height * s.width]);
            memory.emplace_back(new uint16_t[size]);
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
            if (all_taps) gather_rows(single.get());
            add_plane(memory.back().get(), set_of_images().data());
        }
        return true;
    }

    uint16_t *row_of(int64_t row) { return memory.back().get() + row * width * s.groups * layout.pitch; }

    void write_row(const float *x, float times, int64_t row, Seen &seen) {
        const int64_t in = s.in / s.groups;
        for (int64_t p = 0; p < width * s.groups; p++) {
            uint16_t *string = row_of(row) + p * layout.pitch;
            write_string(x + p * in, in, times, planes, string, seen);
            std::fill(string + layout.units, string + layout.pitch, uint16_t(0));
        }
        count_row(row);
    }

    void count_row(int64_t row) {
        for (int64_t i = 0; i < s.groups * layout.chunks; i++)
            set[row * s.groups * layout.chunks + i] = count(row_of(row), i / layout.chunks, i % layout.chunks);
    }

    std::vector<int32_t> set_of_images() const {
        const int64_t each = s.groups * layout.chunks;
        std::vector<int32_t> sums(s.images * each, 0);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < each; i++) sums[row / per_image * each + i] += set[row * each + i];
        return sums;
    }

    void gather_rows(const uint16_t *single) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
        for (int64_t row = 0; row < rows; row++) gather(single, 1, row, row_of(row)), count_row(row);
    }
};

}  // namespace
