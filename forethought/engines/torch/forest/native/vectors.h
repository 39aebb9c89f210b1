/* Vectors of the machine that compiles this (AVX-512, AVX2, NEON or SSE), by the vector extensions that GCC and Clang share. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef EMULATED
#define EMULATED 0 /* 1: the widest vectors and all instructions of `bfloat16.h`, whatever the processor has */
#endif

#if defined(__AVX512F__) || EMULATED
enum { W = 16, MR = 8, NV = 2 }; /* floats of a vector; rows and vectors of one tile of a product: MR * NV + NV + 1 registers */
#elif defined(__AVX2__) && defined(__FMA__)
enum { W = 8, MR = 6, NV = 2 };
#else
enum { W = 4, MR = 6, NV = 2 };
#endif
enum { NR = NV * W };

typedef float vf __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * W), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define HIDDEN __attribute__((visibility("hidden"))) /* of a function of several files here: no other library's takes its place */

INLINE vf load(const float *p) { return *(const vf *)p; }
INLINE void store(float *p, vf x) { *(vf *)p = x; }
INLINE vf all(float x) { return x - (vf){0}; }
INLINE vf where(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
INLINE vf larger(vf a, vf b) { return where(a > b, a, b); }

/* a * b + c, rounded once where the machine can. A compiler that is free to fuse or not decides anew for each size of a tile, and a row's
   bits would depend on the rows beside it. */
INLINE float fused(float a, float b, float c) {
#ifdef __FP_FAST_FMAF
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

INLINE float sum_of(vf x) {
    float s = 0;
    for (int i = 0; i < W; i++) s += x[i];
    return s;
}

INLINE float max_of(vf x) {
    float m = x[0];
    for (int i = 1; i < W; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* exp(x), 2 ulp; 0 below -87, exp(88) above 88, NaN for NaN. */
INLINE vf vexp(vf x) {
    const vf magic = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits */
    vf y = where(x < all(88.0f), x, all(88.0f));
    vf t = y * 1.44269504088896341f + magic, n = t - magic;
    vf r = y - n * 0.693359375f + n * 2.12194440e-4f;
    vf p = all(1.3981999507e-3f) + r * 1.9875691500e-4f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    vf out = (vf)((vu)p + ((vu)t << 23)); /* where x is far below -87 it wraps around */
    return where(x > all(-87.0f), out, where(x != x, x, all(0)));
}

/* Call `f(m, ...)` with m, the rows of a tile, as a constant: its accumulators then stay in registers. */
#if defined(__AVX512F__) || EMULATED
#define TILE(m, f, ...) switch (m) { \
    case 1: f(1, __VA_ARGS__); break; case 2: f(2, __VA_ARGS__); break; case 3: f(3, __VA_ARGS__); break; \
    case 4: f(4, __VA_ARGS__); break; case 5: f(5, __VA_ARGS__); break; case 6: f(6, __VA_ARGS__); break; \
    case 7: f(7, __VA_ARGS__); break; default: f(8, __VA_ARGS__); }
#else
#define TILE(m, f, ...) switch (m) { \
    case 1: f(1, __VA_ARGS__); break; case 2: f(2, __VA_ARGS__); break; case 3: f(3, __VA_ARGS__); break; \
    case 4: f(4, __VA_ARGS__); break; case 5: f(5, __VA_ARGS__); break; default: f(6, __VA_ARGS__); }
#endif
