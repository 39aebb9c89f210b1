/* Attention over segments of keys: a query reads its ancestors' segments one after another and, causally, its own. Softmax over several
   segments is kept as a running maximum, sum and weighted sum (arXiv 2205.14135), so no segment is copied for the queries below it. */
#pragma once
#include "bfloat16.h"

enum { CHUNK = 128, PART = 16, ABREAST = 4 }; /* keys whose scores are held; keys of one sum; most sums beside each other */

typedef struct {
    const float *q; /* scaled */
    float *o, *m, *s; /* weighted sum of values [d], maximum of the scores, sum of exponentials */
    int limit; /* keys of the segment that it sees */
} Query;

INLINE vi lanes(void) {
    vi x;
    for (int i = 0; i < W; i++) x[i] = i;
    return x;
}

/* Numbers in bfloat16 lie in pairs of those that are summed one after the other (`half`): of a key's numbers, of a number of two values.
   The one in the lower half comes first; sums are in float32 and in the same order either way. */
INLINE vf first_of(const float *pairs) { return (vf)(*(const vu *)pairs << 16); }
INLINE vf second_of(const float *pairs) { return (vf)(*(const vu *)pairs & 0xffff0000); }

/* Scores of m queries against `n` panels at once: few queries alone would wait for each sum's last addition. `ahead`: what is read after
   the panels, and lies at `next` as they do, is fetched meanwhile; what the processor fetches by itself ends with a page of 4 KB. */
INLINE void scores_panels(const int half, const int ahead, const int m, const int n, int d, const float *const *q, const int *limit,
                          const float *panels, const float *next, int first, float (*scores)[CHUNK], int at) {
    const vi lane = lanes();
    vf acc[MR][ABREAST];
    for (int i = 0; i < m; i++)
        for (int p = 0; p < n; p++) acc[i][p] = (vf){0};
    if (half)
        for (int j = 0; j < d; j += 2)
            for (int p = 0; p < n; p++) {
                const float *pairs = panels + ((long)p * d + j) * (W / 2);
                if (ahead) __builtin_prefetch(next + ((long)p * d + j) * (W / 2));
                vf one = first_of(pairs), two = second_of(pairs);
                for (int i = 0; i < m; i++) acc[i][p] += q[i][j] * one;
                for (int i = 0; i < m; i++) acc[i][p] += q[i][j + 1] * two;
            }
    else
        for (int j = 0; j < d; j++)
            for (int p = 0; p < n; p++) {
                vf k = load(panels + ((long)p * d + j) * W);
                if (ahead) __builtin_prefetch(next + ((long)p * d + j) * W);
                for (int i = 0; i < m; i++) acc[i][p] += q[i][j] * k;
            }
    for (int i = 0; i < m; i++)
        for (int p = 0; p < n; p++)
            store(scores[i] + at + p * W, where(lane + (first + at + p * W) < limit[i], acc[i][p], all(-1e30f)));
}

/* Queries that leave registers for two panels, and for two parts of a weighted sum. */
enum { PAIRED = W == 16 ? MR : 2, FEW = W == 16 ? 4 : 2 };

/* scores[m][CHUNK] of queries against `keys` keys that stand in panels [W keys][d][W]; -1e30 where a query does not see a key. */
INLINE void scores_tile(const int m, const int half, const int ahead, int d, const float *const *q, const int *limit, const float *panels,
                        const float *next, int first, int keys, float (*scores)[CHUNK]) {
    int at = 0;
    long floats = half ? d / 2 : d; /* of a key */
#define PANELS(n) scores_panels(half, ahead, m, n, d, q, limit, panels + at * floats, next + at * floats, first, scores, at)
    if (m == 1)
        for (; at + 4 * W <= keys; at += 4 * W) PANELS(4);
    if (m <= PAIRED)
        for (; at + 2 * W <= keys; at += 2 * W) PANELS(2);
    for (; at < keys; at += W) PANELS(1);
#undef PANELS
}

/* out[i] += the sums over keys of weight[i][key] * rows[key], one for each of `parts` parts of `keys` keys, in their order. The parts are
   summed beside each other, but what comes out does not depend on how many of them are. */
INLINE void weighted_parts(const int half, const int ahead, const int m, const int n, const int parts, const float (*weight)[CHUNK],
                           const float *rows, const float *next, long ld, int keys, float *const *out, int at) {
    vf acc[ABREAST][MR][NV];
    for (int p = 0; p < parts; p++)
        for (int i = 0; i < m; i++)
            for (int v = 0; v < n; v++) acc[p][i][v] = (vf){0};
    if (half)
        for (int key = 0; key < keys; key += 2)
            for (int p = 0; p < parts; p++)
                for (int v = 0; v < n; v++) {
                    const float *pairs = rows + (p * PART + key) / 2 * ld + at + v * W;
                    if (ahead) __builtin_prefetch(next + (p * PART + key) / 2 * ld + at + v * W);
                    vf one = first_of(pairs), two = second_of(pairs);
                    for (int i = 0; i < m; i++) acc[p][i][v] += weight[i][p * PART + key] * one;
                    if (key + 1 == keys) continue; /* there may be anything where no value was written */
                    for (int i = 0; i < m; i++) acc[p][i][v] += weight[i][p * PART + key + 1] * two;
                }
    else
        for (int key = 0; key < keys; key++)
            for (int p = 0; p < parts; p++)
                for (int v = 0; v < n; v++) {
                    vf row = load(rows + (p * PART + key) * ld + at + v * W);
                    if (ahead) __builtin_prefetch(next + (p * PART + key) * ld + at + v * W);
                    for (int i = 0; i < m; i++) acc[p][i][v] += weight[i][p * PART + key] * row;
                }
    for (int i = 0; i < m; i++)
        for (int v = 0; v < n; v++) {
            vf sum = load(out[i] + at + v * W);
            for (int p = 0; p < parts; p++) sum += acc[p][i][v];
            store(out[i] + at + v * W, sum);
        }
}

INLINE void weighted_slice(const int half, const int ahead, const int m, const int n, const float (*weight)[CHUNK], const float *rows,
                           const float *next, long ld, int keys, float *const *out, int at) {
    int from = 0, lines = half ? 2 : 1; /* keys of a row of `rows` */
#define PARTS(parts, keys) \
    weighted_parts(half, ahead, m, n, parts, (const float (*)[CHUNK])(weight[0] + from), rows + from / lines * ld, next + from / lines * ld, \
                   ld, keys, out, at)
    if (m == 1)
        for (; from + 4 * PART <= keys; from += 4 * PART) PARTS(4, PART);
    if (m <= FEW)
        for (; from + 2 * PART <= keys; from += 2 * PART) PARTS(2, PART);
    for (; from < keys; from += PART) PARTS(1, keys - from < PART ? keys - from : PART);
#undef PARTS
}

INLINE void weighted_tile(const int m, const int half, const int ahead, int d, const float (*weight)[CHUNK], const float *rows,
                          const float *next, long ld, int keys, float *const *out) {
    int at = 0;
    for (; at + NR <= d; at += NR) weighted_slice(half, ahead, m, NV, weight, rows, next, ld, keys, out, at);
    for (; at < d; at += W) weighted_slice(half, ahead, m, 1, weight, rows, next, ld, keys, out, at);
}

/* `ahead`: what comes next is fetched while something is read, of the last chunk's the keys at `after` (null: nothing is to come). */
INLINE void attend_tile(const int m, const int half, const int ahead, int d, Query *queries, const float *panels, const float *values, long ld,
                        int keys, const float *after) {
    float scores[MR][CHUNK] __attribute__((aligned(64)));
    const float *q[MR];
    float *o[MR];
    int limit[MR], most = 0;
    for (int i = 0; i < m; i++) {
        q[i] = queries[i].q, o[i] = queries[i].o, limit[i] = queries[i].limit;
        most = limit[i] > most ? limit[i] : most;
    }
    keys = most < keys ? most : keys;
    for (int first = 0; first < keys; first += CHUNK) {
        int n = keys - first < CHUNK ? keys - first : CHUNK;
        const float *k = panels + (long)first * (half ? d / 2 : d), *v = values + (half ? first / 2 : first) * ld;
        scores_tile(m, half, ahead, d, q, limit, k, v, first, n, scores);
        for (int i = 0; i < m; i++) {
            vf most_v = all(-1e30f), total = (vf){0};
            for (int p = 0; p < n; p += W) most_v = larger(most_v, load(scores[i] + p));
            float old = *queries[i].m, most_s = max_of(most_v);
            most_s = most_s > old ? most_s : old;
            for (int p = 0; p < n; p += W) {
                vf e = vexp(load(scores[i] + p) - most_s);
                store(scores[i] + p, e);
                total += e;
            }
            float fade = expf(old - most_s);
            *queries[i].s = fused(*queries[i].s, fade, sum_of(total));
            *queries[i].m = most_s;
            if (fade != 1.0f)
                for (int j = 0; j < d; j += W) store(o[i] + j, load(o[i] + j) * fade);
        }
        const float *next = first + CHUNK < keys ? k + (long)CHUNK * (half ? d / 2 : d) : after ? after : v;
        weighted_tile(m, half, ahead, d, (const float (*)[CHUNK])scores, v, next, ld, n, o);
    }
}

/* Rows of `values` are `ld` apart. */
static void attend(int n, int d, Query *queries, const float *panels, const float *values, long ld, int keys) {
    for (int i = 0; i < n; i += MR) {
        int m = n - i < MR ? n - i : MR;
        TILE(m, attend_tile, 0, 0, d, queries + i, panels, values, ld, keys, 0)
    }
}

/* Of at most MR queries to keys and values that come from far away. `after`: the keys that are read next. */
static void attend_floats(int m, int d, Query *queries, const float *panels, const float *values, int keys, const float *after) {
    TILE(m, attend_tile, 0, m <= FEW, d, queries, panels, values, d, keys, after)
}

/* The same with keys and values in bfloat16: panels [d / 2][W] of pairs of a key's numbers, rows [d] of pairs of two keys' values. */
static void attend_half(int m, int d, Query *queries, const float *panels, const float *values, int keys, const float *after) {
    TILE(m, attend_tile, 1, m <= FEW, d, queries, panels, values, d, keys, after)
}

/* Keys of one segment, rows `ld` apart, into panels; the last panel's rest is zero. */
static void panels_of(int n, int d, const float *rows, long ld, float *panels) {
    for (int first = 0; first < n; first += W, panels += (long)d * W) {
        int m = n - first < W ? n - first : W;
        if (m < W) memset(panels, 0, sizeof(float) * d * W);
        for (int j = 0; j < d; j += W) /* square by square: both sides stay in the cache's lines */
            for (int i = 0; i < m; i++)
                for (int k = 0; k < W; k++) panels[(j + k) * W + i] = rows[(first + i) * ld + j + k];
    }
}
