// The weight's gradient of a convolution of spikes; loaded by op.py. Definition: st_utils/kernels/spike_conv/definition.py.
//
//     dL/d weight[r, c] = sum over output pixels p of x[p * stride + r * dilation - padding, c] dL/d out[p]
//
// It is the forward pass with its roles swapped: for each tap r and input channel c, BITS output pixels are a string of
// bits, and the gradients at these pixels are the rows that it selects (products.h). The order of every sum is that of the
// pixels, so that any number of threads gives the same bits.
#include "strings.h"

namespace {

const int64_t UNITS = BITS / UNIT;       // of a string
const int64_t PIECE = 4 * 1024 * 1024;   // bytes of strings that are made at a time: they stay in the caches

// The columns of 16 units, transposed: bit p of unit c becomes bit c of unit p. By halves, quarters, ... of a square
// (Warren, Hacker's Delight, 7-3), four rows of it in a word.
inline void transpose(uint16_t *square) {
    uint64_t w[4];
    std::memcpy(w, square, sizeof w);
    const auto swap = [](uint64_t &a, uint64_t &b, int shift, uint64_t mask) {
        const uint64_t t = (a >> shift ^ b) & mask;
        a ^= t << shift, b ^= t;
    };
    swap(w[0], w[2], 8, 0x00ff00ff00ff00ff), swap(w[1], w[3], 8, 0x00ff00ff00ff00ff);
    swap(w[0], w[1], 4, 0x0f0f0f0f0f0f0f0f), swap(w[2], w[3], 4, 0x0f0f0f0f0f0f0f0f);
    for (uint64_t &word : w) {
        uint64_t t = (word >> 2 ^ word >> 32) & 0x0000000033333333;
        word ^= t << 2 ^ t << 32;
        t = (word >> 1 ^ word >> 16) & 0x0000555500005555;
        word ^= t << 1 ^ t << 16;
    }
    std::memcpy(square, w, sizeof w);
}

// The strings of BITS output pixels: for each group, tap and input channel; and which of them are summed in which way.
struct Chunk {
    std::vector<uint16_t> strings;                  // [group, tap, channel, UNITS]
    std::vector<std::vector<int32_t>> ways[3];      // [way][group]: numbers of strings within the group
};

struct Gradient {
    const Shape &s;
    const Strings &pixels;
    const float *grad;  // [images, out_height, out_width, out]
    int64_t in = s.in / s.groups, taps = s.rows * s.columns, strings = taps * in;  // strings per group
    int64_t all = s.images * s.out_height * s.out_width, chunks = (all + BITS - 1) / BITS;

    void find(int64_t number, int plane, Chunk &chunk) const {
        chunk.strings.resize(s.groups * strings * UNITS);
        const int64_t first = number * BITS, n = std::min(BITS, all - first);
        for (int64_t tap = 0; tap < taps; tap++) {
            const uint16_t *from[BITS] = {};  // of each output pixel, the channels that this tap reads; null beyond the border
            for (int64_t p = 0; p < n; p++) from[p] = source(first + p, tap, plane);
            for (int64_t group = 0; group < s.groups; group++)
                for (int64_t unit = 0; unit < pixels.layout.units; unit++)
                    for (int64_t part = 0; part < UNITS; part++) {
                        uint16_t square[UNIT];
                        for (int64_t p = 0; p < UNIT; p++) {
                            const uint16_t *string = from[part * UNIT + p];
                            square[p] = string ? string[group * pixels.layout.pitch + unit] : 0;
                        }
                        transpose(square);
                        uint16_t *to = chunk.strings.data() + ((group * taps + tap) * in + unit * UNIT) * UNITS + part;
                        for (int64_t c = 0; c < std::min(UNIT, in - unit * UNIT); c++) to[c * UNITS] = square[c];
                    }
        }
        for (auto &way : chunk.ways) way.assign(s.groups, {});
        for (int64_t group = 0; group < s.groups; group++)
            for (int64_t m = 0; m < strings; m++) {
                uint64_t words[UNITS / 4];
                std::memcpy(words, chunk.strings.data() + (group * strings + m) * UNITS, sizeof words);
                int64_t set = 0;
                for (uint64_t word : words) set += __builtin_popcountll(word);
                chunk.ways[way_for(set, BITS)][group].push_back(int32_t(m));
            }
    }

    // Add a chunk to the sums [strip.width, strings, ROW] of a strip, in one of `parts` parts of its strings.
    void add(int64_t number, const Chunk &chunk, float scale, const Strip &strip, int64_t part, int64_t parts, float *rows,
             float *table, float *sums) const {
        const int64_t wide = strip.width * ROW, n = std::min(BITS, all - number * BITS), apart = strings * ROW;
        for (int64_t p = 0; p < n; p++)
            std::memcpy(rows + p * wide, grad + (number * BITS + p) * s.out + strip.channel, strip.channels * sizeof(float));
        std::fill(rows + n * wide, rows + BITS * wide, 0.0f);
        const uint16_t *bits = chunk.strings.data() + strip.group * strings * UNITS;
        const int64_t last = strings * (part + 1) / parts;
        const auto each = [&](Way way, auto work) {
            const std::vector<int32_t> &found = chunk.ways[way][strip.group];
            for (auto m = std::lower_bound(found.begin(), found.end(), strings * part / parts); m != found.end() && *m < last; m++)
                work(int64_t(*m));
        };
        const bool tables = !chunk.ways[BY_TABLE][strip.group].empty();
        for (int64_t v = 0; tables && v < strip.width; v++) {
            build(rows + v * ROW, wide, BITS / 4, scale, table);
            each(BY_TABLE, [&](int64_t m) { look_up<UNITS>(table, bits + m * UNITS, sums + v * apart + m * ROW); });
        }
        const Add add = add_of(strip.width);
        each(BY_BITS, [&](int64_t m) { add(rows, scale, bits + m * UNITS, UNITS, UNITS, 1, sums + m * ROW, apart); });
    }

  private:
    const uint16_t *source(int64_t pixel, int64_t tap, int plane) const {
        const int64_t column = pixel % s.out_width, row = pixel / s.out_width % s.out_height, image = pixel / s.out_width / s.out_height;
        const int64_t y = row * s.stride[0] + tap / s.columns * s.dilation[0] - s.padding[0];
        const int64_t x = column * s.stride[1] + tap % s.columns * s.dilation[1] - s.padding[1];
        if (y < 0 || y >= s.height || x < 0 || x >= s.width) return nullptr;
        return pixels.at(plane, image * s.height + y, x, 0);
    }
};

}  // namespace

// dL/d weight, of these strides, from x and dL/d out. Returns 0, and writes nothing, where x is not spikes or counts of
// them.
extern "C" int zoo_weight_gradient(const float *x, const float *grad, float *grad_weight, const int64_t *strides,
                                   const Shape *shape, int threads) {
    const Shape &s = *shape;
    Strings pixels(s, false, threads);
    if (!pixels.read(x)) return 0;
    const Gradient gradient{s, pixels, grad};
    const int64_t strings = gradient.strings, chunk_bytes = s.groups * strings * UNITS * 2;
    const std::vector<Strip> strips = strips_of(s, strings);
    const int64_t count = int64_t(strips.size()), parts = (threads + count - 1) / count;
    const int64_t together = std::max<int64_t>(threads, std::min(gradient.chunks, PIECE / chunk_bytes));
    Lines sums((strips.back().rows + strips.back().width * strings) * ROW);
    std::vector<Chunk> chunks(std::min(together, gradient.chunks));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Lines table(TABLE), rows(BITS * WIDEST * ROW);
        std::fill(rows.data, rows.data + BITS * WIDEST * ROW, 0.0f);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; i++)
            std::fill(sums.data + strips[i].rows * ROW, sums.data + (strips[i].rows + strips[i].width * strings) * ROW, 0.0f);
        for (int plane = 0; plane < pixels.planes; plane++)
            for (int64_t first = 0; first < gradient.chunks; first += together) {
                const int64_t last = std::min(first + together, gradient.chunks);
#pragma omp for schedule(dynamic)
                for (int64_t c = first; c < last; c++) gradient.find(c, plane, chunks[c - first]);
#pragma omp for schedule(dynamic)
                for (int64_t job = 0; job < count * parts; job++) {
                    const Strip &strip = strips[job / parts];
                    for (int64_t c = first; c < last; c++)
                        gradient.add(c, chunks[c - first], pixels.worth_of(plane), strip, job % parts, parts, rows.data, table.data,
                                     sums.data + strip.rows * ROW);
                }
            }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; i++)
            for (int64_t m = 0; m < strings; m++) {
                const int64_t tap = m / gradient.in, c = m % gradient.in;
                float *to = grad_weight + strips[i].channel * strides[0] + c * strides[1] + tap / s.columns * strides[2] + tap % s.columns * strides[3];
                for (int64_t o = 0; o < strips[i].channels; o++)
                    to[o * strides[0]] = sums.data[(strips[i].rows + o / ROW * strings + m) * ROW + o % ROW];
            }
    }
    return 1;
}
