// The neurons over the sums of a piece: what the convolution and the neuron behind it are made of.
#pragma once
#include "forward.h"
#include "neuron.h"

namespace {

// The neurons of a piece: read(t, v, i, x) gives the currents of step t and row v, the K vectors of the neurons
// i ... i + WIDTH - 1 counted through [pixels, ROW]; write(t, v, i, spikes) takes their spikes.
template <class Read, class Write>
inline void fire_piece(const Numbers &numbers, int64_t steps, const Piece &piece, Read read_currents, Write write) {
    for (int64_t v = 0; v < piece.strip.width; v++)
        for (int64_t i = 0; i < piece.pixels * ROW; i += WIDTH)
            forward_strip(
                numbers, steps, [&](int64_t t, Vector *currents) { read_currents(t, v, i, currents); },
                [&](int64_t t, const Vector *fired) { write(t, v, i, fired); });
}

// The neurons over sums [strip.width, steps, pixels, ROW].
template <class Write>
inline void fire_sums(const Numbers &numbers, int64_t steps, const Piece &piece, const Number *sums, const float *units, Write write) {
    const int64_t all = piece.pixels * ROW;
    fire_piece(
        numbers, steps, piece,
        [&](int64_t t, int64_t v, int64_t i, Vector *currents) {
            const Number *from = sums + (v * steps + t) * all + i;
            const int64_t channel = piece.strip.channel + v * ROW;
            EACH currents[k] = currents_of(from + k * LANES, units, channel + (i + k * LANES) % ROW);
        },
        write);
}

}  // namespace
