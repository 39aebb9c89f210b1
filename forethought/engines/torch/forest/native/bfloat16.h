/* The instructions that multiply bfloat16, by the names that <immintrin.h> has for them: of the processor, or in plain C with the same
   results to the bit (EMULATED), so that what is written with them is tested where there are none. */
#pragma once
#include "product.h"

typedef uint16_t vh __attribute__((vector_size(2 * W), aligned(2), may_alias)); /* bfloat16 numbers, as many as floats in a vector */

INLINE uint16_t bf16_of(float x) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

INLINE float float_of(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

#if EMULATED
#define HAS_DOTS 1
#define HAS_TILES 1
typedef float __m512 __attribute__((vector_size(64)));
typedef uint16_t __m512bh __attribute__((vector_size(64)));
typedef uint16_t __m256bh __attribute__((vector_size(32)));

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

/* Multiply and add, rounded once to nearest even; subnormal numbers are zero on both sides. */
static float multiply_add(float a, float b, float c) { return flushed(fmaf(flushed(a), flushed(b), flushed(c))); }

static __m512 _mm512_dpbf16_ps(__m512 acc, __m512bh a, __m512bh b) {
    for (int i = 0; i < 16; i++) { /* of a pair the second comes first */
        float sum = multiply_add(float_of(a[2 * i + 1]), float_of(b[2 * i + 1]), acc[i]);
        acc[i] = multiply_add(float_of(a[2 * i]), float_of(b[2 * i]), sum);
    }
    return acc;
}

static __m256bh _mm512_cvtneps_pbh(__m512 x) {
    __m256bh out;
    for (int i = 0; i < 16; i++) {
        uint32_t bits;
        float one = flushed(x[i]);
        memcpy(&bits, &one, 4);
        out[i] = one != one ? (bits >> 16) | 0x40 : bf16_of(one);
    }
    return out;
}

static _Thread_local struct {
    uint8_t palette, rows[8], tile[8][16][64];
    uint16_t bytes[8];
} tiles;

static void _tile_loadconfig(const void *config) {
    const uint8_t *from = config;
    tiles.palette = from[0];
    memcpy(tiles.bytes, from + 16, sizeof tiles.bytes);
    memcpy(tiles.rows, from + 48, sizeof tiles.rows);
    memset(tiles.tile, 0, sizeof tiles.tile);
}

static void _tile_release(void) { memset(&tiles, 0, sizeof tiles); }
static void _tile_zero(int t) { memset(tiles.tile[t], 0, sizeof tiles.tile[t]); }

static void _tile_loadd(int t, const void *from, long stride) {
    _tile_zero(t);
    for (int i = 0; i < tiles.rows[t]; i++) memcpy(tiles.tile[t][i], (const char *)from + i * stride, tiles.bytes[t]);
}

static void _tile_stored(int t, void *to, long stride) {
    for (int i = 0; i < tiles.rows[t]; i++) memcpy((char *)to + i * stride, tiles.tile[t][i], tiles.bytes[t]);
}

static void _tile_dpbf16ps(int c, int a, int b) {
    for (int m = 0; m < tiles.rows[c]; m++) {
        float first[16] = {0}, second[16] = {0}, sum[16]; /* of each pair: two sums over the tile, added to each other and then to c */
        uint16_t left[32], right[32];
        memcpy(left, tiles.tile[a][m], 64), memcpy(sum, tiles.tile[c][m], 64);
        for (int k = 0; k < tiles.bytes[a] / 4; k++) {
            memcpy(right, tiles.tile[b][k], 64);
            for (int n = 0; n < tiles.bytes[c] / 4; n++) {
                first[n] = multiply_add(float_of(left[2 * k]), float_of(right[2 * n]), first[n]);
                second[n] = multiply_add(float_of(left[2 * k + 1]), float_of(right[2 * n + 1]), second[n]);
            }
        }
        for (int n = 0; n < tiles.bytes[c] / 4; n++) sum[n] = flushed(flushed(sum[n]) + flushed(first[n] + second[n]));
        memcpy(tiles.tile[c][m], sum, tiles.bytes[c]);
    }
}
#else
#if defined(__AVX512BF16__) && defined(__AVX512F__)
#define HAS_DOTS 1
#else
#define HAS_DOTS 0
#endif
#if defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__x86_64__)
#define HAS_TILES HAS_DOTS /* which rounds what they read */
#else
#define HAS_TILES 0
#endif
#if HAS_DOTS
#include <immintrin.h>
#endif
#endif

/* The rounded number stands in the higher half of each. */
INLINE vu high_half(vf x) {
    vu bits = (vu)x;
    return (vu)where(x != x, (vf)((vu){0} + 0x7fc00000), (vf)(bits + 0x7fff + ((bits >> 16) & 1)));
}

/* Rounded as the way's own instruction does it: that of AVX512-BF16 takes subnormal numbers for zero. */
INLINE vh rounded(vf x, int way) {
#if HAS_DOTS
    if (way != ROUNDED) return (vh)_mm512_cvtneps_pbh((__m512)x);
#endif
    return __builtin_convertvector(high_half(x) >> 16, vh);
}
