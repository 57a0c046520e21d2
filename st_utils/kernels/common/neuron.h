// A strip of neurons through all time steps, forward and backward, in registers.
//
//     forward_strip(Numbers(form), T, [&](int64_t t, Vector *x) { ... }, [&](int64_t t, const Vector *s) { ... });
//
// A strip is K vectors of neurons side by side: what one waits for, the others compute. v_t and dL/dv_t stay in registers
// from the first step to the last; h_t, which the backward pass needs again, goes through the nearest cache. The caller
// says how x_t and dL/ds_t are read and where results go, with or without a norm; all is inlined into one loop.
// Definition: st_utils/kernels/node/definition.py. Forward, for t = 1 ... T:
//
//     h_t = charge(v_{t-1}, x_t),   s_t = 1 where h_t - threshold >= 0, else 0,   v_t = reset(h_t, s_t)
//
// Backward, with g_t = dL/ds_t, S_t = surrogate(h_t - threshold), and dL/dv_T = 0, for t = T ... 1:
//
//     dL/dh_t = (g_t + (v_reset - h_t) dL/dv_t) S_t + (1 - s_t) dL/dv_t     soft reset: (g_t - threshold dL/dv_t) S_t + dL/dv_t
//     dL/dx_t = decay dL/dh_t                                               IF and PLAIN: dL/dh_t
//     dL/dv_{t-1} = (1 - decay) dL/dh_t                                     IF: dL/dh_t; detach MEMBRANE: 0
//     dL/d decay = sum of (x_t - (v_{t-1} - v_reset)) dL/dh_t               PLAIN: of -(v_{t-1} - v_reset) dL/dh_t
//
// detach RESET leaves out the term with dL/dv_t before S_t. The forward expressions and their order are the definition's;
// built with -ffp-contract=off, spikes are equal bit for bit.
#pragma once
#include <vector>

#include "vectors.h"

// Vectors per strip, and neurons: at least a cache line. 4 were faster than 2, 3 and 6.
const int K = 4, WIDTH = K * LANES;
const int64_t ROOM = 2 * K;  // vectors per step that the backward pass keeps
#define EACH _Pragma("GCC unroll 4") for (int k = 0; k < K; k++)
#define INLINE __attribute__((always_inline)) inline  // else the compiler calls a function for each strip

struct Form {
    int32_t charge, soft, detach, strict;
    float threshold, v_reset, alpha, beta, decay;
};
enum Charge { IF, DECAY, PLAIN };
enum Detach { NOTHING, RESET, MEMBRANE };

// What a step computes with. The definition's lines take these forms, with equal results:
//
//     s_t = 1 where h_t >= level       u > 0 is h >= the next greater threshold
//     v_t = h_t keep + offset          where s_t = 1; else h_t. Hard reset: keep 0, offset v_reset; soft: 1, -threshold
struct Numbers {
    int charge;
    bool soft, all, none;  // the gradient's ways from step to step: through the reset too; none at all
    float threshold, rest, decay, level, keep, offset, alpha, beta;
    explicit Numbers(const Form &f)
        : charge(f.charge), soft(f.soft), all(f.detach == NOTHING), none(f.detach == MEMBRANE), threshold(f.threshold),
          rest(f.v_reset), decay(f.decay), level(f.strict ? std::nextafter(f.threshold, INFINITY) : f.threshold),
          keep(soft ? 1.0f : 0.0f), offset(soft ? -f.threshold : f.v_reset), alpha(f.alpha), beta(f.beta) {}
};

inline Vector reset(Vector h, const Numbers &f) { return h >= f.level ? madd(h, fill(f.keep), fill(f.offset)) : h; }

// h_t of a strip from v_{t-1} and x_t; `drive` is dh_t / d decay.
inline void charge(const Vector *v, const Vector *x, Vector *h, Vector *drive, const Numbers &f) {
    if (f.charge == DECAY)
        EACH drive[k] = x[k] - (v[k] - f.rest), h[k] = v[k] + drive[k] * f.decay;
    else if (f.charge == IF)
        EACH drive[k] = Vector{}, h[k] = v[k] + x[k];
    else
        EACH drive[k] = f.rest - v[k], h[k] = v[k] + drive[k] * f.decay + x[k];
}

// The spikes of a strip: read(t, x) gives the currents x [K] of step t, write(t, s) takes the spikes.
template <class Read, class Write>
INLINE void forward_strip(const Numbers &f, int64_t steps, Read read, Write write) {
    Vector v[K], x[K], h[K], drive[K];
    EACH v[k] = fill(f.rest);
    for (int64_t t = 0; t < steps; t++) {
        read(t, x);
        charge(v, x, h, drive, f);
        EACH v[k] = reset(h[k], f), h[k] = h[k] >= f.level ? fill(1.0f) : Vector{};
        write(t, h);
    }
}

// dL/dx of a strip to write(t, dL/dx_t), from the last step to the first; grad(t, g) gives dL/ds_t, and
// `slope` is a surrogate. `room` is for ROOM * steps vectors. With Learn, dL/d decay is added to `decay`, lane by lane.
template <bool Learn, class Slope, class Read, class Grad, class Write>
INLINE void backward_strip(const Numbers &f, int64_t steps, Vector *room, Slope slope, Read read, Grad grad, Write write,
                           Doubles *decay) {
    const int64_t size = Learn ? 2 * K : K;  // vectors per step in `room`
    Vector x[K], g[K], h[K], v[K], drive[K], carry[K];
    EACH v[k] = fill(f.rest), carry[k] = Vector{};
    for (int64_t t = 0; t < steps; t++) {
        read(t, x);
        charge(v, x, h, drive, f);
        EACH room[t * size + k] = h[k], v[k] = reset(h[k], f);
        if (Learn) EACH room[t * size + K + k] = drive[k];
    }
    for (int64_t t = steps - 1; t >= 0; t--) {
        grad(t, g);
        EACH h[k] = room[t * size + k];
        if (f.all) EACH g[k] += carry[k] * (f.soft ? fill(f.offset) : f.rest - h[k]);
        if (!f.soft) EACH carry[k] = h[k] >= f.level ? Vector{} : carry[k];
        EACH carry[k] = madd(g[k], slope(h[k] - f.threshold, f.alpha, f.beta), carry[k]);
        if (Learn) {
            Vector shares = {};
            EACH shares = madd(carry[k], room[t * size + K + k], shares);
            *decay += __builtin_convertvector(shares, Doubles);
        }
        if (f.charge == DECAY)
            EACH g[k] = carry[k] * f.decay, carry[k] -= g[k];
        else if (f.charge == IF)
            EACH g[k] = carry[k];
        else
            EACH g[k] = carry[k], carry[k] -= f.decay * carry[k];
        if (f.none) EACH carry[k] = Vector{};
        write(t, g);
    }
}

// How many pieces a thread takes at a time: 8 turns per thread, so that one that is interrupted delays the others less.
inline int64_t share(int64_t pieces, int threads) { return pieces / (8 * threads) + 1; }

// -- a layer in memory ----------------------------------------------------------------------------------------------
const int64_t EARLY = 256;  // numbers that a prefetch is ahead: the processor by itself follows too few rows

// x [steps, neurons], dL/ds (null in the forward pass), and the results. With `once`, x and dL/dx are [neurons], of T equal
// steps. `past`: results are written around the caches.
struct Layer {
    int dtype;
    int64_t steps, neurons;
    const void *x, *grad;
    void *out;
    bool once, past;

    // Of step t, the K vectors from neuron i on.
    void read(int64_t t, int64_t i, Vector *to) const {
        const int64_t at = once ? i : t * neurons + i;
        EACH to[k] = load(x, dtype, at + k * LANES);
        fetch(x, dtype, at + EARLY, WIDTH);
    }
    void read_grad(int64_t t, int64_t i, Vector *to) const {
        EACH to[k] = load(grad, dtype, t * neurons + i + k * LANES);
    }
    void early(int64_t t, int64_t i) const { fetch(grad, dtype, t * neurons + i + EARLY, WIDTH); }
    void write(const Vector *from, int64_t t, int64_t i) const {
        if (past)
            EACH store_past(from[k], out, t * neurons + i + k * LANES);
        else
            EACH store(from[k], out, dtype, t * neurons + i + k * LANES);
    }
};

// Neurons `from` to `to` in whole strips: work(layer, i, at, n) computes the n neurons of `layer` from `at` on, i of the whole
// layer. A part of a strip is computed on a copy, padded with zeros: without input and gradient it adds nothing to a sum.
template <class Work> void in_strips(const Layer &a, int64_t from, int64_t to, Work work) {
    const int64_t i = from + (to - from) / WIDTH * WIDTH;
    work(a, from, from, i - from);
    if (i == to) return;
    const int64_t x_steps = a.once ? 1 : a.steps, out_steps = a.grad ? x_steps : a.steps;
    std::vector<float> x(x_steps * WIDTH), grad(a.steps * WIDTH), out(a.steps * WIDTH);
    const auto copy = [&](const void *source, int64_t at, void *target, int64_t target_at) {
        convert(source, a.dtype, at, target, a.dtype, target_at, to - i);
    };
    for (int64_t t = 0; t < x_steps; t++) copy(a.x, t * a.neurons + i, x.data(), t * WIDTH);
    for (int64_t t = 0; a.grad && t < a.steps; t++) copy(a.grad, t * a.neurons + i, grad.data(), t * WIDTH);
    const Layer padded = {a.dtype, a.steps, WIDTH, x.data(), a.grad ? grad.data() : nullptr, out.data(), a.once, false};
    work(padded, i, 0, WIDTH);
    for (int64_t t = 0; t < out_steps; t++) copy(out.data(), t * WIDTH, a.out, t * a.neurons + i);
}

// -- surrogates: ds/du at u = h - threshold, one line each in surrogates.h ------------------------------------------
namespace surrogates {
#define SURROGATE(name, before, formula)                                                                              \
    struct name {                                                                                                     \
        Vector operator()(Vector u, float a, float b) const {                                                         \
            (void)a, (void)b;                                                                                         \
            before;                                                                                                   \
            return formula;                                                                                           \
        }                                                                                                             \
    };
#include "surrogates.h"
#undef SURROGATE
}  // namespace surrogates
