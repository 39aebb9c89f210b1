/* C[M, N] = A[M, K] B + bias (+ C), with B packed in panels of NR columns. A row's sum over K is formed in one order whatever M is, so
   what a row gives does not depend on the rows around it. */
#pragma once
#include "vectors.h"

enum { BLOCK = 96 }; /* rows that read a panel while it is in the cache */

/* Floats that the rows of a block take in bfloat16, K numbers each. */
static long bf16_rows(int K) { return (long)BLOCK * ((K + 1) / 2); }

/* One tile of m rows and n <= NR columns. Rows of a are `a_row` apart, its columns `a_column`; rows of b are `ldb` apart. */
INLINE void product_tile(const int m, int K, const float *a, long a_row, long a_column, const float *b, long ldb, float *c, long ldc, int n,
                         const float *bias, int add) {
    vf acc[MR][NV];
    for (int i = 0; i < m; i++)
        for (int v = 0; v < NV; v++) acc[i][v] = bias ? load(bias + v * W) : (vf){0};
    for (int k = 0; k < K; k++, b += ldb) {
        vf right[NV];
        for (int v = 0; v < NV; v++) right[v] = load(b + v * W);
        for (int i = 0; i < m; i++)
            for (int v = 0; v < NV; v++) acc[i][v] += a[i * a_row + k * a_column] * right[v];
    }
    for (int i = 0; i < m; i++) {
        if (n == NR)
            for (int v = 0; v < NV; v++) store(c + i * ldc + v * W, acc[i][v] + (add ? load(c + i * ldc + v * W) : all(0)));
        else {
            float row[NR];
            for (int v = 0; v < NV; v++) store(row + v * W, acc[i][v]);
            for (int j = 0; j < n; j++) c[i * ldc + j] = add ? c[i * ldc + j] + row[j] : row[j];
        }
    }
}

/* bias: padded to whole panels, or null. */
static void product_f32(int M, int N, int K, const float *a, long lda, const float *b, float *c, long ldc, const float *bias, int add) {
    for (int from = 0; from < M; from += BLOCK) {
        int to = from + BLOCK < M ? from + BLOCK : M;
        const float *panel = b;
        for (int j = 0; j < N; j += NR, panel += (long)K * NR)
            for (int i = from; i < to; i += MR) {
                int m = to - i < MR ? to - i : MR, n = N - j < NR ? N - j : NR;
                TILE(m, product_tile, K, a + i * lda, lda, 1, panel, NR, c + i * ldc + j, ldc, n, bias ? bias + j : 0, add)
            }
    }
}

/* C[M, N] += A^T B for A [K, M] and B [K, N], neither packed: the gradient of a weight from those of what came out and what went in.
   Where N is no multiple of NR, b may be read up to NR columns further. */
static void product_transposed(int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc) {
    for (int j = 0; j < N; j += NR)
        for (int i = 0; i < M; i += MR) {
            int m = M - i < MR ? M - i : MR, n = N - j < NR ? N - j : NR;
            TILE(m, product_tile, K, a + i, 1, lda, b + j, ldb, c + i * ldc + j, ldc, n, 0, 1)
        }
}

#if defined(__AVX512BF16__) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define HAS_BF16 1

/* The same in bfloat16 with sums in float32: pairs along K lie beside each other, and strides count pairs. */
INLINE void product_tile_bf16(const int m, int pairs, const uint32_t *a, long a_row, long a_column, const uint32_t *b, long ldb, float *c,
                              long ldc, int n, const float *bias, int add) {
    __m512 acc[MR][NV];
    for (int i = 0; i < m; i++)
        for (int v = 0; v < NV; v++) acc[i][v] = bias ? _mm512_loadu_ps(bias + v * W) : _mm512_setzero_ps();
    for (int k = 0; k < pairs; k++, b += ldb) {
        __m512i right[NV];
        for (int v = 0; v < NV; v++) right[v] = _mm512_loadu_si512(b + v * W);
        for (int i = 0; i < m; i++)
            for (int v = 0; v < NV; v++)
                acc[i][v] = _mm512_dpbf16_ps(acc[i][v], (__m512bh)_mm512_set1_epi32(a[i * a_row + k * a_column]), (__m512bh)right[v]);
    }
    for (int i = 0; i < m; i++) {
        float row[NR];
        for (int v = 0; v < NV; v++) store(row + v * W, (vf)acc[i][v]);
        for (int j = 0; j < n; j++) c[i * ldc + j] = add ? c[i * ldc + j] + row[j] : row[j];
    }
}

/* Rows 2k and 2k + 1 of x[n, width] as pairs: [(n + 1) / 2, width], rows `ld_pairs` apart; an odd last row is paired with zeros. */
static void pairs_of(int n, int width, const float *x, long ld, uint32_t *pairs, long ld_pairs) {
    for (int k = 0; k < n; k += 2, pairs += ld_pairs)
        for (int j = 0; j < width; j += W) {
            __mmask16 some = width - j < W ? (1u << (width - j)) - 1 : 0xffff;
            __m512 first = _mm512_maskz_loadu_ps(some, x + (long)k * ld + j);
            __m512 second = k + 1 == n ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(some, x + (long)(k + 1) * ld + j);
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
            __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second));
            _mm512_mask_storeu_epi32(pairs + j, some, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
}

/* work: [(K + 1) / 2 * (M + N) + NR]. */
static void product_transposed_bf16(int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc,
                                    uint32_t *work) {
    uint32_t *left = work, *right = work + (long)((K + 1) / 2) * M;
    pairs_of(K, M, a, lda, left, M);
    pairs_of(K, N, b, ldb, right, N);
    for (int j = 0; j < N; j += NR)
        for (int i = 0; i < M; i += MR) {
            int m = M - i < MR ? M - i : MR, n = N - j < NR ? N - j : NR;
            TILE(m, product_tile_bf16, (K + 1) / 2, left + i, 1, M, right + j, N, c + i * ldc + j, ldc, n, 0, 1)
        }
}

/* rows: room for `bf16_rows(K)`, the rows of `a` that are read while a panel is in the cache. */
static void product_bf16(int M, int N, int K, const float *a, long lda, const uint32_t *b, float *c, long ldc, const float *bias, int add,
                         uint32_t *rows) {
    int pairs = (K + 1) / 2;
    for (int from = 0; from < M; from += BLOCK) {
        int to = from + BLOCK < M ? from + BLOCK : M;
        for (int i = from; i < to; i++) {
            uint16_t *into = (uint16_t *)(rows + (long)(i - from) * pairs);
            int k = 0;
            for (; k + W <= K; k += W)
                _mm256_storeu_si256((__m256i *)(into + k), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(a + i * lda + k)));
            if (k < 2 * pairs) {
                __m512 rest = _mm512_maskz_loadu_ps((__mmask16)((1u << (K - k)) - 1), a + i * lda + k);
                _mm256_mask_storeu_epi16(into + k, (__mmask16)((1u << (2 * pairs - k)) - 1), (__m256i)_mm512_cvtneps_pbh(rest));
            }
        }
        const uint32_t *panel = b;
        for (int j = 0; j < N; j += NR, panel += (long)pairs * NR)
            for (int i = from; i < to; i += MR) {
                int m = to - i < MR ? to - i : MR, n = N - j < NR ? N - j : NR;
                const uint32_t *left = rows + (long)(i - from) * pairs;
                TILE(m, product_tile_bf16, pairs, left, pairs, 1, panel, NR, c + i * ldc + j, ldc, n, bias ? bias + j : 0, add)
            }
    }
}
#else
#define HAS_BF16 0
static void product_bf16(int M, int N, int K, const float *a, long lda, const uint32_t *b, float *c, long ldc, const float *bias, int add,
                         uint32_t *rows) {}
static void product_transposed_bf16(int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc,
                                    uint32_t *work) {}
#endif

INLINE uint16_t bf16_of(float x) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

/* Floats that a packed [N, K] matrix takes. */
static long packed_size(int N, int K, int bf16) {
    long panels = (N + NR - 1) / NR;
    return panels * NR * (bf16 ? (K + 1) / 2 : K);
}

/* Rows `from` to `from + n` of a packed matrix of K columns, from w[n, K]. The rest of the last panel is zero beforehand. */
static void pack_rows(int from, int n, int K, const float *w, float *packed, int bf16) {
    for (int j = 0; j < n; j++) {
        int row = from + j;
        if (bf16) {
            uint16_t *into = (uint16_t *)((uint32_t *)packed + (long)(row / NR) * NR * ((K + 1) / 2) + row % NR);
            for (int k = 0; k < K; k++) into[(long)(k / 2) * NR * 2 + k % 2] = bf16_of(w[(long)j * K + k]);
        } else {
            float *into = packed + (long)(row / NR) * NR * K + row % NR;
            for (int k = 0; k < K; k++) into[(long)k * NR] = w[(long)j * K + k];
        }
    }
}

/* Rows `from` to `from + n` of a matrix [K, N] that is to be the right factor as it stands. Panels' rests are zero beforehand. */
static void pack_right(int from, int n, int K, int N, const float *w, float *packed, int bf16) {
    long depth = bf16 ? (K + 1) / 2 : K;
    for (int j = 0; j < N; j += NR)
        for (int k = 0; k < n; k++) {
            int row = from + k, columns = N - j < NR ? N - j : NR;
            if (bf16) {
                uint16_t *into = (uint16_t *)((uint32_t *)packed + ((long)(j / NR) * depth + row / 2) * NR) + row % 2;
                for (int i = 0; i < columns; i++) into[2 * i] = bf16_of(w[(long)k * N + j + i]);
            } else memcpy(packed + ((long)(j / NR) * depth + row) * NR, w + (long)k * N + j, sizeof(float) * columns);
        }
}
