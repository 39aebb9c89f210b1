/* Products of matrices: C[M, N] = A[M, K] B + bias (+ C), with B packed in panels of NR columns. One interface, and behind it what the
   processor has. A row's sum over K is formed in one order whatever M is, so what a row gives does not depend on the rows around it. */
#pragma once
#include "vectors.h"

enum { BLOCK = 96 }; /* rows that read a panel while it is in the cache */

/* The way of a product. All but the first round both factors to bfloat16 and sum in float32, each in an order of its own. */
enum {
    FLOATS,   /* float32 */
    ROUNDED,  /* bfloat16 in memory, float32 in registers: the sums of FLOATS over rounded factors */
    DOTS,     /* AVX512-BF16: dot products of pairs */
    TILES     /* AMX: products of 16 x 32 and 32 x 16 numbers */
};

/* Floats that a packed [N, K] matrix takes; with `rests`, its last panel or its last numbers along K have to be zero beforehand. */
HIDDEN long packed_size(int N, int K, int way);
HIDDEN int rests(int N, int K);

/* Rows `from` to `from + n` of a packed matrix of K columns, from w[n, K]. Matrices of all ways but FLOATS are packed alike. */
HIDDEN void pack_rows(int from, int n, int K, const float *w, float *packed, int way);

/* Rows `from` to `from + n` of a matrix [K, N] that is to be the right factor as it stands. */
HIDDEN void pack_right(int from, int n, int K, int N, const float *w, float *packed, int way);

/* bias: padded to whole panels, or null. work: floats of `product_work`. */
HIDDEN void product(int way, int M, int N, int K, const float *a, long lda, const void *b, float *c, long ldc, const float *bias, int add,
             float *work);
HIDDEN long product_work(int K, int way);

/* The same on several threads, each with columns of its own: where rows are few, each thread reads a part of B and no more. The same bits.
   work: a `product_work` for each thread. */
HIDDEN void product_shared(int threads, int way, int M, int N, int K, const float *a, long lda, const void *b, float *c, long ldc, const float *bias,
                    int add, float *work);

/* C[M, N] += A^T B for A [K, M] and B [K, N], neither packed: the gradient of a weight from those of what came out and what went in.
   Where N is no multiple of NR, b may be read up to NR columns further. work: floats of `transposed_work`. */
HIDDEN void product_transposed(int way, int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc, float *work);
HIDDEN long transposed_work(int M, int N, int K, int way);
