// The product of a matrix of bits with a matrix of float32 rows, the sum that both directions of a convolution over
// spikes are made of:
//
//     sums[m] += scale * (rows[k] for all k < BITS where bit k of string m is set, added up)
//
// Forward, a string is the channels of a pixel, and the rows are the weights of these channels; for the weight's gradient
// a string is the pixels of a channel, and the rows are the gradients at these pixels. A string is computed in one of two
// ways:
//
//     build(rows, pitch, 4 * units, scale, table), look_up_of(units)(table, strings, ...);       // by a table
//     add_of(width)(rows, scale, strings, ...);                                                   // by its set bits
//
// A table has the 16 possible sums of each 4 rows: a string then adds one row for each 4 of its bits, whatever they are
// (the "method of four Russians": Arlazarov, Dinic, Kronrod and Faradzev 1970). Adding a row for each set bit takes less
// time where few are set. The order of the sums depends on the string alone: not on its neighbours, not on the threads.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "vectors.h"

namespace {

// What is summed: float32; or, with ZOO_INT16, whole numbers of 16 bits. These may run over on the way: only the last sum
// must fit, from -32768 to 32767, for which the compiled network chooses the unit (st_utils/plan/reduced.py).
#ifdef ZOO_INT16
typedef uint16_t Number;
#else
typedef float Number;
#endif
typedef Number Sum __attribute__((vector_size(sizeof(Vector))));

const int64_t UNIT = 16;                                       // bits that are stored as one number
const int64_t SUMS = sizeof(Sum) / sizeof(Number);             // of a vector
const int VECTORS = LANES == 8 ? 4 : 16 / LANES;               // of a table's row; found by measurement
const int64_t ROW = VECTORS * SUMS;                            // numbers of a table's row
const int64_t BITS = 32768 / (4 * VECTORS * sizeof(Sum));      // of a string, at most: its table fills the nearest cache, 32 KB
const int64_t TABLE = BITS / 4 * 16 * ROW;                     // numbers
const int64_t WIDEST = 64 / (VECTORS * LANES);                 // rows of sums that additions keep in registers

inline Sum load_sum(const Number *from) { return read<Sum>(from); }
inline void store_sum(Number *to, Sum sum) { std::memcpy(to, &sum, sizeof(Sum)); }

// Strings with at most this many set bits per unit on average are added bit by bit. The additions of both ways are equally
// many at 4 of 16; what they cost beside differs by instruction set. A constant, not a measurement at run time: the choice
// changes the last bits of a sum, and a run must give the same numbers each time.
// A benchmark compiles libraries of its own with ZOO_FEW: 16 adds all strings bit by bit, -1 takes tables for all.
#ifdef ZOO_FEW
const double FEW = ZOO_FEW;
#else
const double FEW = LANES == 8 ? 5.0 : 4.0;
#endif

// The 16 sums of each 4 of the rows; row k is rows[k * pitch], its first ROW numbers.
inline void build(const Number *rows, int64_t pitch, int64_t groups, Number scale, Number *table) {
    for (int64_t g = 0; g < groups; g++, rows += 4 * pitch, table += 16 * ROW)
        for (int v = 0; v < VECTORS; v++) {
            const Number *from = rows + v * SUMS;
            const Sum a = load_sum(from) * scale, b = load_sum(from + pitch) * scale, c = load_sum(from + 2 * pitch) * scale;
            const Sum d = load_sum(from + 3 * pitch) * scale, ab = a + b, ac = a + c, bc = b + c, cd = c + d, abc = ab + c;
            const Sum sums[16] = {Sum{},    a,     b,     ab,     c,  ac,     bc,     abc,
                                     d,        a + d, b + d, ab + d, cd, a + cd, b + cd, ab + cd};
            for (int i = 0; i < 16; i++) store_sum(table + i * ROW + v * SUMS, sums[i]);
        }
}

// Where the table has the sum of a word's nibble: its row in bytes.
inline uint64_t place_of(uint64_t word, int nibble) {
    const int size = VECTORS * sizeof(Sum) == 64 ? 6 : 7, shift = 4 * nibble - size;  // a row is 2^size bytes
    return (shift < 0 ? word << -shift : word >> shift) & uint64_t(15) << size;
}

// One string's row of sums, by the table.
template <int UNITS> inline void look_up(const Number *table, const uint16_t *string, Number *sums) {
    Sum even[VECTORS], odd[VECTORS] = {};  // two sums side by side, so that an addition need not wait for the last one
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) even[v] = load_sum(sums + v * SUMS);
    uint64_t words[(UNITS + 3) / 4];
    std::memcpy(words, string, sizeof words);
    const char *sums_of = reinterpret_cast<const char *>(table);
    constexpr int NIBBLES = 4 * UNITS;
#pragma GCC unroll 32
    for (int g = 0; g < NIBBLES; g++) {
        const Number *row = reinterpret_cast<const Number *>(sums_of + g * 16 * ROW * sizeof(Number) + place_of(words[g / 16], g % 16));
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) (g & 1 ? odd : even)[v] += load_sum(row + v * SUMS);
    }
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) store_sum(sums + v * SUMS, even[v] + odd[v]);
}

// VECTORS * WIDTH vectors of sums of one string, by its set bits; the sums of row v are at sums[v * apart].
template <int WIDTH> inline void add(const Number *rows, Number scale, const uint16_t *string, int64_t units, Number *sums, int64_t apart) {
    Sum sum[WIDTH * VECTORS] = {};
    for (int64_t unit = 0; unit < units; unit += 4) {  // 64 bits: what fills a string up is zero
        uint64_t bits;
        std::memcpy(&bits, string + unit, sizeof bits);
        for (; bits; bits &= bits - 1) {
            const Number *row = rows + (unit * UNIT + __builtin_ctzll(bits)) * WIDTH * ROW;
#pragma GCC unroll 16
            for (int v = 0; v < WIDTH * VECTORS; v++) sum[v] += load_sum(row + v * SUMS);
        }
    }
#pragma GCC unroll 16
    for (int v = 0; v < WIDTH * VECTORS; v++) {
        Number *to = sums + v / VECTORS * apart + v % VECTORS * SUMS;
        store_sum(to, load_sum(to) + sum[v] * scale);
    }
}

// Strings m = 0 ... n - 1, at strings[m * pitch]; their sums are at sums[m * ROW].
using LookUp = void (*)(const Number *table, const uint16_t *strings, int64_t pitch, int64_t n, Number *sums);
template <int UNITS> void look_up_each(const Number *table, const uint16_t *strings, int64_t pitch, int64_t n, Number *sums) {
    for (int64_t m = 0; m < n; m++) look_up<UNITS>(table, strings + m * pitch, sums + m * ROW);
}
inline LookUp look_up_of(int64_t units) {
    const LookUp all[] = {look_up_each<1>, look_up_each<2>, look_up_each<3>, look_up_each<4>,
                          look_up_each<5>, look_up_each<6>, look_up_each<7>, look_up_each<8>};  // BITS / UNIT at most
    return all[units - 1];
}

using Add = void (*)(const Number *rows, Number scale, const uint16_t *strings, int64_t pitch, int64_t units, int64_t n,
                     Number *sums, int64_t apart);
template <int WIDTH>
void add_each(const Number *rows, Number scale, const uint16_t *strings, int64_t pitch, int64_t units, int64_t n, Number *sums,
              int64_t apart) {
    for (int64_t m = 0; m < n; m++) add<WIDTH>(rows, scale, strings + m * pitch, units, sums + m * ROW, apart);
}
inline Add add_of(int64_t width) {
    const Add all[] = {add_each<1>, add_each<2>, add_each<3>, add_each<4>};
    return all[width - 1];
}

// n numbers that begin at a cache line: a vector load across two lines costs two.
struct Lines {
    std::unique_ptr<Number[]> memory;
    Number *data;
    explicit Lines(int64_t n) : memory(new Number[n + 64 / sizeof(Number)]) {
        data = reinterpret_cast<Number *>((reinterpret_cast<uintptr_t>(memory.get()) + 63) & ~uintptr_t(63));
    }
};

}  // namespace
