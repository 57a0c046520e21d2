// The widest vectors of float32 that the compiled instruction set has, as GCC's and Clang's vector extensions know them:
// the same source is AVX-512, AVX2, SSE or NEON.
#pragma once
#include <cstdint>
#include <cstring>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));

inline Vector load(const float *from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
inline void store(float *to, Vector v) { std::memcpy(to, &v, sizeof v); }

// Results of 16 MiB and more are written around the caches: an ordinary store reads the memory that it is about to write.
inline bool beyond_caches(int64_t floats) { return floats >= 1 << 22; }

// Stores around the caches; `to` is at a multiple of the vector's size.
inline void stream(float *to, Vector v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(to, (__m512)v);
#elif defined(__AVX__)
    _mm256_stream_ps(to, (__m256)v);
#elif defined(__SSE2__)
    _mm_stream_ps(to, (__m128)v);
#else
    store(to, v);
#endif
}

// Makes a thread's stores around the caches visible to others.
inline void fence() {
#ifdef __SSE2__
    _mm_sfence();
#endif
}
