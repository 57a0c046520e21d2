// The neurons over the sums of a piece: what the convolution and the neuron behind it are made of.
#pragma once
#include "forward.h"
#include "neuron.h"

namespace {

// write(t, v, i, spikes) for each step and strip of neurons of a piece, whose sums are [strip.width, steps, pixels, ROW]:
// the K vectors of spikes of the neurons i ... i + WIDTH - 1, counted through [pixels, ROW], of row v.
template <class Write>
inline void fire_piece(const Numbers &numbers, int64_t steps, const Piece &piece, const float *sums, Write write) {
    const int64_t all = piece.pixels * ROW;
    for (int64_t v = 0; v < piece.strip.width; v++)
        for (int64_t i = 0; i < all; i += WIDTH)
            forward_strip(
                numbers, steps,
                [&](int64_t t, Vector *currents) {
                    EACH currents[k] = load(sums + (v * steps + t) * all + i + k * LANES);
                },
                [&](int64_t t, const Vector *fired) { write(t, v, i, fired); });
}

}  // namespace
