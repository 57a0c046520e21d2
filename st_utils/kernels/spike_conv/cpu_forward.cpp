// Convolution of spikes; loaded by op.py. Definition: st_utils/kernels/spike_conv/definition.py.
//
//     out[p] = bias + sum over taps r of weight[r] @ x[p * stride + r * dilation - padding]
#include "forward.h"

// The size of the packed weights, in numbers.
extern "C" int64_t zoo_packed_size(const Shape *shape) { return Weights(*shape, nullptr).size(); }

extern "C" void zoo_pack(const float *weight, const int64_t *strides, float *packed, const Shape *shape, int threads) {
    Weights(*shape, packed).pack(*shape, weight, strides, threads);
}

// x -> out with packed weights that begin at a cache line; `bias` may be null. Returns 0, and writes nothing, where x is
// neither spikes nor counts of them.
extern "C" int zoo_forward(const float *x, float *packed, const float *bias, float *out, const Shape *shape, int threads) {
    const Shape &s = *shape;
    Strings strings(s, gathered(s), threads);
    if (!strings.read(x)) return 0;
    const Weights weights(s, packed);
    const bool large = past_caches(out, FLOAT32, s.images * s.out_height * s.out_width, s.out);
    const Sums all{s, strings, weights, bias, 1};
    together(threads, [&](Team &team) {
        Room room;
        all.each_piece(team, room, [&](const Piece &piece, const float *sums) { write_sums(s, piece, sums, nullptr, out, large); });
    });
    return 1;
}
