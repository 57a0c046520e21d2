// Convolution of spikes and the neuron after it, in inference; loaded by fire.py. Definitions:
// st_utils/kernels/spike_conv/definition.py, st_utils/kernels/node/definition.py.
//
//     out[t] = the neuron's spikes of the currents bias + sum over taps r of weight[r] @ x[t, p * stride + r * dilation - padding]
//
// The currents of a piece of the output, in all time steps, stay in a thread's cache: they are never in memory. Spikes are
// those of zoo_forward and then the neuron, bit for bit.
#include "forward.h"
#include "neuron.h"

// x [steps * batch, height, width, in] -> spikes [steps * batch, out_height, out_width, out]. Otherwise as zoo_forward.
extern "C" int zoo_fire(const float *x, float *packed, const float *bias, float *spikes, const Shape *shape, int64_t steps,
                        const Form *form, int threads) {
    const Shape &s = *shape;
    Strings strings(s, gathered(s), threads);
    if (!strings.read(x)) return 0;
    const Weights weights(s, packed);
    const Numbers numbers(*form);
    const int64_t per_step = s.images / steps * s.out_height * s.out_width;
    Sums{s, strings, weights, bias, steps}.each_piece(threads, [&](const Piece &piece, const float *sums) {
        const Strip &strip = piece.strip;
        const int64_t all = piece.pixels * ROW;  // currents per step, of WIDTH of which a strip of neurons is made
        for (int64_t v = 0; v < strip.width; v++) {
            const int64_t n = std::min(ROW, strip.channels - v * ROW);
            for (int64_t i = 0; i < all; i += WIDTH)
                forward_strip(
                    numbers, steps,
                    [&](int64_t t, Vector *currents) {
                        EACH currents[k] = load(sums + (v * steps + t) * all + i + k * LANES);
                    },
                    [&](int64_t t, const Vector *fired) {
                        EACH {
                            const int64_t at = i + k * LANES, lane = at % ROW;
                            if (at >= all || lane >= n) continue;
                            float *to = spikes + (t * per_step + piece.first + at / ROW) * s.out + strip.channel + v * ROW + lane;
                            if (lane + LANES <= n)
                                store(to, fired[k]);
                            else
                                std::memcpy(to, &fired[k], (n - lane) * sizeof(float));
                        }
                    });
        }
    });
    return 1;
}
