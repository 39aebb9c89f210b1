/* The products of `product.h`, by every way that the compiler can build for this machine. */
#include "product.h"
#include "bfloat16.h"

enum { STEP = 16 }; /* pairs of numbers along K that a tile takes at once: packed matrices are padded to it */

static int pairs_of(int K) { return (K + 2 * STEP - 1) / (2 * STEP) * STEP; }
static int least(int a, int b) { return a < b ? a : b; }
static float *aligned(float *p) { return (float *)(((uintptr_t)p + 63) & ~(uintptr_t)63); }

/* ---- float32 */

/* What rows of a tile hold goes to n <= NR columns of c. */
INLINE void put(const int m, vf (*acc)[NV], float *c, long ldc, int n, int add) {
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

/* One tile of m rows and n <= NR columns. Rows of a are `a_row` apart, its columns `a_column`; rows of b are `ldb` apart. */
INLINE void tile_f32(const int m, int K, const float *a, long a_row, long a_column, const float *b, long ldb, float *c, long ldc, int n,
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
    put(m, acc, c, ldc, n, add);
}

static void rows_f32(int M, int K, const float *a, long lda, const float *panel, float *c, long ldc, int n, const float *bias, int add) {
    for (int i = 0; i < M; i += MR) {
        int m = least(MR, M - i);
        TILE(m, tile_f32, K, a + i * lda, lda, 1, panel, NR, c + i * ldc, ldc, n, bias, add)
    }
}

static void floats(int M, int N, int K, const float *a, long lda, const float *b, float *c, long ldc, const float *bias, int add) {
    for (int from = 0; from < M; from += BLOCK) {
        const float *panel = b;
        for (int j = 0; j < N; j += NR, panel += (long)K * NR)
            rows_f32(least(BLOCK, M - from), K, a + from * lda, lda, panel, c + from * ldc + j, ldc, least(NR, N - j), bias ? bias + j : 0, add);
    }
}

static void transposed_floats(int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc) {
    for (int j = 0; j < N; j += NR)
        for (int i = 0; i < M; i += MR) {
            int m = least(MR, M - i);
            TILE(m, tile_f32, K, a + i, 1, lda, b + j, ldb, c + i * ldc + j, ldc, least(NR, N - j), 0, 1)
        }
}

/* ---- bfloat16 */

INLINE void put_rounded(vh x, int n, uint16_t *to) {
    if (n >= W) *(vh *)to = x;
    else memcpy(to, &x, 2 * (n > 0 ? n : 0));
}

/* Row of K numbers, rounded; zeros up to `pairs` pairs. */
static void round_row(int K, int pairs, const float *x, uint16_t *to, int way) {
    int k = 0;
    for (; k + W <= K; k += W) *(vh *)(to + k) = rounded(load(x + k), way);
    for (; k < 2 * pairs; k += W) {
        float rest[W] = {0};
        if (k < K) memcpy(rest, x + k, sizeof(float) * (K - k));
        put_rounded(rounded(load(rest), way), 2 * pairs - k, to + k);
    }
}

/* ROUNDED: a panel's pairs become floats, in the order of K: `panel` [pairs][NR], `to` [2 pairs][NR]. */
static void unpack(int pairs, const uint32_t *panel, float *to) {
    for (long k = 0; k < pairs; k++)
        for (int v = 0; v < NV; v++) {
            vu both = *(const vu *)(panel + k * NR + v * W);
            store(to + 2 * k * NR + v * W, (vf)(both << 16));
            store(to + (2 * k + 1) * NR + v * W, (vf)(both & 0xffff0000));
        }
}

static void round_to_floats(int K, const float *x, float *to) {
    int k = 0;
    for (; k + W <= K; k += W) store(to + k, (vf)(__builtin_convertvector(rounded(load(x + k), ROUNDED), vu) << 16));
    for (; k < K; k++) to[k] = float_of(bf16_of(x[k]));
}

/* A tile that reads pairs: for so few rows that a panel of floats would be read once. */
INLINE void tile_pairs(const int m, int K, const float *a, long lda, const uint32_t *b, float *c, long ldc, int n, const float *bias, int add) {
    vf acc[MR][NV];
    for (int i = 0; i < m; i++)
        for (int v = 0; v < NV; v++) acc[i][v] = bias ? load(bias + v * W) : (vf){0};
    for (int k = 0; k < K; k += 2, b += NR)
        for (int second = 0; second < 2 && k + second < K; second++)
            for (int v = 0; v < NV; v++) {
                vu both = *(const vu *)(b + v * W);
                vf right = second ? (vf)(both & 0xffff0000) : (vf)(both << 16);
                for (int i = 0; i < m; i++) acc[i][v] += a[i * lda + k + second] * right;
            }
    put(m, acc, c, ldc, n, add);
}

static void rounded_floats(int M, int N, int K, const float *a, long lda, const uint32_t *b, float *c, long ldc, const float *bias, int add,
                           float *work) {
    int pairs = pairs_of(K);
    float *rows = work, *right = rows + (long)least(BLOCK, M) * K;
    for (int from = 0; from < M; from += BLOCK) {
        int some = least(BLOCK, M - from);
        for (int i = 0; i < some; i++) round_to_floats(K, a + (from + i) * lda, rows + (long)i * K);
        const uint32_t *panel = b;
        for (int j = 0; j < N; j += NR, panel += (long)pairs * NR) {
            float *to = c + from * ldc + j;
            const float *own = bias ? bias + j : 0;
            int n = least(NR, N - j);
            if (some <= MR) {
                TILE(some, tile_pairs, K, rows, K, panel, to, ldc, n, own, add)
            } else {
                unpack((K + 1) / 2, panel, right);
                rows_f32(some, K, rows, K, right, to, ldc, n, own, add);
            }
        }
    }
}

/* Rows 2k and 2k + 1 of x[n, width] as pairs: [(n + 1) / 2, width], rows `ld_pairs` apart; an odd last row is paired with zeros. */
static void pair_rows(int n, int width, const float *x, long ld, uint32_t *pairs, long ld_pairs, int way) {
    for (int k = 0; k < n; k += 2, pairs += ld_pairs)
        for (int j = 0; j < width; j += W) {
            int some = least(W, width - j);
            float first[W] = {0}, second[W] = {0};
            const float *one = x + (long)k * ld + j, *two = k + 1 < n ? one + ld : second;
            if (some < W) {
                memcpy(first, one, sizeof(float) * some);
                if (k + 1 < n) memcpy(second, two, sizeof(float) * some);
                one = first, two = second;
            }
            vu low = __builtin_convertvector(rounded(load(one), way), vu), high = __builtin_convertvector(rounded(load(two), way), vu);
            vu both = low | high << 16;
            if (some == W) *(vu *)(pairs + j) = both;
            else memcpy(pairs + j, &both, sizeof(uint32_t) * some);
        }
}

#if HAS_DOTS
/* The same as `tile_f32` in pairs: strides count pairs. */
INLINE void tile_dots(const int m, int pairs, const uint32_t *a, long a_row, long a_column, const uint32_t *b, long ldb, float *c, long ldc,
                      int n, const float *bias, int add) {
    vf acc[MR][NV];
    for (int i = 0; i < m; i++)
        for (int v = 0; v < NV; v++) acc[i][v] = bias ? load(bias + v * W) : (vf){0};
    for (int k = 0; k < pairs; k++, b += ldb) {
        vu right[NV];
        for (int v = 0; v < NV; v++) right[v] = *(const vu *)(b + v * W);
        for (int i = 0; i < m; i++) {
            vu left = (vu){0} + a[i * a_row + k * a_column];
            for (int v = 0; v < NV; v++) acc[i][v] = (vf)_mm512_dpbf16_ps((__m512)acc[i][v], (__m512bh)left, (__m512bh)right[v]);
        }
    }
    put(m, acc, c, ldc, n, add);
}

static void dots(int M, int N, int K, const float *a, long lda, const uint32_t *b, float *c, long ldc, const float *bias, int add,
                 uint32_t *rows) {
    int pairs = (K + 1) / 2;
    for (int from = 0; from < M; from += BLOCK) {
        int some = least(BLOCK, M - from);
        for (int i = 0; i < some; i++) round_row(K, pairs, a + (from + i) * lda, (uint16_t *)(rows + (long)i * pairs), DOTS);
        const uint32_t *panel = b;
        for (int j = 0; j < N; j += NR, panel += (long)pairs_of(K) * NR)
            for (int i = 0; i < some; i += MR) {
                int m = least(MR, some - i), n = least(NR, N - j);
                TILE(m, tile_dots, pairs, rows + (long)i * pairs, pairs, 1, panel, NR, c + (from + i) * ldc + j, ldc, n, bias ? bias + j : 0, add)
            }
    }
}

static void transposed_dots(int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc, uint32_t *work) {
    uint32_t *left = work, *right = work + (long)((K + 1) / 2) * M;
    pair_rows(K, M, a, lda, left, M, DOTS);
    pair_rows(K, N, b, ldb, right, N, DOTS);
    for (int j = 0; j < N; j += NR)
        for (int i = 0; i < M; i += MR) {
            int m = least(MR, M - i);
            TILE(m, tile_dots, (K + 1) / 2, left + i, 1, M, right + j, N, c + i * ldc + j, ldc, least(NR, N - j), 0, 1)
        }
}
#else
static void dots(int M, int N, int K, const float *a, long lda, const uint32_t *b, float *c, long ldc, const float *bias, int add,
                 uint32_t *rows) {}
static void transposed_dots(int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc, uint32_t *work) {}
#endif

enum { SIDE = 16, PAIR = 2 * SIDE }; /* rows of a tile; of two beside each other */

#if HAS_TILES
/* Eight tiles of 16 rows of 64 bytes: 0 to 3 are sums, 4 and 5 left, 6 and 7 right. */
static const uint8_t config[64] __attribute__((aligned(64))) = {
    [0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
    [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};

/* sums[32][NR] of left[32][pairs] and a panel whose rows are `ldb` apart, or of the first 16 rows alone. A row's sums are the same. */
static void sums_of_tiles(int m, int pairs, const uint32_t *left, long lda, const uint32_t *right, long ldb, float *sums) {
    __asm__ volatile("" ::: "memory"); /* the instructions read and write what the compiler does not see */
    _tile_zero(0);
    _tile_zero(1);
    if (m > SIDE) {
        _tile_zero(2);
        _tile_zero(3);
        for (int k = 0; k < pairs; k += STEP) {
            _tile_loadd(4, left + k, 4 * lda);
            _tile_loadd(6, right + k * ldb, 4 * ldb);
            _tile_loadd(7, right + k * ldb + SIDE, 4 * ldb);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, left + SIDE * lda + k, 4 * lda);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(2, sums + SIDE * NR, 4 * NR);
        _tile_stored(3, sums + SIDE * NR + SIDE, 4 * NR);
    } else
        for (int k = 0; k < pairs; k += STEP) {
            _tile_loadd(4, left + k, 4 * lda);
            _tile_loadd(6, right + k * ldb, 4 * ldb);
            _tile_loadd(7, right + k * ldb + SIDE, 4 * ldb);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    _tile_stored(0, sums, 4 * NR);
    _tile_stored(1, sums + SIDE, 4 * NR);
    __asm__ volatile("" ::: "memory");
}

/* Rows of tiles go to n <= NR columns of c. */
static void put_sums(int m, const float *sums, float *c, long ldc, int n, const float *bias, int add) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float one = sums[i * NR + j] + (bias ? bias[j] : 0);
            c[i * ldc + j] = add ? c[i * ldc + j] + one : one;
        }
}

static void tiles_product(int M, int N, int K, const float *a, long lda, const uint32_t *b, float *c, long ldc, const float *bias, int add,
                          float *work) {
    int pairs = pairs_of(K);
    float *sums = aligned(work);
    uint32_t *rows = (uint32_t *)(sums + PAIR * NR);
    _tile_loadconfig(config);
    for (int from = 0; from < M; from += BLOCK) {
        int some = least(BLOCK, M - from), whole = (some + SIDE - 1) / SIDE * SIDE;
        for (int i = 0; i < some; i++) round_row(K, pairs, a + (from + i) * lda, (uint16_t *)(rows + (long)i * pairs), TILES);
        memset(rows + (long)some * pairs, 0, sizeof(uint32_t) * (whole - some) * pairs);
        const uint32_t *panel = b;
        for (int j = 0; j < N; j += NR, panel += (long)pairs * NR)
            for (int i = 0; i < some; i += PAIR) {
                int m = least(PAIR, some - i);
                sums_of_tiles(m, pairs, rows + (long)i * pairs, pairs, panel, NR, sums);
                put_sums(m, sums, c + (from + i) * ldc + j, ldc, least(NR, N - j), bias ? bias + j : 0, add);
            }
    }
    _tile_release();
}

static void transposed_tiles(int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc, float *work) {
    int pairs = pairs_of(K), wide = (N + NR - 1) / NR * NR, high = (M + SIDE - 1) / SIDE * SIDE;
    float *sums = aligned(work);
    uint32_t *right = (uint32_t *)(sums + PAIR * NR), *left = right + (long)pairs * wide, *across = left + (long)pairs * high;
    memset(right, 0, sizeof(uint32_t) * pairs * wide);
    memset(left, 0, sizeof(uint32_t) * pairs * high);
    pair_rows(K, N, b, ldb, right, wide, TILES);
    pair_rows(K, M, a, lda, across, M, TILES);
    for (int k = 0; k < (K + 1) / 2; k++)
        for (int i = 0; i < M; i++) left[(long)i * pairs + k] = across[(long)k * M + i];
    _tile_loadconfig(config);
    for (int j = 0; j < N; j += NR)
        for (int i = 0; i < M; i += PAIR) {
            int m = least(PAIR, M - i);
            sums_of_tiles(m, pairs, left + (long)i * pairs, pairs, right + j, wide, sums);
            put_sums(m, sums, c + i * ldc + j, ldc, least(NR, N - j), 0, 1);
        }
    _tile_release();
}
#else
static void tiles_product(int M, int N, int K, const float *a, long lda, const uint32_t *b, float *c, long ldc, const float *bias, int add,
                          float *work) {}
static void transposed_tiles(int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc, float *work) {}
#endif

/* ---- one interface */

void product(int way, int M, int N, int K, const float *a, long lda, const void *b, float *c, long ldc, const float *bias, int add,
             float *work) {
    switch (way) {
    case FLOATS: floats(M, N, K, a, lda, b, c, ldc, bias, add); break;
    case ROUNDED: rounded_floats(M, N, K, a, lda, b, c, ldc, bias, add, work); break;
    case DOTS: dots(M, N, K, a, lda, b, c, ldc, bias, add, (uint32_t *)work); break;
    case TILES: tiles_product(M, N, K, a, lda, b, c, ldc, bias, add, work);
    }
}

long product_work(int K, int way) {
    long pairs = pairs_of(K);
    switch (way) {
    case FLOATS: return 0;
    case ROUNDED: return (long)BLOCK * K + 2 * pairs * NR;
    case DOTS: return BLOCK * pairs;
    default: return BLOCK * pairs + PAIR * NR + 16;
    }
}

void product_transposed(int way, int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc, float *work) {
    switch (way) {
    case FLOATS: transposed_floats(M, N, K, a, lda, b, ldb, c, ldc); break;
    case ROUNDED: {
        float *left = work, *right = work + (long)K * M;
        for (int k = 0; k < K; k++) round_to_floats(M, a + k * lda, left + (long)k * M), round_to_floats(N, b + k * ldb, right + (long)k * N);
        transposed_floats(M, N, K, left, M, right, N, c, ldc);
        break;
    }
    case DOTS: transposed_dots(M, N, K, a, lda, b, ldb, c, ldc, (uint32_t *)work); break;
    case TILES: transposed_tiles(M, N, K, a, lda, b, ldb, c, ldc, work);
    }
}

long transposed_work(int M, int N, int K, int way) {
    long pairs = pairs_of(K);
    switch (way) {
    case FLOATS: return 0;
    case ROUNDED: return (long)K * (M + N) + NR;
    case DOTS: return pairs * (M + N) + NR;
    default: return pairs * (N + NR + 2L * M + SIDE) + PAIR * NR + 16;
    }
}

/* ---- packing */

long packed_size(int N, int K, int way) { return (N + NR - 1L) / NR * NR * (way ? pairs_of(K) : K); }

int rests(int N, int K) { return N % NR || K % (2 * STEP); }

void pack_rows(int from, int n, int K, const float *w, float *packed, int way) {
    for (int j = 0; j < n; j++) {
        int row = from + j;
        if (way) {
            uint16_t *into = (uint16_t *)((uint32_t *)packed + (long)(row / NR) * NR * pairs_of(K) + row % NR);
            for (int k = 0; k < K; k++) into[(long)(k / 2) * NR * 2 + k % 2] = bf16_of(w[(long)j * K + k]);
        } else {
            float *into = packed + (long)(row / NR) * NR * K + row % NR;
            for (int k = 0; k < K; k++) into[(long)k * NR] = w[(long)j * K + k];
        }
    }
}

void pack_right(int from, int n, int K, int N, const float *w, float *packed, int way) {
    long depth = way ? pairs_of(K) : K;
    for (int j = 0; j < N; j += NR)
        for (int k = 0; k < n; k++) {
            int row = from + k, columns = least(NR, N - j);
            if (way) {
                uint16_t *into = (uint16_t *)((uint32_t *)packed + ((long)(j / NR) * depth + row / 2) * NR) + row % 2;
                for (int i = 0; i < columns; i++) into[2 * i] = bf16_of(w[(long)k * N + j + i]);
            } else memcpy(packed + ((long)(j / NR) * depth + row) * NR, w + (long)k * N + j, sizeof(float) * columns);
        }
}

/* ---- for Python: the interface, and which ways there are, a bit each */

int ft_ways(void) { return 1 << FLOATS | 1 << ROUNDED | HAS_DOTS << DOTS | HAS_TILES << TILES; }
int ft_width(void) { return W; }
long ft_packed_size(int N, int K, int way) { return packed_size(N, K, way); }
void ft_pack_rows(int from, int n, int K, const float *w, float *packed, int way) { pack_rows(from, n, K, w, packed, way); }
long ft_product_work(int K, int way) { return product_work(K, way); }
void ft_product(int way, int M, int N, int K, const float *a, const void *b, float *c, const float *bias, int add, float *work) {
    product(way, M, N, K, a, K, b, c, N, bias, add, work);
}
long ft_transposed_work(int M, int N, int K, int way) { return transposed_work(M, N, K, way); }
void ft_product_transposed(int way, int M, int N, int K, const float *a, const float *b, float *c, float *work) {
    product_transposed(way, M, N, K, a, M, b, N, c, N, work);
}
