/* Attention over segments of keys: a query reads its ancestors' segments one after another and, causally, its own. Softmax over several
   segments is kept as a running maximum, sum and weighted sum (arXiv 2205.14135), so no segment is copied for the queries below it. */
#pragma once
#include "vectors.h"

enum { CHUNK = 128 }; /* keys whose scores are held */

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

/* scores[m][CHUNK] of queries against `keys` keys that stand in panels [W keys][d][W]; -1e30 where a query does not see a key. */
INLINE void scores_tile(const int m, int d, const float *const *q, const int *limit, const float *panels, int first, int keys, float (*scores)[CHUNK]) {
    const vi lane = lanes();
    for (int p = 0; p < keys; p += W, panels += (long)d * W) {
        vf acc[MR];
        for (int i = 0; i < m; i++) acc[i] = (vf){0};
        for (int j = 0; j < d; j++) {
            vf k = load(panels + j * W);
            for (int i = 0; i < m; i++) acc[i] += q[i][j] * k;
        }
        for (int i = 0; i < m; i++)
            store(scores[i] + p, where(lane + (first + p) < limit[i], acc[i], all(-1e30f)));
    }
}

/* out[i] += sum over keys of weight[i][key] * rows[key], by `n` vectors at a time. */
INLINE void weighted_slice(const int m, const int n, const float (*weight)[CHUNK], const float *rows, long ld, int keys, float *const *out, int at) {
    vf acc[MR][NV];
    for (int i = 0; i < m; i++)
        for (int v = 0; v < n; v++) acc[i][v] = load(out[i] + at + v * W);
    for (int key = 0; key < keys; key++) {
        vf row[NV];
        for (int v = 0; v < n; v++) row[v] = load(rows + key * ld + at + v * W);
        for (int i = 0; i < m; i++)
            for (int v = 0; v < n; v++) acc[i][v] += weight[i][key] * row[v];
    }
    for (int i = 0; i < m; i++)
        for (int v = 0; v < n; v++) store(out[i] + at + v * W, acc[i][v]);
}

INLINE void weighted_tile(const int m, int d, const float (*weight)[CHUNK], const float *rows, long ld, int keys, float *const *out) {
    int at = 0;
    for (; at + NR <= d; at += NR) weighted_slice(m, NV, weight, rows, ld, keys, out, at);
    for (; at < d; at += W) weighted_slice(m, 1, weight, rows, ld, keys, out, at);
}

INLINE void attend_tile(const int m, int d, Query *queries, const float *panels, const float *values, long ld, int keys) {
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
        scores_tile(m, d, q, limit, panels + (long)first * d, first, n, scores);
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
            *queries[i].s = *queries[i].s * fade + sum_of(total);
            *queries[i].m = most_s;
            if (fade != 1.0f)
                for (int j = 0; j < d; j += W) store(o[i] + j, load(o[i] + j) * fade);
        }
        weighted_tile(m, d, (const float (*)[CHUNK])scores, values + first * ld, ld, n, o);
    }
}

static void attend(int n, int d, Query *queries, const float *panels, const float *values, long ld, int keys) {
    for (int i = 0; i < n; i += MR) {
        int m = n - i < MR ? n - i : MR;
        TILE(m, attend_tile, d, queries + i, panels, values, ld, keys)
    }
}

/* Keys of one segment, rows `ld` apart, into panels; the last panel's rest is zero. */
static void panels_of(int n, int d, const float *rows, long ld, float *panels) {
    for (int first = 0; first < n; first += W, panels += (long)d * W)
        for (int i = 0; i < W; i++)
            for (int j = 0; j < d; j++) panels[j * W + i] = first + i < n ? rows[(first + i) * ld + j] : 0.0f;
}
