// What every forward pass of a convolution of spikes shares: packed weights, and the sums of a piece of the output.
//
//     Sums sums{shape, strings, weights, bias, steps};
//     together(threads, [&](Team &team) {
//         Room room;
//         sums.each_piece(team, room, [&](const Piece &piece, const Number *sums) { ... });
//     });
//
// A piece is a strip of output channels at some pixels, in all time steps, whose sums stay in a thread's cache while tap
// after tap, and in each chunk after chunk of input channels, is added (products.h). The order of every sum is that of
// taps, planes, chunks and channels, so that any number of threads gives the same bits, and an image's output does not
// depend on the other images.
#pragma once
#include "strings.h"
#include "team.h"

namespace {

const int64_t PIXELS = 512;  // of the output per piece: with a strip of 64 channels, half of a small second-level cache

// A weight as it is summed.
#ifdef ZOO_INT16
inline Number number_of(float weight) { return Number(int32_t(weight)); }
#else
inline Number number_of(float weight) { return weight; }
#endif

// The weights in the order in which they are summed: for each strip, tap and input channel a row of output channels.
struct Weights {
    const Layout layout;
    const int64_t rows;  // per strip, a whole number of units per tap
    const std::vector<Strip> strips;
    Number *data;

    static int64_t rows_of(const Layout &layout) { return layout.taps * layout.units * UNIT; }
    Weights(const Shape &s, Number *data) : layout(s, gathered(s)), rows(rows_of(layout)), strips(strips_of(s, rows)), data(data) {}
    int64_t size() const { return (strips.back().rows + strips.back().width * rows) * ROW; }
    const Number *at(const Strip &strip, int64_t tap, int64_t bit) const {
        return data + (strip.rows + (tap * layout.units * UNIT + bit) * strip.width) * ROW;
    }

    // From the weight [out, in / groups, rows, columns] of these strides. A square of channels at a time, over all taps,
    // which lie beside one another in most weights.
    void pack(const Shape &s, const float *weight, const int64_t *strides, int threads) const {
        const int64_t in = s.in / s.groups, kernel = s.rows * s.columns, blocks = (in + UNIT - 1) / UNIT;
        const int64_t pitch = layout.taps == 1 ? in : layout.units * UNIT;  // rows from tap to tap
        if (layout.bits % UNIT || s.out / s.groups % ROW) std::fill(data, data + size(), Number(0));  // what fills units and rows up
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
        for (int64_t job = 0; job < int64_t(strips.size()) * blocks; job++) {
            const Strip &strip = strips[job / blocks];
            const int64_t first = job % blocks * UNIT, last = std::min(first + UNIT, in), wide = strip.width * ROW;
            for (int64_t o0 = 0; o0 < strip.channels; o0 += UNIT)
                for (int64_t tap = 0; tap < kernel; tap++) {
                    const float *from = weight + (strip.channel + o0) * strides[0] + tap / s.columns * strides[2] + tap % s.columns * strides[3];
                    Number *to = data + strip.rows * ROW + tap * pitch * wide + o0;
                    const int64_t n = std::min(UNIT, strip.channels - o0);
                    for (int64_t c = first; c < last; c++)
                        for (int64_t o = 0; o < n; o++) to[c * wide + o] = number_of(from[o * strides[0] + c * strides[1]]);
                }
        }
    }
};

// Strings that lie in one row: the inputs of some outputs of a row, for one tap.
struct Run {
    int64_t row, column, to, count;  // the first input pixel; the first output pixel, within the piece
};

// A strip at the pixels first ... first + pixels - 1 of each step, counted through its images.
struct Piece {
    const Strip &strip;
    int64_t first, pixels;
};

// What a thread needs for its pieces.
struct Room {
    Lines table{TABLE};
    std::unique_ptr<Lines> sums;
    int64_t size = 0;
    std::vector<Run> runs;

    Number *sums_of(int64_t n) {
        if (n > size) sums.reset(new Lines(size = n));
        return sums->data;
    }
};

// The images are those of `steps` time steps, one step after the other.
struct Sums {
    const Shape &s;
    const Bits &strings;
    const Weights &weights;
    const Number *bias;  // may be null
    int64_t steps;

    // work(piece, its sums [strip.width, steps, pixels, ROW]) for all pieces of the output, shared out in the team.
    template <class Work> void each_piece(Team &team, Room &room, Work work) const {
        const int64_t all = s.images / steps * s.out_height, count = int64_t(weights.strips.size());
        const int64_t wide = s.out_width * steps;
        int64_t rows = std::max<int64_t>(1, std::min(all, PIXELS / wide));
        while (rows > 1 && rows * wide > 128 && (all + rows - 1) / rows * count < 4 * team.size()) rows = (rows + 1) / 2;
        Number *sums = room.sums_of(rows * wide * WIDEST * ROW + 4 * ROW);  // whole strips of neurons may be read
        team.each((all + rows - 1) / rows * count, [&](int64_t job) {
            const int64_t first = job / count * rows, last = std::min(all, first + rows);
            const Piece piece{weights.strips[job % count], first * s.out_width, (last - first) * s.out_width};
            begin(piece, sums);
            for (int64_t tap = 0; tap < strings.layout.taps; tap++) {
                find_runs(first, last, tap, room.runs);
                for (int plane = 0; plane < strings.planes; plane++)
                    for (int64_t chunk = 0; chunk < strings.layout.chunks; chunk++)
                        add(piece, tap, plane, chunk, room.runs, room.table.data, sums);
            }
            work(piece, sums);
        });
    }

  private:
    // Of the output rows first ... last - 1 of all steps.
    void find_runs(int64_t first, int64_t last, int64_t tap, std::vector<Run> &runs) const {
        runs.clear();
        const int64_t all = s.images / steps * s.out_height, pixels = (last - first) * s.out_width;
        const Range columns(s.width, s.out_width, tap % s.columns, s.stride[1], s.padding[1], s.dilation[1]);
        for (int64_t step = 0; step < steps; step++)
            for (int64_t i = first; i < last; i++) {
                const int64_t row = step * all + i, to = step * pixels + (i - first) * s.out_width;
                if (strings.all_taps) {
                    runs.push_back({row, 0, to, s.out_width});
                    continue;
                }
                const int64_t line = row % s.out_height * s.stride[0] + tap / s.columns * s.dilation[0] - s.padding[0];
                if (line >= 0 && line < s.height && columns.first < columns.last)
                    runs.push_back({row / s.out_height * s.height + line, columns.start, to + columns.first,
                                    columns.last - columns.first});
            }
    }

    // Add what one tap has in one chunk of one plane.
    void add(const Piece &piece, int64_t tap, int plane, int64_t chunk, const std::vector<Run> &runs, Number *table,
             Number *sums) const {
        const Strip &strip = piece.strip;
        const int64_t unit = chunk * BITS / UNIT, units = std::min(BITS / UNIT, strings.layout.units - unit);
        const int64_t pitch = s.groups * strings.layout.pitch * (strings.all_taps ? 1 : s.stride[1]);
        const int64_t apart = steps * piece.pixels * ROW;
        const Number *rows = weights.at(strip, tap, chunk * BITS), scale = Number(strings.worth_of(plane));
        const auto each = [&](Way way, auto work) {
            for (const Run &run : runs)
                if (strings.way(plane, run.row, strip.group, chunk) == way)
                    work(strings.at(plane, run.row, run.column, strip.group) + unit, run);
        };
        const Add add = add_of(strip.width);
        each(BY_BITS, [&](const uint16_t *string, const Run &run) {
            add(rows, scale, string, pitch, units, run.count, sums + run.to * ROW, apart);
        });
        bool tables = false;
        each(BY_TABLE, [&](const uint16_t *, const Run &) { tables = true; });
        const LookUp look_up = look_up_of(units);
        for (int64_t v = 0; tables && v < strip.width; v++) {
            build(rows + v * ROW, strip.width * ROW, units * UNIT / 4, scale, table);
            each(BY_TABLE, [&](const uint16_t *string, const Run &run) {
                look_up(table, string, pitch, run.count, sums + v * apart + run.to * ROW);
            });
        }
    }

    void begin(const Piece &piece, Number *sums) const {
        const Strip &strip = piece.strip;
        for (int64_t v = 0; v < strip.width; v++) {
            Number values[ROW] = {};
            const int64_t channel = v * ROW, n = std::min(ROW, strip.channels - channel);
            if (bias) std::copy(bias + strip.channel + channel, bias + strip.channel + channel + n, values);
            for (int64_t p = 0; p < steps * piece.pixels; p++, sums += ROW) std::memcpy(sums, values, sizeof values);
        }
    }
};

// LANES sums as currents. Whole numbers count units, units[channel].
inline Vector currents_of(const Number *sums, const float *units, int64_t channel) {
#ifdef ZOO_INT16
    typedef int16_t Short __attribute__((vector_size(LANES * sizeof(int16_t))));
    return __builtin_convertvector(read<Short>(sums), Vector) * load(units + channel);
#else
    (void)units, (void)channel;
    return load(sums);
#endif
}

// The sums of a piece to their place in out [images, out_height, out_width, out]; `past` the caches where that is said.
inline void write_sums(const Shape &s, const Piece &piece, const Number *sums, const float *units, float *out, bool past) {
    const Strip &strip = piece.strip;
    past = past && strip.channel % LANES == 0;
    for (int64_t p = 0; p < piece.pixels; p++)
        for (int64_t v = 0; v < strip.width; v++)
            for (int64_t k = 0; k < ROW; k += LANES) {
                const int64_t n = strip.channels - v * ROW - k;
                if (n <= 0) break;
                const Vector currents = currents_of(sums + (v * piece.pixels + p) * ROW + k, units, strip.channel + v * ROW + k);
                float *to = out + (piece.first + p) * s.out + strip.channel + v * ROW + k;
                if (n < LANES)
                    std::memcpy(to, &currents, n * sizeof(float));
                else if (past)
                    store_past(currents, to, 0);
                else
                    store(to, currents);
            }
    if (past) fence();
}

}  // namespace
