// Convolution of spikes; loaded by op.py. Definition: st_utils/kernels/spike_conv/definition.py.
//
//     out[p] = bias + sum over taps r of weight[r] @ x[p * stride + r * dilation - padding]
//
// Spikes are read as strings of bits (strings.h). A thread takes some output rows and a strip of output channels, whose
// sums stay in its cache while tap after tap, and in each chunk after chunk of input channels, is added (products.h). The
// order of every sum is that of planes, taps, chunks and channels, so that any number of threads gives the same bits, and
// an image's output does not depend on the other images.
#include "strings.h"

namespace {

const int64_t PIXELS = 512;  // of the output per piece: with a strip of 64 channels, half of a small second-level cache

// The weights in the order in which they are summed: for each strip, tap and input channel a row of output channels.
struct Weights {
    const Layout layout;
    const int64_t rows;  // per strip, a whole number of units per tap
    const std::vector<Strip> strips;
    float *data;

    static int64_t rows_of(const Layout &layout) { return layout.taps * layout.units * UNIT; }
    Weights(const Shape &s, float *data) : layout(s, gathered(s)), rows(rows_of(layout)), strips(strips_of(s, rows)), data(data) {}
    int64_t size() const { return (strips.back().rows + strips.back().width * rows) * ROW; }
    const float *at(const Strip &strip, int64_t tap, int64_t bit) const {
        return data + (strip.rows + (tap * layout.units * UNIT + bit) * strip.width) * ROW;
    }

    // From the weight [out, in / groups, rows, columns] of these strides. A square of channels at a time, over all taps,
    // which lie beside one another in most weights.
    void pack(const Shape &s, const float *weight, const int64_t *strides, int threads) const {
        const int64_t in = s.in / s.groups, kernel = s.rows * s.columns, blocks = (in + UNIT - 1) / UNIT;
        const int64_t pitch = layout.taps == 1 ? in : layout.units * UNIT;  // rows from tap to tap
        if (layout.bits % UNIT || s.out / s.groups % ROW) std::fill(data, data + size(), 0.0f);  // what fills units and rows up
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
        for (int64_t job = 0; job < int64_t(strips.size()) * blocks; job++) {
            const Strip &strip = strips[job / blocks];
            const int64_t first = job % blocks * UNIT, last = std::min(first + UNIT, in), wide = strip.width * ROW;
            for (int64_t o0 = 0; o0 < strip.channels; o0 += UNIT)
                for (int64_t tap = 0; tap < kernel; tap++) {
                    const float *from = weight + (strip.channel + o0) * strides[0] + tap / s.columns * strides[2] + tap % s.columns * strides[3];
                    float *to = data + strip.rows * ROW + tap * pitch * wide + o0;
                    const int64_t n = std::min(UNIT, strip.channels - o0);
                    for (int64_t c = first; c < last; c++)
                        for (int64_t o = 0; o < n; o++) to[c * wide + o] = from[o * strides[0] + c * strides[1]];
                }
        }
    }
};

// Strings that lie in one row: the inputs of some outputs of a row, for one tap.
struct Run {
    int64_t row, column, to, count;  // the first input pixel; the first output pixel, within the piece
};

// Working memory of a thread.
struct Room {
    Lines table{TABLE}, sums;  // sums [strip.width, pixels, ROW]
    std::vector<Run> runs;
    explicit Room(int64_t pixels) : sums(pixels * WIDEST * ROW) {}
};

struct Forward {
    const Shape &s;
    const Strings &strings;
    const Weights &weights;
    const float *bias;  // may be null
    float *out;

    // The output of one strip for the output rows first ... last - 1, counted through all images.
    void compute(const Strip &strip, int64_t first, int64_t last, Room &room) const {
        const int64_t pixels = (last - first) * s.out_width;
        begin(strip, pixels, room.sums.data);
        for (int64_t tap = 0; tap < strings.layout.taps; tap++) {
            find_runs(first, last, tap, room.runs);
            for (int plane = 0; plane < strings.planes; plane++)
                for (int64_t chunk = 0; chunk < strings.layout.chunks; chunk++) add(strip, pixels, tap, plane, chunk, room);
        }
        finish(strip, first * s.out_width, pixels, room.sums.data);
    }

  private:
    void find_runs(int64_t first, int64_t last, int64_t tap, std::vector<Run> &runs) const {
        runs.clear();
        if (strings.all_taps) {
            for (int64_t row = first; row < last; row++) runs.push_back({row, 0, (row - first) * s.out_width, s.out_width});
            return;
        }
        const Range columns(s.width, s.out_width, tap % s.columns, s.stride[1], s.padding[1], s.dilation[1]);
        for (int64_t row = first; row < last && columns.first < columns.last; row++) {
            const int64_t line = row % s.out_height * s.stride[0] + tap / s.columns * s.dilation[0] - s.padding[0];
            if (line >= 0 && line < s.height)
                runs.push_back({row / s.out_height * s.height + line, columns.start, (row - first) * s.out_width + columns.first,
                                columns.last - columns.first});
        }
    }

    // Add what one tap has in one chunk of one plane.
    void add(const Strip &strip, int64_t pixels, int64_t tap, int plane, int64_t chunk, Room &room) const {
        const int64_t unit = chunk * BITS / UNIT, units = std::min(BITS / UNIT, strings.layout.units - unit);
        const int64_t pitch = s.groups * strings.layout.pitch * (strings.all_taps ? 1 : s.stride[1]);
        const float *rows = weights.at(strip, tap, chunk * BITS), scale = float(1 << plane);
        const auto each = [&](Way way, auto work) {
            for (const Run &run : room.runs)
                if (strings.way(plane, run.row, strip.group, chunk) == way)
                    work(strings.at(plane, run.row, run.column, strip.group) + unit, run);
        };
        const Add add = add_of(strip.width);
        each(BY_BITS, [&](const uint16_t *string, const Run &run) {
            add(rows, scale, string, pitch, units, run.count, room.sums.data + run.to * ROW, pixels * ROW);
        });
        bool tables = false;
        each(BY_TABLE, [&](const uint16_t *, const Run &) { tables = true; });
        const LookUp look_up = look_up_of(units);
        for (int64_t v = 0; tables && v < strip.width; v++) {
            build(rows + v * ROW, strip.width * ROW, units * UNIT / 4, scale, room.table.data);
            each(BY_TABLE, [&](const uint16_t *string, const Run &run) {
                look_up(room.table.data, string, pitch, run.count, room.sums.data + (v * pixels + run.to) * ROW);
            });
        }
    }

    void begin(const Strip &strip, int64_t pixels, float *sums) const {
        for (int64_t v = 0; v < strip.width; v++) {
            float values[ROW] = {};
            const int64_t channel = v * ROW, n = std::min(ROW, strip.channels - channel);
            if (bias) std::copy(bias + strip.channel + channel, bias + strip.channel + channel + n, values);
            for (int64_t p = 0; p < pixels; p++, sums += ROW) std::memcpy(sums, values, sizeof values);
        }
    }

    void finish(const Strip &strip, int64_t first, int64_t pixels, const float *sums) const {
        const bool past = past_caches(out, FLOAT32, s.images * s.out_height * s.out_width, s.out) && strip.channel % LANES == 0;
        for (int64_t p = 0; p < pixels; p++) {
            float *to = out + (first + p) * s.out + strip.channel;
            for (int64_t v = 0; v < strip.width; v++, to += ROW) {
                const float *from = sums + (v * pixels + p) * ROW;
                const int64_t n = std::min(ROW, strip.channels - v * ROW);
                if (past && n == ROW)
                    for (int64_t k = 0; k < ROW; k += LANES) store_past(load(from + k), to, k);
                else
                    std::copy(from, from + n, to);
            }
        }
    }
};

}  // namespace

// The size of the packed weights, in numbers.
extern "C" int64_t zoo_packed_size(const Shape *shape) { return Weights(*shape, nullptr).size(); }

extern "C" void zoo_pack(const float *weight, const int64_t *strides, float *packed, const Shape *shape, int threads) {
    Weights(*shape, packed).pack(*shape, weight, strides, threads);
}

// x -> out with packed weights that begin at a cache line; `bias` may be null. Returns 0, and writes nothing, where x is
// not spikes or counts of them.
extern "C" int zoo_forward(const float *x, float *packed, const float *bias, float *out, const Shape *shape, int threads) {
    const Shape &s = *shape;
    Strings strings(s, gathered(s), threads);
    if (!strings.read(x)) return 0;
    const Weights weights(s, packed);
    const Forward forward{s, strings, weights, bias, out};
    const int64_t all = s.images * s.out_height, count = int64_t(weights.strips.size());
    int64_t rows = std::max<int64_t>(1, std::min(all, PIXELS / s.out_width));
    while (rows > 1 && rows * s.out_width > 128 && (all + rows - 1) / rows * count < 4 * threads) rows = (rows + 1) / 2;
    const int64_t pieces = (all + rows - 1) / rows;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(rows * s.out_width);
#pragma omp for schedule(dynamic)
        for (int64_t job = 0; job < pieces * count; job++) {
            const int64_t first = job / count * rows;
            forward.compute(weights.strips[job % count], first, std::min(all, first + rows), room);
        }
        fence();
    }
    return 1;
}
