// One row of neurons through one time step: charge, fire, reset, and the way back. Rows are contiguous float32.
//
// The forward expressions are those of the definition (st_utils/node), in its order: built with
// -ffp-contract=off, every spike is the same bit for bit. Loops are written for the vectoriser: no branch on data.
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

// a b + c with one rounding where the processor has that: for derivatives only, never for a spike.
inline float madd(float a, float b, float c) {
#ifdef __FMA__
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

// 2^x for x <= 0, relative error below 2e-7; 2^-125 below -125. With the polynomial of degree 5 that is nearest to 2^r,
// relatively, on |r| <= 1/2.
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

// e^x for x <= 0; its relative error grows with |x|, by half a unit in the last place of x.
inline float exp_negative(float x) { return exp2_negative(1.44269504f * x); }

// a s (1 - s), where s is the logistic function at a u.
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

// -- surrogates: d spike / d u, one line each. Python finds them by name. -------------------------
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

// n numbers from `at` on as float32: float32 is read in place, the others go through `room`.
inline const float *load(const void *data, int dtype, int64_t at, int64_t n, float *room) {
    if (dtype == FLOAT32) return static_cast<const float *>(data) + at;
    const uint16_t *from = static_cast<const uint16_t *>(data) + at;
    if (dtype == FLOAT16)
        for (int64_t i = 0; i < n; i++) room[i] = from_half(from[i]);
    else
        for (int64_t i = 0; i < n; i++) room[i] = from_bfloat(from[i]);
    return room;
}

// Where a row of n results is written, and how it gets to its place from there. `past` the caches: for tensors
// that no cache holds, so that memory is not read before it is written.
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

// After the last store_past of a thread, before others read.
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

// Asks for n numbers from `at` on, to be there when they are read (or written).
template <bool Write> inline void fetch(const void *data, int dtype, int64_t at, int64_t n) {
    const int64_t size = dtype == FLOAT32 ? 4 : 2;
    const char *from = static_cast<const char *>(data) + at * size;
    for (int64_t i = 0; i < n * size; i += 64) __builtin_prefetch(from + i, Write, 3);
}

// How many neurons go through time together: few enough for their rows to stay in the nearest cache and their
// `steps` rows of membrane in the next (256 was the fastest of 128 to 16384; they are runs of a kilobyte).
inline int64_t block_size(int64_t steps) {
    const int64_t size = 65536 / steps;
    return (size > 256 ? 256 : size < 16 ? 16 : size) & ~int64_t(15);
}

// Pieces that a thread takes at a time: eight turns each even out a processor that others use as well.
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

// v -> v after this step; KeepH writes the membrane before firing to out, else the spikes.
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

// dL/dh of one step: of its spike comes `grad`, of the membrane after it `carry`; `slope` is the surrogate's.
template <bool Soft, bool Detach> inline float grad_of_h(float h, float slope, float grad, float carry, const Form &f) {
    const float s = fires(h - f.threshold, f.strict);
    if (!Detach) grad += carry * (Soft ? -f.threshold : f.v_reset - h);
    return (Soft ? carry : carry * (1.0f - s)) + grad * slope;
}

// The gradient back through one step. carry: of v after the step -> of v before it; grad: of the spikes;
// gx: of the input. Learn adds every neuron's gradient of the decay to `decays`, from x and v before the step.
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
    if (f.detach == MEMBRANE)  // no way from a step back to the one before
        for (int64_t i = 0; i < n; i++) carry[i] = 0.0f;
}

// The membrane after a step from the one before firing.
template <bool Soft> void reset_row(const float *__restrict h, float *__restrict v, int64_t n, const Form &form) {
    const Form f = form;
    for (int64_t i = 0; i < n; i++) v[i] = reset<Soft>(h[i], fires(h[i] - f.threshold, f.strict), f);
}

// -- the same, chosen at run time --------------------------------------------------------------------------
using Step = void (*)(const float *, float *, float *, int64_t, const Form &);
using Back = void (*)(const float *, const float *, const float *, float *, float *, const float *, const float *,
                      double *, int64_t, const Form &);

// What `pick` makes of the form's charge, its kind of reset and a flag, all three types.
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
