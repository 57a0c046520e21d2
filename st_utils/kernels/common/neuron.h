// One time step of a row of n neurons, forward and backward; and how rows are loaded and stored. Rows are float32.
//
//     Step step = step_of<false>(form);
//     for (int64_t t = 0; t < T; t++) step(x + t * n, v, s + t * n, n, form);     // v [n] starts at form.v_reset
//
// Definition: st_utils/kernels/node/definition.py. Forward, for t = 1 ... T:
//
//     h_t = charge(v_{t-1}, x_t),   s_t = 1 where h_t - threshold >= 0, else 0,   v_t = reset(h_t, s_t)
//
// Backward, with g_t = dL/ds_t, S_t = surrogate(h_t - threshold), carry = dL/dv_t and dL/dv_T = 0, for t = T ... 1:
//
//     dL/dh_t = (g_t + (v_reset - h_t) dL/dv_t) S_t + (1 - s_t) dL/dv_t     soft reset: (g_t - threshold dL/dv_t) S_t + dL/dv_t
//     dL/dx_t = decay dL/dh_t                                               IF and PLAIN: dL/dh_t
//     dL/dv_{t-1} = (1 - decay) dL/dh_t                                     IF: dL/dh_t; detach MEMBRANE: 0
//     dL/d decay = sum of (x_t - (v_{t-1} - v_reset)) dL/dh_t               PLAIN: of -(v_{t-1} - v_reset) dL/dh_t
//
// detach RESET leaves out the term with dL/dv_t before S_t. The forward expressions and their order are the definition's;
// built with -ffp-contract=off, spikes are equal bit for bit. No loop branches on data, so that each one vectorises.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>
#ifdef __AVX__
#include <immintrin.h>
#endif

struct Form {
    int32_t charge, soft, detach, strict;
    float threshold, v_reset, alpha, beta, decay;
};
enum Charge { IF, DECAY, PLAIN };
enum Detach { NOTHING, RESET, MEMBRANE };
enum DType { FLOAT32, FLOAT16, BFLOAT16 };
using Surrogate = void (*)(const float *h, float *derivative, int64_t n, const Form &form);

template <class To, class From> inline To bits(From from) {
    To to;
    static_assert(sizeof(To) == sizeof(From), "same size");
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

// a b + c, with one rounding where the processor has that. For derivatives only: it could move an h across the threshold.
inline float madd(float a, float b, float c) {
#ifdef __FMA__
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

// 2^x for x <= 0, with a relative error below 2e-7; 2^-125 for x < -125. x = i + r with an integer i and |r| <= 1/2, and
// a polynomial for 2^r, the one of degree 5 with the least relative error. std::exp2 would not vectorise.
inline float exp2_negative(float x) {
    const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const float clamped = x < -125.0f ? -125.0f : x;
    const float shifted = clamped + shifter, r = clamped - (shifted - shifter);
    float p = madd(0.00132645908f, r, 0.00967161917f);
    p = madd(p, r, 0.0555073503f);
    p = madd(p, r, 0.240222405f);
    p = madd(p, r, 0.693146976f);
    p = madd(p, r, 1.0f);
    return bits<float>(bits<uint32_t>(p) + (bits<uint32_t>(shifted) << 23));  // adds the integer to the exponent
}

// e^x for x <= 0; the relative error grows with |x|, by half a unit in the last place of x.
inline float exp_negative(float x) { return exp2_negative(1.44269504f * x); }

// a s (1 - s), s = sigmoid(a u), of which only e^-|a u| is needed: no overflow.
inline float logistic_slope(float a, float u) {
    const float e = exp2_negative(-1.44269504f * a * std::fabs(u)), w = 1.0f + e;
    return a * e / (w * w);
}

// cos(w) + cos(3 w) + ... of n - 1 terms.
inline float sum_of_cosines(float w, int n) {
    float sum = 0.0f;
    for (int i = 1; i < n; i++) sum += std::cos(float(2 * i - 1) * w);
    return sum;
}

// -- surrogates: ds/du at u = h - threshold, one line each in surrogates.h. Python finds surrogate_<name> by name ---------
#define SURROGATE(name, before, formula)                                                                              \
    extern "C" void surrogate_##name(const float *__restrict h, float *__restrict derivative, int64_t n,              \
                                     const Form &form) {                                                              \
        const float threshold = form.threshold, a = form.alpha, b = form.beta;                                        \
        (void)a, (void)b;                                                                                             \
        for (int64_t i = 0; i < n; i++) {                                                                             \
            const float u = h[i] - threshold;                                                                         \
            (void)u;                                                                                                  \
            before;                                                                                                   \
            derivative[i] = formula;                                                                                  \
        }                                                                                                             \
    }
#include "surrogates.h"

// -- conversions: float32 rows from and to half precision --------------------------------------------------
inline float from_half(uint16_t half) {
    const float magnitude = bits<float>(uint32_t(half & 0x7fff) << 13) * 0x1p112f;  // subnormals come out right
    const uint32_t special = (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u;          // infinity, NaN
    return bits<float>(bits<uint32_t>(magnitude) | special | uint32_t(half & 0x8000) << 16);
}

inline uint16_t to_half(float value) {
    const uint32_t sign = bits<uint32_t>(value) & 0x80000000u, x = bits<uint32_t>(value) ^ sign;
    const uint32_t normal = (x - 0x38000000u + 0xfffu + ((x >> 13) & 1)) >> 13;  // nearest, ties to even
    const uint32_t tiny = bits<uint32_t>(bits<float>(x) + 0.5f) - 0x3f000000u;  // the addition rounds at 2^-24
    const uint32_t finite = x < 0x38800000u ? tiny : normal;
    const uint32_t large = x > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return uint16_t((x >= 0x477ff000u ? large : finite) | sign >> 16);
}

inline float from_bfloat(uint16_t value) { return bits<float>(uint32_t(value) << 16); }

inline uint16_t to_bfloat(float value) {
    const uint32_t x = bits<uint32_t>(value);
    return (x & 0x7fffffffu) > 0x7f800000u ? uint16_t(0x7fc0) : uint16_t((x + 0x7fffu + ((x >> 16) & 1)) >> 16);
}

// The n numbers from index `at` on, as float32: float32 itself is read in place, half precision is converted to `room`.
inline const float *load(const void *data, int dtype, int64_t at, int64_t n, float *room) {
    if (dtype == FLOAT32) return static_cast<const float *>(data) + at;
    const uint16_t *from = static_cast<const uint16_t *>(data) + at;
    if (dtype == FLOAT16)
        for (int64_t i = 0; i < n; i++) room[i] = from_half(from[i]);
    else
        for (int64_t i = 0; i < n; i++) room[i] = from_bfloat(from[i]);
    return room;
}

// Where a row of results is computed: in its place, or in `room`, from where `store` takes it. `past` writes around the
// caches, for tensors that no cache holds: an ordinary store reads the memory that it is about to write.
inline float *place(void *data, int dtype, int64_t at, float *room, bool past = false) {
    return dtype == FLOAT32 && !past ? static_cast<float *>(data) + at : room;
}

inline void store_past(const float *room, float *to, int64_t n) {
    int64_t i = 0;
#ifdef __AVX__
    for (; i < n && (reinterpret_cast<uintptr_t>(to + i) & 31); i++) to[i] = room[i];
    for (; i + 8 <= n; i += 8) _mm256_stream_ps(to + i, _mm256_loadu_ps(room + i));
#endif
    for (; i < n; i++) to[i] = room[i];
}

// Makes a thread's stores around the caches visible to others.
inline void fence() {
#ifdef __AVX__
    _mm_sfence();
#endif
}

inline void store(const float *room, void *data, int dtype, int64_t at, int64_t n, bool past = false) {
    uint16_t *to = static_cast<uint16_t *>(data) + at;
    if (dtype == FLOAT32 && past) store_past(room, static_cast<float *>(data) + at, n);
    if (dtype == FLOAT16)
        for (int64_t i = 0; i < n; i++) to[i] = to_half(room[i]);
    if (dtype == BFLOAT16)
        for (int64_t i = 0; i < n; i++) to[i] = to_bfloat(room[i]);
}

// Prefetches the n numbers from index `at` on, to be read (or written) soon.
template <bool Write> inline void fetch(const void *data, int dtype, int64_t at, int64_t n) {
    const int64_t size = dtype == FLOAT32 ? 4 : 2;
    const char *from = static_cast<const char *>(data) + at * size;
    for (int64_t i = 0; i < n * size; i += 64) __builtin_prefetch(from + i, Write, 3);
}

// How many neurons go through time together: their rows stay in the first-level cache, their `steps` rows of membrane in
// the second. 256, a kilobyte per row, was the fastest of 128 ... 16384.
inline int64_t block_size(int64_t steps) {
    const int64_t size = 65536 / steps;
    return (size > 256 ? 256 : size < 16 ? 16 : size) & ~int64_t(15);
}

// How many pieces a thread takes at a time: 8 turns per thread, so that one that is interrupted delays the others less.
inline int64_t share(int64_t pieces, int threads) { return pieces / (8 * threads) + 1; }

// -- one time step -----------------------------------------------------------------------------------------
inline float fires(float u, bool strict) { return (strict ? u > 0.0f : u >= 0.0f) ? 1.0f : 0.0f; }

template <int C> inline float charge(float v, float x, const Form &f) {
    if (C == IF) return v + x;
    const float above_rest = v - f.v_reset;
    return C == DECAY ? v + (x - above_rest) * f.decay : v - above_rest * f.decay + x;
}

template <bool Soft> inline float reset(float h, float s, const Form &f) {
    return Soft ? h - f.threshold * s : (1.0f - s) * h + s * f.v_reset;
}

// One step forward: v_{t-1} -> v_t in place, and s_t to out, with KeepH h_t instead.
template <int C, bool Soft, bool Strict, bool KeepH>
void step_row(const float *__restrict x, float *__restrict v, float *__restrict out, int64_t n, const Form &form) {
    const Form f = form;
    for (int64_t i = 0; i < n; i++) {
        const float h = charge<C>(v[i], x[i], f);
        const float s = fires(h - f.threshold, Strict);
        v[i] = reset<Soft>(h, s, f);
        out[i] = KeepH ? h : s;
    }
}

// dL/dh_t from grad = dL/ds_t, carry = dL/dv_t and slope = surrogate(h_t - threshold).
template <bool Soft, bool Detach> inline float grad_of_h(float h, float slope, float grad, float carry, const Form &f) {
    const float s = fires(h - f.threshold, f.strict);
    if (!Detach) grad += carry * (Soft ? -f.threshold : f.v_reset - h);
    return (Soft ? carry : carry * (1.0f - s)) + grad * slope;
}

// One step backward: carry is dL/dv_t -> dL/dv_{t-1} in place; grad = dL/ds_t -> gx = dL/dx_t. With Learn, each neuron's
// share of dL/d decay is added to `decays`, from x = x_t and v = v_{t-1}.
template <int C, bool Soft, bool Detach, bool Learn>
void back_row(const float *__restrict h, const float *__restrict derivative, const float *__restrict grad,
              float *__restrict carry, float *__restrict gx, const float *__restrict x, const float *__restrict v,
              double *__restrict decays, int64_t n, const Form &form) {
    const Form f = form;
    for (int64_t i = 0; i < n; i++) {
        const float gh = grad_of_h<Soft, Detach>(h[i], derivative[i], grad[i], carry[i], f);
        gx[i] = C == DECAY ? gh * f.decay : gh;
        carry[i] = C == IF ? gh : gh - gh * f.decay;
        if (Learn) {
            const float above_rest = v[i] - f.v_reset;
            decays[i] += double(gh * (C == DECAY ? x[i] - above_rest : -above_rest));
        }
    }
    if (f.detach == MEMBRANE)  // nothing flows to the step before
        for (int64_t i = 0; i < n; i++) carry[i] = 0.0f;
}

// v_t from h_t.
template <bool Soft> void reset_row(const float *__restrict h, float *__restrict v, int64_t n, const Form &form) {
    const Form f = form;
    for (int64_t i = 0; i < n; i++) v[i] = reset<Soft>(h[i], fires(h[i] - f.threshold, f.strict), f);
}

// -- the same, chosen at run time: each combination is compiled, so that no loop asks for its form --------------------
using Step = void (*)(const float *, float *, float *, int64_t, const Form &);
using Back = void (*)(const float *, const float *, const float *, float *, float *, const float *, const float *,
                      double *, int64_t, const Form &);

// pick(charge, soft, flag), with the form's charge, its kind of reset and a flag as types.
template <class Pick> auto choose(const Form &f, bool flag, Pick pick) {
    using Yes = std::true_type;
    using No = std::false_type;
    const auto with = [&](auto charge) {
        if (f.soft) return flag ? pick(charge, Yes(), Yes()) : pick(charge, Yes(), No());
        return flag ? pick(charge, No(), Yes()) : pick(charge, No(), No());
    };
    if (f.charge == IF) return with(std::integral_constant<int, IF>());
    return f.charge == DECAY ? with(std::integral_constant<int, DECAY>()) : with(std::integral_constant<int, PLAIN>());
}

template <bool KeepH> Step step_of(const Form &form) {
    return choose(form, form.strict, [](auto charge, auto soft, auto strict) -> Step {
        return step_row<decltype(charge)::value, decltype(soft)::value, decltype(strict)::value, KeepH>;
    });
}

template <bool Learn> Back back_of(const Form &form) {
    return choose(form, form.detach, [](auto charge, auto soft, auto detach) -> Back {
        return back_row<decltype(charge)::value, decltype(soft)::value, decltype(detach)::value, Learn>;
    });
}

inline Back back_of(const Form &form, bool learn) { return learn ? back_of<true>(form) : back_of<false>(form); }
