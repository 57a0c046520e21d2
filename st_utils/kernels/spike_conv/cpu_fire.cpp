// Convolution of spikes and the neuron after it, in inference; loaded by fire.py. Definitions:
// st_utils/kernels/spike_conv/definition.py, st_utils/kernels/node/definition.py.
//
//     out[t] = the neuron's spikes of the currents bias + sum over taps r of weight[r] @ x[t, p * stride + r * dilation - padding]
//
// The currents of a piece of the output, in all time steps, stay in a thread's cache: they are never in memory. Spikes are
// those of zoo_forward and then the neuron, bit for bit.
#include "fire.h"

// x [steps * batch, height, width, in] -> spikes [steps * batch, out_height, out_width, out]. Otherwise as zoo_forward.
extern "C" int zoo_fire(const float *x, float *packed, const float *bias, float *spikes, const Shape *shape, int64_t steps,
                        const Form *form, int threads) {
    const Shape &s = *shape;
    Strings strings(s, gathered(s), threads);
    if (!strings.read(x)) return 0;
    const Weights weights(s, packed);
    const Numbers numbers(*form);
    const int64_t per_step = s.images / steps * s.out_height * s.out_width;
    const Sums all{s, strings, weights, bias, steps};
    together(threads, [&](Team &team) {
        Room room;
        all.each_piece(team, room, [&](const Piece &piece, const float *sums) {
            const Strip &strip = piece.strip;
            fire_sums(numbers, steps, piece, sums, nullptr, [&](int64_t t, int64_t v, int64_t i, const Vector *fired) {
                const int64_t n = std::min(ROW, strip.channels - v * ROW);
                EACH {
                    const int64_t at = i + k * LANES, lane = at % ROW;
                    if (at >= piece.pixels * ROW || lane >= n) continue;
                    float *to = spikes + (t * per_step + piece.first + at / ROW) * s.out + strip.channel + v * ROW + lane;
                    if (lane + LANES <= n)
                        store(to, fired[k]);
                    else
                        std::memcpy(to, &fired[k], (n - lane) * sizeof(float));
                }
            });
        });
    });
    return 1;
}
