// The steps of a plan: what each computes from its signals, shared out in a team of threads.
#pragma once
#include "attention.h"

extern "C" struct Step {
    int64_t kind;
    Signal in[3], out;  // of the inputs, those that the kind has
    Shape shape;        // CONVOLVE, CONVOLVE_AND_FIRE, GATHER; POOL: kernel, stride and padding
    Number *weight;       // packed; nullptr but for convolutions
    const Number *bias;   // may be nullptr
    const float *units;   // of whole numbers, what one is worth per output channel; filled up to whole ROWs
    Form form;          // of the neurons that fire
    int64_t steps;      // T
    int64_t repeated;   // FIRE: the input has one step, which all share
    int64_t heads;      // KEEP_TOKENS
    float divisor;      // SUM_PIXELS
    Attention attention;
};
enum Kind { CONVOLVE, CONVOLVE_AND_FIRE, FIRE, GATHER, POOL, ADD, TO_NUMBERS, ATTEND, KEEP_TOKENS, BOTH, SUM_PIXELS };

namespace {

struct Rooms {
    Room convolution;
    AttentionRoom attention;
    std::vector<float> currents;
};

// -- convolutions ------------------------------------------------------------------------------------------------
inline void convolve(const Step &step, Team &team, Rooms &rooms) {
    const Shape &s = step.shape;
    const bool all_taps = gathered(s);
    Bits bits(s, all_taps);
    for (int plane = 0; plane < step.in[0].planes; plane++)
        bits.add_plane(string_of(step.in[0], plane, 0), set_of(step.in[0], plane, 0));
    const Weights weights(s, step.weight);
    const Signal &out = step.out;
    if (step.kind == CONVOLVE) {
        const bool large = past_caches(out.numbers, FLOAT32, all_pixels(out), out.channels);
        Sums{s, bits, weights, step.bias, 1}.each_piece(team, rooms.convolution, [&](const Piece &piece, const Number *sums) {
            write_sums(s, piece, sums, step.units, out.numbers, large);
        });
        return;
    }
    const Numbers numbers(step.form);
    const int64_t per_step = all_pixels(out) / step.steps;
    Sums{s, bits, weights, step.bias, step.steps}.each_piece(team, rooms.convolution, [&](const Piece &piece, const Number *sums) {
        const Strip &strip = piece.strip;
        fire_sums(numbers, step.steps, piece, sums, step.units, [&](int64_t t, int64_t v, int64_t i, const Vector *fired) {
            write_fired(out, t * per_step + piece.first, piece.pixels, strip.channel + v * ROW, i, fired);
        });
        const int64_t from = strip.channel / UNIT, to = (strip.channel + strip.channels + UNIT - 1) / UNIT;
        for (int64_t t = 0; t < step.steps; t++) count_set(out, 0, t * per_step + piece.first, piece.pixels, from, to);
    });
}

// Few channels: the strings of all taps of an output pixel, into a signal of one image row's strings.
inline void gather(const Step &step, Team &team) {
    const Shape &s = step.shape;
    const Bits bits(s, true);
    const Signal &x = step.in[0], &out = step.out;
    team.each(x.planes * bits.rows, [&](int64_t job) {
        const int64_t plane = job / bits.rows, row = job % bits.rows, first = row * bits.width;
        bits.gather(string_of(x, plane, 0), pitch_of(x), row, string_of(out, plane, first));
        count_set(out, plane, first, bits.width, 0, bits.layout.units);
    });
}

// -- neurons -----------------------------------------------------------------------------------------------------
inline void fire(const Step &step, Team &team, Rooms &rooms) {
    const Signal &x = step.in[0], &out = step.out;
    const Numbers numbers(step.form);
    const int64_t per_step = all_pixels(out) / step.steps, block = 32, channels = out.channels, rows = (channels + ROW - 1) / ROW;
    const int64_t apart = step.repeated ? 0 : per_step;
    rooms.currents.resize(step.steps * block * ROW + WIDTH);
    team.each((per_step + block - 1) / block, [&](int64_t job) {
        const int64_t first = job * block, pixels = std::min(block, per_step - first);
        for (int64_t v = 0; v < rows; v++) {
            const int64_t channel = v * ROW, n = std::min(ROW, channels - channel);
            for (int64_t t = 0; t < step.steps; t++)
                for (int64_t p = 0; p < pixels; p++)
                    std::memcpy(rooms.currents.data() + (t * pixels + p) * ROW, x.numbers + (t * apart + first + p) * channels + channel, n * sizeof(float));
            const Strip strip{0, channel, n, 1, 0};
            const float *currents = rooms.currents.data();
            fire_piece(
                numbers, step.steps, Piece{strip, first, pixels},
                [&](int64_t t, int64_t, int64_t i, Vector *x) { EACH x[k] = load(currents + t * pixels * ROW + i + k * LANES); },
                [&](int64_t t, int64_t, int64_t i, const Vector *fired) {
                    write_fired(out, t * per_step + first, pixels, channel, i, fired);
                });
        }
        for (int64_t t = 0; t < step.steps; t++) count_set(out, 0, t * per_step + first, pixels, 0, (channels + UNIT - 1) / UNIT);
    });
}

// -- pooling: the largest of a window, for spikes the OR of their bits ---------------------------------------------
inline void pool(const Step &step, Team &team) {
    const Shape &s = step.shape;
    const Signal &x = step.in[0], &out = step.out;
    team.each(out.images * out.height, [&](int64_t row) {
        const int64_t image = row / out.height, y = row % out.height;
        for (int64_t column = 0; column < out.width; column++) {
            const int64_t pixel = row * out.width + column;
            uint16_t *string = x.planes ? string_of(out, 0, pixel) : nullptr;
            float *numbers = out.numbers + pixel * out.channels;
            if (x.planes)
                std::fill(string, string + pitch_of(out), uint16_t(0));
            else
                std::fill(numbers, numbers + out.channels, -INFINITY);
            for (int64_t i = 0; i < s.rows; i++)
                for (int64_t j = 0; j < s.columns; j++) {
                    const int64_t line = y * s.stride[0] + i * s.dilation[0] - s.padding[0];
                    const int64_t at = column * s.stride[1] + j * s.dilation[1] - s.padding[1];
                    if (line < 0 || line >= x.height || at < 0 || at >= x.width) continue;
                    const int64_t from = (image * x.height + line) * x.width + at;
                    if (x.planes) {
                        const uint16_t *other = string_of(x, 0, from);
                        for (int64_t w = 0; w < words_of(x); w++) write_word(string, w, word_of(string, w) | word_of(other, w));
                    } else {
                        const float *other = x.numbers + from * x.channels;
                        for (int64_t c = 0; c < x.channels; c++)  // a NaN stays, as torch has it
                            numbers[c] = other[c] > numbers[c] || other[c] != other[c] ? other[c] : numbers[c];
                    }
                }
        }
        if (x.planes) count_set(out, 0, row * out.width, out.width, 0, pitch_of(out));
    });
}

// -- sums ----------------------------------------------------------------------------------------------------------
inline void add(const Step &step, Team &team) {
    const Signal &a = step.in[0], &b = step.in[1], &out = step.out;
    const int64_t block = out.planes ? out.width : 4096, all = all_pixels(out);
    if (!out.planes) {
        const int64_t n = all * out.channels;
        team.each((n + block - 1) / block, [&](int64_t job) {
            for (int64_t i = job * block; i < std::min(n, (job + 1) * block); i++) out.numbers[i] = a.numbers[i] + b.numbers[i];
        });
        return;
    }
    team.each(all / block, [&](int64_t job) {
        for (int64_t p = job * block; p < (job + 1) * block; p++)
            for (int64_t w = 0; w < words_of(out); w++) {
                uint64_t carry = 0;
                for (int plane = 0; plane < out.planes; plane++) {
                    const uint64_t one = plane < a.planes ? word_of(string_of(a, plane, p), w) : 0;
                    const uint64_t other = plane < b.planes ? word_of(string_of(b, plane, p), w) : 0;
                    write_word(string_of(out, plane, p), w, one ^ other ^ carry);
                    carry = (one & other) | (carry & (one ^ other));
                }
            }
        for (int plane = 0; plane < out.planes; plane++) count_set(out, plane, job * block, block, 0, pitch_of(out));
    });
}

// counts[i] += those of a unit of channels at a pixel, for the 16 channels of the unit.
inline void add_counts(const Signal &x, int64_t pixel, int64_t unit, int32_t *counts) {
    for (int plane = 0; plane < x.planes; plane++) {
        const int32_t bits = string_of(x, plane, pixel)[unit];
        for (int i = 0; i < UNIT; i++) counts[i] += (bits >> i & 1) << plane;
    }
}

inline void to_numbers(const Step &step, Team &team) {
    const Signal &x = step.in[0], &out = step.out;
    team.each(x.images * x.height, [&](int64_t row) {
        for (int64_t p = row * x.width; p < (row + 1) * x.width; p++)
            for (int64_t unit = 0; unit * UNIT < x.channels; unit++) {
                int32_t counts[UNIT] = {};
                add_counts(x, p, unit, counts);
                float *to = out.numbers + p * x.channels + unit * UNIT;
                for (int64_t i = 0; i < std::min(UNIT, x.channels - unit * UNIT); i++) to[i] = float(counts[i]);
            }
    });
}

// The sum of each channel over an image's pixels, divided by a number.
inline void sum_pixels(const Step &step, Team &team) {
    const Signal &x = step.in[0], &out = step.out;
    const int64_t units = (x.channels + UNIT - 1) / UNIT;
    team.each(x.images * units, [&](int64_t job) {
        const int64_t image = job / units, unit = job % units;
        int32_t counts[UNIT] = {};
        for (int64_t p = image * pixels_of(x); p < (image + 1) * pixels_of(x); p++) add_counts(x, p, unit, counts);
        float *to = out.numbers + image * x.channels + unit * UNIT;
        for (int64_t i = 0; i < std::min(UNIT, x.channels - unit * UNIT); i++) to[i] = float(counts[i]) / step.divisor;
    });
}

// -- products of spikes: where both are; the second may have one pixel for all of an image -------------------------
inline void both(const Step &step, Team &team) {
    const Signal &a = step.in[0], &b = step.in[1], &out = step.out;
    team.each(a.images * a.height, [&](int64_t row) {
        for (int64_t p = row * a.width; p < (row + 1) * a.width; p++) {
            const uint16_t *other = string_of(b, 0, pixels_of(b) == 1 ? p / pixels_of(a) : p);
            for (int64_t w = 0; w < words_of(out); w++)
                write_word(string_of(out, 0, p), w, word_of(string_of(a, 0, p), w) & word_of(other, w));
        }
        count_set(out, 0, row * a.width, a.width, 0, pitch_of(out));
    });
}

// -- attention -----------------------------------------------------------------------------------------------------
inline void attend(const Step &step, Team &team, Rooms &rooms) {
    const Attention &a = step.attention;
    team.each(a.groups * a.heads, [&](int64_t job) {
        attend(step.in[0], step.in[1], step.in[2], step.out, a, job / a.heads, job % a.heads, rooms.attention);
    });
}

// k where a neuron over the number of q's spikes fires, one neuron per pixel and head (QKFormer's token attention).
inline void keep_tokens(const Step &step, Team &team, Rooms &rooms) {
    const Signal &q = step.in[0], &k = step.in[1], &out = step.out;
    const Numbers numbers(step.form);
    const int64_t per_step = all_pixels(out) / step.steps, heads = step.heads, width = out.channels / heads;
    const int64_t block = 16, most = (block * heads + WIDTH - 1) / WIDTH * WIDTH;  // neurons, in whole strips
    rooms.currents.assign(2 * step.steps * most, 0.0f);
    float *currents = rooms.currents.data(), *fired = currents + step.steps * most;
    team.each((per_step + block - 1) / block, [&](int64_t job) {
        const int64_t first = job * block, pixels = std::min(block, per_step - first);
        for (int64_t t = 0; t < step.steps; t++)
            for (int64_t i = 0; i < pixels * heads; i++) {
                int count = 0;
                for (int64_t c = 0; c < width; c += 64)
                    count += __builtin_popcountll(bits_at(string_of(q, 0, t * per_step + first + i / heads), i % heads * width + c, std::min<int64_t>(64, width - c)));
                currents[t * most + i] = float(count);
            }
        for (int64_t i = 0; i < pixels * heads; i += WIDTH)
            forward_strip(
                numbers, step.steps, [&](int64_t t, Vector *x) { EACH x[k] = load(currents + t * most + i + k * LANES); },
                [&](int64_t t, const Vector *s) { EACH store(fired + t * most + i + k * LANES, s[k]); });
        for (int64_t t = 0; t < step.steps; t++) {
            for (int64_t p = 0; p < pixels; p++) {
                uint16_t *to = string_of(out, 0, t * per_step + first + p);
                const uint16_t *from = string_of(k, 0, t * per_step + first + p);
                for (int64_t w = 0; w < words_of(out); w++) {
                    uint64_t kept = 0;
                    for (int64_t head = w * 64 / width; head < heads && head * width < (w + 1) * 64; head++)
                        if (fired[t * most + p * heads + head] != 0.0f) {
                            const int64_t begin = std::max<int64_t>(head * width - w * 64, 0), end = std::min<int64_t>((head + 1) * width - w * 64, 64);
                            kept |= (end - begin == 64 ? ~uint64_t(0) : ((uint64_t(1) << (end - begin)) - 1) << begin);
                        }
                    write_word(to, w, word_of(from, w) & kept);
                }
            }
            count_set(out, 0, t * per_step + first, pixels, 0, pitch_of(out));
        }
    });
}

inline void run(const Step &step, Team &team, Rooms &rooms) {
    switch (step.kind) {
    case CONVOLVE:
    case CONVOLVE_AND_FIRE: return convolve(step, team, rooms);
    case FIRE: return fire(step, team, rooms);
    case GATHER: return gather(step, team);
    case POOL: return pool(step, team);
    case ADD: return add(step, team);
    case TO_NUMBERS: return to_numbers(step, team);
    case ATTEND: return attend(step, team, rooms);
    case KEEP_TOKENS: return keep_tokens(step, team, rooms);
    case BOTH: return both(step, team);
    case SUM_PIXELS: return sum_pixels(step, team);
    }
}

}  // namespace
