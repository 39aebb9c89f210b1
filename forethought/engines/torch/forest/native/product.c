/* The products of `product.h`, by every way that the compiler can build for this machine. */
#include "product.h"
#include "bfloat16.h"
#include "crew.h"

enum {
    STEP = 16,                 /* pairs of numbers along K that a tile of AMX takes at once: packed matrices are padded to it */
    MOST = W == 16 ? 14 : MR,  /* rows of a tile in registers: MOST * NV sums, NV vectors of the right factor and one number of the left */
    SIDE_BY_SIDE = 4,          /* most panels that few rows read at once: their sums alone would wait for each other */
    AHEAD = 64                 /* rows of a panel that are fetched before they are read */
};

#if defined(__AVX512F__) || EMULATED
#define ROWS(m, f, ...) switch (m) { \
    case 1: f(1, __VA_ARGS__); break; case 2: f(2, __VA_ARGS__); break; case 3: f(3, __VA_ARGS__); break; \
    case 4: f(4, __VA_ARGS__); break; case 5: f(5, __VA_ARGS__); break; case 6: f(6, __VA_ARGS__); break; \
    case 7: f(7, __VA_ARGS__); break; case 8: f(8, __VA_ARGS__); break; case 9: f(9, __VA_ARGS__); break; \
    case 10: f(10, __VA_ARGS__); break; case 11: f(11, __VA_ARGS__); break; case 12: f(12, __VA_ARGS__); break; \
    case 13: f(13, __VA_ARGS__); break; default: f(14, __VA_ARGS__); }
#else
#define ROWS TILE
#endif

static int pairs_of(int K) { return (K + 2 * STEP - 1) / (2 * STEP) * STEP; }
static int least(int a, int b) { return a < b ? a : b; }
static float *aligned(float *p) { return (float *)(((uintptr_t)p + 63) & ~(uintptr_t)63); }

/* Rows of the tile that begins at row i of M: all tiles are about as high. */
static int height(int i, int M) {
    int tiles = (M - i + MOST - 1) / MOST;
    return (M - i + tiles - 1) / tiles;
}

/* ---- float32 */

typedef struct { /* where a tile's sums go: n <= NR columns of c for each panel */
    float *c;
    long ldc;
    int n, add;
    const float *bias;
} Target;

static Target beside(Target t, int columns) { return (Target){t.c + columns, t.ldc, t.n, t.add, t.bias ? t.bias + columns : 0}; }
static Target below(Target t, int rows) { return (Target){t.c + rows * t.ldc, t.ldc, t.n, t.add, t.bias}; }

INLINE void begin(const int m, const int panels, vf (*acc)[SIDE_BY_SIDE * NV], Target t) {
    for (int i = 0; i < m; i++)
        for (int v = 0; v < panels * NV; v++) acc[i][v] = t.bias ? load(t.bias + v * W) : (vf){0};
}

INLINE void put(const int m, const int panels, vf (*acc)[SIDE_BY_SIDE * NV], Target t) {
    for (int i = 0; i < m; i++, t.c += t.ldc) {
        if (panels > 1 || t.n == NR)
            for (int v = 0; v < panels * NV; v++) store(t.c + v * W, acc[i][v] + (t.add ? load(t.c + v * W) : all(0)));
        else {
            float row[NR];
            for (int v = 0; v < NV; v++) store(row + v * W, acc[i][v]);
            for (int j = 0; j < t.n; j++) t.c[j] = t.add ? t.c[j] + row[j] : row[j];
        }
    }
}

/* m rows of a, `a_row` apart, their numbers `a_column`; rows of b are `ldb` apart, panels `panel`. `next`: what is to be in the cache
   when this has been read, `fetch` floats for each k, at most NR; null: nothing. */
INLINE void tile_f32(const int m, const int panels, int K, const float *a, long a_row, long a_column, const float *b, long ldb, long panel,
                     const float *next, int fetch, Target t) {
    vf acc[MOST][SIDE_BY_SIDE * NV];
    begin(m, panels, acc, t);
    for (int k = 0; k < K; k++, b += ldb) {
        vf right[SIDE_BY_SIDE * NV];
        for (int v = 0; v < panels * NV; v++) {
            const float *at = b + v / NV * panel + v % NV * W;
            if (panel) __builtin_prefetch(at + AHEAD * ldb);
            right[v] = load(at);
        }
        if (next) {
            __builtin_prefetch(next + (long)k * fetch, 0, 2);
            if (fetch > W) __builtin_prefetch(next + (long)k * fetch + W, 0, 2);
        }
        for (int i = 0; i < m; i++) {
            vf left = all(a[i * a_row + k * a_column]);
            for (int v = 0; v < panels * NV; v++) acc[i][v] += left * right[v];
        }
    }
    put(m, panels, acc, t);
}

/* All rows with one panel. `next`: `floats` that are read after it (null: nothing). They are fetched evenly over the tiles of rows: all at
   once they would hold up what a tile reads itself. */
static void rows_f32(int M, int K, const float *a, long lda, const float *panel, const float *next, long floats, Target t) {
    int tiles = (M + MOST - 1) / MOST, parts = tiles < 4 ? tiles < 2 ? 1 : 2 : 4, fetch = floats / ((long)K * parts);
    for (int i = 0, m, n = 0; i < M; i += m, n++) {
        m = height(i, M);
        ROWS(m, tile_f32, 1, K, a + i * lda, lda, 1, panel, NR, (long)K * NR, n < parts ? next : 0, fetch, below(t, i))
        if (next) next += (long)K * fetch;
    }
}

/* Few rows: how many panels are read side by side. */
static int abreast(int M) { return M == 1 ? 4 : M <= 3 ? 2 : 1; }

INLINE void few_f32(const int m, const int panels, int K, const float *a, long lda, const float *b, Target t) {
    tile_f32(m, panels, K, a, lda, 1, b, NR, (long)K * NR, 0, 0, t);
}

static void floats(int M, int N, int K, const float *a, long lda, const float *b, Target t) {
    long panel = (long)K * NR;
    int j = 0, wide = abreast(M);
    for (; wide > 1 && j + wide * NR <= N; j += wide * NR, b += wide * panel) {
        Target to = beside(t, j);
        if (M == 1) few_f32(1, 4, K, a, lda, b, to);
        else if (M == 2) few_f32(2, 2, K, a, lda, b, to);
        else few_f32(3, 2, K, a, lda, b, to);
    }
    for (int from = 0; from < M; from += BLOCK) {
        const float *own = b;
        for (int k = j; k < N; k += NR, own += panel) {
            Target to = below(beside(t, k), from);
            to.n = least(NR, N - k);
            rows_f32(least(BLOCK, M - from), K, a + from * lda, lda, own, k + NR < N ? own + panel : 0, panel, to);
        }
    }
}

/* NR columns of b, rows beside each other; the next ones are fetched meanwhile. */
static void lay_strip(int n, int K, const float *b, long ldb, float *strip) {
    for (int k = 0; k < K; k++, b += ldb, strip += NR) {
        for (int v = 0; v < NV; v++) __builtin_prefetch(b + NR + v * W, 0, 2);
        if (n < NR) memcpy(strip, b, sizeof(float) * n);
        else
            for (int v = 0; v < NV; v++) store(strip + v * W, load(b + v * W));
    }
}

/* The columns of a tile, rows beside each other. A vector takes more than a tile has; the next row is written over it. */
static void lay_tile(int m, int K, const float *a, long lda, float *rows) {
    for (int k = 0; k < K; k++, a += lda, rows += m)
        if (m <= W && k + 1 < K) store(rows, load(a));
        else memcpy(rows, a, sizeof(float) * m);
}

/* Factors that stand far apart in memory are first laid out as the tiles read them; `work` null: they are read where they stand. */
static void transposed_floats(int M, int N, int K, const float *a, long lda, const float *b, long ldb, Target t, float *work) {
    float *strip = work ? aligned(work) : 0, *rows = strip + (long)K * NR;
    for (int i = 0, m; work && i < M; i += m) m = height(i, M), lay_tile(m, K, a + i, lda, rows + (long)i * K);
    for (int j = 0; j < N; j += NR) {
        int n = least(NR, N - j);
        if (work) lay_strip(n, K, b + j, ldb, strip);
        for (int i = 0, m; i < M; i += m) {
            Target to = below(beside(t, j), i);
            to.n = n, m = height(i, M);
            for (int row = 0; work && row < m; row++)
                for (int v = 0; v < NV; v++) __builtin_prefetch(to.c + row * to.ldc + v * W, 1);
            const float *left = work ? rows + (long)i * K : a + i, *right = work ? strip : b + j;
            ROWS(m, tile_f32, 1, K, left, 1, work ? m : lda, right, work ? NR : ldb, 0, 0, 0, to)
        }
    }
}

enum { APART = 512 }; /* numbers of a row from which tiles of a transposed product meet other pages at each step */

/* Floats that the two factors take when they are laid out. */
static long laid_out(int M, int N, int K) { return N < APART || K < 2 * BLOCK ? 0 : (long)K * (M + NR) + 2 * NR; }

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

static void round_to_floats(int K, const float *x, float *to) {
    int k = 0;
    for (; k + W <= K; k += W) store(to + k, (vf)(high_half(load(x + k)) & 0xffff0000));
    for (; k < K; k++) to[k] = float_of(bf16_of(x[k]));
}

/* The same as `tile_f32` from pairs. `spread`: where the panel's floats are put for the rows that follow, or null. */
INLINE void tile_pairs(const int m, const int panels, int K, const float *a, long lda, const uint32_t *b, long panel, float *spread, Target t) {
    vf acc[MOST][SIDE_BY_SIDE * NV];
    begin(m, panels, acc, t);
    for (int k = 0; k < K; k += 2, b += NR) {
        vu both[SIDE_BY_SIDE * NV];
        for (int v = 0; v < panels * NV; v++) {
            const uint32_t *at = b + v / NV * panel + v % NV * W;
            __builtin_prefetch(at + AHEAD * NR);
            both[v] = *(const vu *)at;
        }
        for (int second = 0; second < 2; second++) {
            vf right[SIDE_BY_SIDE * NV];
            for (int v = 0; v < panels * NV; v++) right[v] = second ? (vf)(both[v] & 0xffff0000) : (vf)(both[v] << 16);
            if (spread)
                for (int v = 0; v < NV; v++) {
                    float *to = spread + (k + second) * NR + v * W;
                    __builtin_prefetch(to + AHEAD / 2 * NR, 1); /* the panel is larger than the first cache: stores would wait for each line */
                    store(to, right[v]);
                }
            for (int i = 0; i < m; i++) {
                vf left = all(a[i * lda + k + second]);
                for (int v = 0; v < panels * NV; v++) acc[i][v] += left * right[v];
            }
        }
    }
    put(m, panels, acc, t);
}

static void few_pairs(int m, int panels, int K, const float *a, long lda, const uint32_t *b, Target t) {
    long panel = (long)pairs_of(K) * NR;
    if (m == 1) tile_pairs(1, 4, K, a, lda, b, panel, 0, t);
    else if (m == 2) tile_pairs(2, 2, K, a, lda, b, panel, 0, t);
    else tile_pairs(3, 2, K, a, lda, b, panel, 0, t);
}

/* Floats of a row that is rounded: an odd K is filled up by a zero. */
static long even(int K) { return K + K % 2; }

static void rounded_floats(int M, int N, int K, const float *a, long lda, const uint32_t *b, Target t, float *work) {
    long panel = (long)pairs_of(K) * NR, ld = even(K);
    float *rows = aligned(work), *right = aligned(rows + least(BLOCK, M) * ld);
    for (int from = 0; from < M; from += BLOCK) {
        int some = least(BLOCK, M - from), j = 0, wide = abreast(M), first = height(0, some);
        for (int i = 0; i < some; i++) {
            round_to_floats(K, a + (from + i) * lda, rows + i * ld);
            if (ld > K) rows[i * ld + K] = 0;
        }
        const uint32_t *own = b;
        for (; wide > 1 && j + wide * NR <= N; j += wide * NR, own += wide * panel) few_pairs(M, wide, even(K), rows, ld, own, beside(t, j));
        for (; j < N; j += NR, own += panel) {
            Target to = below(beside(t, j), from);
            to.n = least(NR, N - j);
            ROWS(first, tile_pairs, 1, even(K), rows, ld, own, panel, some > first ? right : 0, to)
            if (some > first) {
                const float *next = j + NR < N ? (const float *)(own + panel) : 0;
                rows_f32(some - first, K, rows + first * ld, ld, right, next, panel, below(to, first));
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
INLINE void tile_dots(const int m, const int panels, int pairs, const uint32_t *a, long a_row, long a_column, const uint32_t *b, long ldb,
                      long panel, const uint32_t *next, Target t) {
    vf acc[MOST][SIDE_BY_SIDE * NV];
    begin(m, panels, acc, t);
    for (int k = 0; k < pairs; k++, b += ldb) {
        vu right[SIDE_BY_SIDE * NV];
        for (int v = 0; v < panels * NV; v++) {
            const uint32_t *at = b + v / NV * panel + v % NV * W;
            if (panel) __builtin_prefetch(at + AHEAD * ldb);
            right[v] = *(const vu *)at;
        }
        if (next)
            for (int v = 0; v < NV; v++) __builtin_prefetch(next + k * NR + v * W, 0, 2);
        for (int i = 0; i < m; i++) {
            vu left = (vu){0} + a[i * a_row + k * a_column];
            for (int v = 0; v < panels * NV; v++)
                acc[i][v] = (vf)_mm512_dpbf16_ps((__m512)acc[i][v], (__m512bh)left, (__m512bh)right[v]);
        }
    }
    put(m, panels, acc, t);
}

static void few_dots(int m, int pairs, const uint32_t *rows, const uint32_t *b, long panel, Target t) {
    if (m == 1) tile_dots(1, 4, pairs, rows, pairs, 1, b, NR, panel, 0, t);
    else if (m == 2) tile_dots(2, 2, pairs, rows, pairs, 1, b, NR, panel, 0, t);
    else tile_dots(3, 2, pairs, rows, pairs, 1, b, NR, panel, 0, t);
}

static void dots(int M, int N, int K, const float *a, long lda, const uint32_t *b, Target t, float *work) {
    int pairs = (K + 1) / 2;
    long panel = (long)pairs_of(K) * NR;
    uint32_t *rows = (uint32_t *)work;
    for (int from = 0; from < M; from += BLOCK) {
        int some = least(BLOCK, M - from), j = 0, wide = abreast(M);
        for (int i = 0; i < some; i++) round_row(K, pairs, a + (from + i) * lda, (uint16_t *)(rows + (long)i * pairs), DOTS);
        const uint32_t *own = b;
        for (; wide > 1 && j + wide * NR <= N; j += wide * NR, own += wide * panel) few_dots(M, pairs, rows, own, panel, beside(t, j));
        for (; j < N; j += NR, own += panel) {
            Target to = below(beside(t, j), from);
            to.n = least(NR, N - j);
            for (int i = 0, m; i < some; i += m) {
                m = height(i, some);
                const uint32_t *next = i == 0 && some > m && j + NR < N ? own + panel : 0;
                ROWS(m, tile_dots, 1, pairs, rows + (long)i * pairs, pairs, 1, own, NR, panel, next, below(to, i))
            }
        }
    }
}

static void transposed_dots(int M, int N, int K, const float *a, long lda, const float *b, long ldb, Target t, float *work) {
    uint32_t *left = (uint32_t *)work, *right = left + (long)((K + 1) / 2) * M;
    pair_rows(K, M, a, lda, left, M, DOTS);
    pair_rows(K, N, b, ldb, right, N, DOTS);
    for (int j = 0; j < N; j += NR)
        for (int i = 0, m; i < M; i += m) {
            Target to = below(beside(t, j), i);
            to.n = least(NR, N - j), m = height(i, M);
            ROWS(m, tile_dots, 1, (K + 1) / 2, left + i, 1, M, right + j, N, 0, 0, to)
        }
}
#else
static void dots(int M, int N, int K, const float *a, long lda, const uint32_t *b, Target t, float *work) {}
static void transposed_dots(int M, int N, int K, const float *a, long lda, const float *b, long ldb, Target t, float *work) {}
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

static void put_sums(int m, const float *sums, Target t) {
    for (int i = 0; i < m; i++, t.c += t.ldc)
        for (int j = 0; j < t.n; j++) {
            float one = sums[i * NR + j] + (t.bias ? t.bias[j] : 0);
            t.c[j] = t.add ? t.c[j] + one : one;
        }
}

static void tiles_product(int M, int N, int K, const float *a, long lda, const uint32_t *b, Target t, float *work) {
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
                Target to = below(beside(t, j), from + i);
                to.n = least(NR, N - j);
                sums_of_tiles(m, pairs, rows + (long)i * pairs, pairs, panel, NR, sums);
                put_sums(m, sums, to);
            }
    }
    _tile_release();
}

static void transposed_tiles(int M, int N, int K, const float *a, long lda, const float *b, long ldb, Target t, float *work) {
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
            Target to = below(beside(t, j), i);
            to.n = least(NR, N - j);
            sums_of_tiles(m, pairs, left + (long)i * pairs, pairs, right + j, wide, sums);
            put_sums(m, sums, to);
        }
    _tile_release();
}
#else
static void tiles_product(int M, int N, int K, const float *a, long lda, const uint32_t *b, Target t, float *work) {}
static void transposed_tiles(int M, int N, int K, const float *a, long lda, const float *b, long ldb, Target t, float *work) {}
#endif

/* ---- one interface */

void product(int way, int M, int N, int K, const float *a, long lda, const void *b, float *c, long ldc, const float *bias, int add,
             float *work) {
    Target t = {c, ldc, NR, add, bias};
    switch (way) {
    case FLOATS: floats(M, N, K, a, lda, b, t); break;
    case ROUNDED: rounded_floats(M, N, K, a, lda, b, t, work); break;
    case DOTS: dots(M, N, K, a, lda, b, t, work); break;
    case TILES: tiles_product(M, N, K, a, lda, b, t, work);
    }
}

long product_work(int K, int way) {
    long pairs = pairs_of(K);
    switch (way) {
    case FLOATS: return 0;
    case ROUNDED: return BLOCK * even(K) + even(K) * NR + 32;
    case DOTS: return BLOCK * pairs;
    default: return BLOCK * pairs + PAIR * NR + 16;
    }
}

typedef struct {
    int way, M, N, K, columns; /* columns of a chunk: whole panels */
    const float *a, *bias;
    const void *b;
    long lda, ldc;
    float *c, *work;
    int add;
} Shared;

static void some_columns(void *job, int chunk, int thread) {
    const Shared *s = job;
    long from = (long)chunk * s->columns;
    product(s->way, s->M, least(s->columns, s->N - from), s->K, s->a, s->lda, (const float *)s->b + packed_size(from, s->K, s->way), s->c + from,
            s->ldc, s->bias ? s->bias + from : 0, s->add, s->work + thread * product_work(s->K, s->way));
}

void product_shared(int threads, int way, int M, int N, int K, const float *a, long lda, const void *b, float *c, long ldc, const float *bias,
                    int add, float *work) {
    int panels = (N + NR - 1) / NR, each = (panels + 2 * threads - 1) / (2 * threads); /* two chunks a thread: one may be held up */
    int columns = (each + SIDE_BY_SIDE - 1) / SIDE_BY_SIDE * SIDE_BY_SIDE * NR;
    Shared s = {way, M, N, K, columns, a, bias, b, lda, ldc, c, work, add};
    in_parallel(threads, (N + columns - 1) / columns, some_columns, &s);
}

void product_transposed(int way, int M, int N, int K, const float *a, long lda, const float *b, long ldb, float *c, long ldc, float *work) {
    Target t = {c, ldc, NR, 1, 0};
    switch (way) {
    case FLOATS: transposed_floats(M, N, K, a, lda, b, ldb, t, laid_out(M, N, K) ? work : 0); break;
    case ROUNDED: {
        float *left = work, *right = work + (long)K * M;
        for (int k = 0; k < K; k++) round_to_floats(M, a + k * lda, left + (long)k * M), round_to_floats(N, b + k * ldb, right + (long)k * N);
        transposed_floats(M, N, K, left, M, right, N, t, laid_out(M, N, K) ? right + (long)K * N : 0);
        break;
    }
    case DOTS: transposed_dots(M, N, K, a, lda, b, ldb, t, work); break;
    case TILES: transposed_tiles(M, N, K, a, lda, b, ldb, t, work);
    }
}

long transposed_work(int M, int N, int K, int way) {
    long pairs = pairs_of(K);
    switch (way) {
    case FLOATS: return laid_out(M, N, K);
    case ROUNDED: return (long)K * (M + N) + NR + laid_out(M, N, K);
    case DOTS: return pairs * (M + N) + NR;
    default: return pairs * (N + NR + 2L * M + SIDE) + PAIR * NR + 16;
    }
}

/* ---- packing */

long packed_size(int N, int K, int way) { return (N + NR - 1L) / NR * NR * (way ? pairs_of(K) : K); }

int rests(int N, int K) { return N % NR || K % (2 * STEP); }

/* Squares of W rows and W numbers along K: what is read and what is written both stay in the cache's lines. */
INLINE void pack_square(const int n, const int some, long K, const float *w, float *into) {
    float square[W][W];
    for (int j = 0; j < n; j++)
        for (int i = 0; i < some; i++) square[i][j] = w[j * K + i];
    for (int i = 0; i < some; i++) memcpy(into + i * NR, square[i], sizeof(float) * n);
}

INLINE void pack_square_of_pairs(const int n, const int some, long K, const float *w, uint32_t *into) {
    uint32_t square[W / 2][W];
    for (int j = 0; j < n; j++) {
        float row[W] = {0};
        uint32_t pairs[W / 2];
        memcpy(row, w + j * K, sizeof(float) * some);
        vh both = rounded(load(row), ROUNDED);
        memcpy(pairs, &both, sizeof pairs);
        for (int i = 0; i < W / 2; i++) square[i][j] = pairs[i];
    }
    for (int i = 0; i < (some + 1) / 2; i++) memcpy(into + i * NR, square[i], sizeof(uint32_t) * n);
}

void pack_rows(int from, int n, int K, const float *w, float *packed, int way) {
    for (int j = 0, some; j < n; j += some) {
        int row = from + j;
        some = least(W - row % W, n - j);
        float *into = packed + (long)(row / NR) * NR * (way ? pairs_of(K) : K) + row % NR;
        for (int k = 0; k < K; k += W) {
            const float *square = w + (long)j * K + k;
            uint32_t *pairs = (uint32_t *)into + (long)k / 2 * NR;
            int whole = some == W && k + W <= K;
            if (way && whole) pack_square_of_pairs(W, W, K, square, pairs);
            else if (way) pack_square_of_pairs(some, least(W, K - k), K, square, pairs);
            else if (whole) pack_square(W, W, K, square, into + (long)k * NR);
            else pack_square(some, least(W, K - k), K, square, into + (long)k * NR);
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
void ft_product(int threads, int way, int M, int N, int K, const float *a, const void *b, float *c, const float *bias, int add, float *work) {
    product_shared(threads, way, M, N, K, a, K, b, c, N, bias, add, work);
}
long ft_transposed_work(int M, int N, int K, int way) { return transposed_work(M, N, K, way); }
void ft_product_transposed(int way, int M, int N, int K, const float *a, const float *b, float *c, float *work) {
    product_transposed(way, M, N, K, a, M, b, N, c, N, work);
}
