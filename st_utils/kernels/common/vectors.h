// Vectors of LANES floats, as wide as the processor's registers: arithmetic, functions, and how they are loaded and stored.
//
//     Vector x = load(data, BFLOAT16, at);                   // LANES numbers from index `at` on, as float32
//     store(x < 0.0f ? 0.0f * x : exp_negative(-x), out, FLOAT32, at);
//
// Written with the vector extensions of GCC and Clang, so that one source serves AVX-512, AVX2, SSE and NEON. Intrinsics
// stand where the extensions have no word: multiply-add with one rounding, and stores around the caches.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#if defined(__SSE__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));
typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));
typedef double Doubles __attribute__((vector_size(LANES * sizeof(double))));
enum DType { FLOAT32, FLOAT16, BFLOAT16 };

inline Vector fill(float number) { return number - Vector{}; }

// a b + c, with one rounding where the processor has that. For derivatives only: it could move an h across the threshold.
inline Vector madd(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

inline double total(const Doubles &x) {
    double sum = 0.0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

// Room for n vectors, aligned as they must be.
struct Vectors {
    std::unique_ptr<char[]> memory;
    Vector *data;
    explicit Vectors(int64_t n) : memory(new char[(n + 1) * sizeof(Vector)]) {
        const uintptr_t from = reinterpret_cast<uintptr_t>(memory.get()), line = sizeof(Vector);
        data = reinterpret_cast<Vector *>((from + line - 1) / line * line);
    }
};

// -- functions -------------------------------------------------------------------------------------------------
inline Vector fabs(Vector x) { return Vector(Words(x) & 0x7fffffffu); }

// 2^x for x <= 0, with a relative error below 2e-7; at most 2^-125 for x < -125. x = i + r with an integer i and
// |r| <= 1/2, and a polynomial for 2^r, the one of degree 5 with the least relative error.
inline Vector exp2_negative(Vector x) {
#ifdef __AVX512F__
    const Vector i = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = x - i;
#else
    x = x < -125.0f ? fill(-125.0f) : x;
    const Vector shifted = x + 12582912.0f, r = x - (shifted - 12582912.0f);  // adding 1.5 * 2^23 rounds to an integer
#endif
    Vector p = madd(fill(0.00132645908f), r, fill(0.00967161917f));
    p = madd(p, r, fill(0.0555073503f));
    p = madd(p, r, fill(0.240222405f));
    p = madd(p, r, fill(0.693146976f));
    p = madd(p, r, fill(1.0f));
#ifdef __AVX512F__
    return _mm512_scalef_ps(p, i);
#else
    return Vector(Words(p) + (Words(shifted) << 23));  // adds the integer to the exponent
#endif
}

// e^x for x <= 0; the relative error grows with |x|, by half a unit in the last place of x.
inline Vector exp_negative(Vector x) { return exp2_negative(1.44269504f * x); }

// 1 / w for w from 1 to 2, with a relative error below 3e-7: the processor's estimate and a step of Newton's method, for
// a division takes as long as eight multiplications.
inline Vector reciprocal(Vector w) {
#if defined(__AVX512F__)
    const Vector y = _mm512_rcp14_ps(w);
#elif defined(__FMA__)
    const Vector y = _mm256_rcp_ps(w);
#else
    return 1.0f / w;
#endif
#ifdef __FMA__
    return y * madd(-w, y, fill(2.0f));
#endif
}

// a s (1 - s), s = sigmoid(a u), of which only e^-|a u| is needed: no overflow.
inline Vector logistic_slope(float a, Vector u) {
    const Vector e = exp2_negative(-1.44269504f * a * fabs(u)), y = reciprocal(1.0f + e);
    return a * e * (y * y);
}

inline Vector pow(Vector x, float exponent) {
    for (int i = 0; i < LANES; i++) x[i] = std::pow(x[i], exponent);
    return x;
}

// cos(w) + cos(3 w) + ... of n - 1 terms.
inline Vector sum_of_cosines(Vector w, int n) {
    Vector sum = {};
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 1; i < n; i++) sum[lane] += std::cos(float(2 * i - 1) * w[lane]);
    return sum;
}

// -- half precision ------------------------------------------------------------------------------------------
inline Vector from_half(Words half) {
    const Vector magnitude = Vector((half & 0x7fffu) << 13) * 0x1p112f;              // subnormals come out right
    const Words special = Words((half & 0x7c00u) == 0x7c00u) & 0x7f800000u;          // infinity, NaN
    return Vector(Words(magnitude) | special | (half & 0x8000u) << 16);
}

inline Words to_half(Vector value) {
    const Words sign = Words(value) & 0x80000000u, x = Words(value) ^ sign;
    const Words normal = (x - 0x38000000u + 0xfffu + ((x >> 13) & 1u)) >> 13;   // nearest, ties to even
    const Words tiny = Words(Vector(x) + 0.5f) - 0x3f000000u;                   // the addition rounds at 2^-24
    const Words finite = x < 0x38800000u ? tiny : normal;
    const Words large = 0x7c00u + (Words(x > 0x7f800000u) & 0x200u);
    return (x >= 0x477ff000u ? large : finite) | sign >> 16;
}

inline Words to_bfloat(Vector value) {
    const Words x = Words(value), rounded = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
    return (x & 0x7fffffffu) > 0x7f800000u ? Words{} + 0x7fc0u : rounded;
}

// -- memory --------------------------------------------------------------------------------------------------
template <class To> inline To read(const void *from) {
    To to;
    std::memcpy(&to, from, sizeof(To));
    return to;
}

inline Vector load(const float *from) { return read<Vector>(from); }
inline void store(float *to, Vector value) { std::memcpy(to, &value, sizeof(Vector)); }

inline int64_t size_of(int dtype) { return dtype == FLOAT32 ? 4 : 2; }

// The LANES numbers from index `at` on, as float32.
inline Vector load(const void *data, int dtype, int64_t at) {
    const char *from = static_cast<const char *>(data) + at * size_of(dtype);
    if (dtype == FLOAT32) return read<Vector>(from);
    const Words half = __builtin_convertvector(read<Halves>(from), Words);
    return dtype == FLOAT16 ? from_half(half) : Vector(half << 16);
}

inline void store(Vector value, void *data, int dtype, int64_t at) {
    char *to = static_cast<char *>(data) + at * size_of(dtype);
    if (dtype == FLOAT32) {
        std::memcpy(to, &value, sizeof(Vector));
    } else {
        const Halves half = __builtin_convertvector(dtype == FLOAT16 ? to_half(value) : to_bfloat(value), Halves);
        std::memcpy(to, &half, sizeof(Halves));
    }
}

// Whether results of [rows, n] are written around the caches: an ordinary store reads the memory that it is about to
// write. From 16 MiB on that is an eighth faster, and no slower for who reads them. Each vector must be aligned.
inline bool past_caches(const void *data, int dtype, int64_t rows, int64_t n) {
    return dtype == FLOAT32 && rows * n >= 1 << 22 && n % LANES == 0 && reinterpret_cast<uintptr_t>(data) % sizeof(Vector) == 0;
}

// A store of aligned float32 around the caches; `fence` makes a thread's visible to others.
inline void store_past(Vector value, void *data, int64_t at) {
    float *to = static_cast<float *>(data) + at;
#if defined(__AVX512F__)
    _mm512_stream_ps(to, value);
#elif defined(__AVX__)
    _mm256_stream_ps(to, value);
#elif defined(__SSE__)
    _mm_stream_ps(to, value);
#else
    std::memcpy(to, &value, sizeof(Vector));
#endif
}

inline void fence() {
#ifdef __SSE__
    _mm_sfence();
#endif
}

// Copies n numbers from index `at` of `from` to index `to_at` of `to`, from any type of number to any.
inline void convert(const void *from, int dtype, int64_t at, void *to, int to_dtype, int64_t to_at, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(load(from, dtype, at + i), to, to_dtype, to_at + i);
    if (i == n) return;
    float last[2 * LANES] = {};  // what is left goes through whole vectors of its own
    std::memcpy(last, static_cast<const char *>(from) + (at + i) * size_of(dtype), (n - i) * size_of(dtype));
    store(load(last, dtype, 0), last + LANES, to_dtype, 0);
    std::memcpy(static_cast<char *>(to) + (to_at + i) * size_of(to_dtype), last + LANES, (n - i) * size_of(to_dtype));
}

// Prefetches the cache lines of n numbers from index `at` on, to be read soon.
inline void fetch(const void *data, int dtype, int64_t at, int64_t n) {
    const char *from = static_cast<const char *>(data) + at * size_of(dtype);
    for (int64_t i = 0; i < n * size_of(dtype); i += 64) __builtin_prefetch(from + i);
}
