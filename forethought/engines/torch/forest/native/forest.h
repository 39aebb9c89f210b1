/* Attention over a packed forest, forward and backward. Sums that run over tokens are formed in order, so a step gives the same bits
   whenever it is repeated. */
#pragma once
#include "attention.h"

enum { QUERIES = 16 }; /* whose scores the backward pass holds */

typedef struct {
    int start, tokens, end; /* of a segment in the row, and where its descendants end: they follow it */
} Span;

typedef struct {
    int tokens, heads, kv_heads, d, spans, from, to; /* heads of keys [from, to) are computed */
    const uint8_t *asks; /* which tokens ask; null: all. What the others would get stays zero */
    const Span *span;
    const float *q, *k, *v; /* [tokens, heads or kv_heads, d] with rows `ld` apart; queries are scaled */
    long q_ld, k_ld, v_ld;
} Forest;

static long panel_floats(const Forest *f) {
    long n = 0;
    for (int s = 0; s < f->spans; s++) n += (long)((f->span[s].tokens + W - 1) / W) * W * f->d;
    return n;
}

static long attend_work(const Forest *f) { return 2 * panel_floats(f) + (long)f->tokens * f->heads + 64; }

static int asking(const Forest *f, int token) { return !f->asks || f->asks[token]; }
static int seen(const Span *s, int token) { return token - s->start + 1 < s->tokens ? token - s->start + 1 : s->tokens; }

/* out [tokens, heads, d], lse [tokens, heads]: log-sums of exponentials. */
static void attend_forest(const Forest *f, float *out, float *lse, float *work) {
    int d = f->d, heads = f->heads, group = heads / f->kv_heads;
    float *s = work, *panels = work + (long)f->tokens * heads, *m = lse;
    for (int g = f->from; g < f->to; g++) {
        for (int i = 0; i < f->tokens; i++)
            for (long row = (long)i * heads + g * group; row < (long)i * heads + (g + 1) * group; row++) {
                memset(out + row * d, 0, sizeof(float) * d);
                m[row] = -1e30f, s[row] = 0;
            }
        for (const Span *span = f->span; span < f->span + f->spans; span++) {
            Query tile[MR];
            int filled = 0;
            const float *values = f->v + span->start * f->v_ld + g * d;
            panels_of(span->tokens, d, f->k + span->start * f->k_ld + g * d, f->k_ld, panels);
            for (int i = span->start; i < span->end; i++)
                for (int h = g * group; h < (g + 1) * group && asking(f, i); h++) {
                    long row = (long)i * heads + h;
                    tile[filled++] = (Query){f->q + i * f->q_ld + h * d, out + row * d, m + row, s + row, seen(span, i)};
                    if (filled == MR) attend(filled, d, tile, panels, values, f->v_ld, span->tokens), filled = 0;
                }
            if (filled) attend(filled, d, tile, panels, values, f->v_ld, span->tokens);
        }
        for (int i = 0; i < f->tokens; i++)
            for (long row = (long)i * heads + g * group; row < (long)i * heads + (g + 1) * group; row++) {
                for (int j = 0; j < d && asking(f, i); j++) out[row * d + j] /= s[row];
                lse[row] = m[row] + logf(s[row]);
            }
    }
}

/* into[key] += sum over queries of weight[query][key] * rows[query], for m keys. */
INLINE void transposed_tile(const int m, int d, int queries, const float (*weight)[CHUNK], const float *const *rows, float *into, long ld) {
    for (int at = 0; at < d; at += W) {
        vf acc[MR];
        for (int i = 0; i < m; i++) acc[i] = load(into + i * ld + at);
        for (int j = 0; j < queries; j++) {
            vf row = load(rows[j] + at);
            for (int i = 0; i < m; i++) acc[i] += weight[j][i] * row;
        }
        for (int i = 0; i < m; i++) store(into + i * ld + at, acc[i]);
    }
}

static void transposed(int keys, int d, int queries, const float (*weight)[CHUNK], const float *const *rows, float *into, long ld) {
    for (int i = 0; i < keys; i += MR) {
        int m = keys - i < MR ? keys - i : MR;
        TILE(m, transposed_tile, d, queries, (const float (*)[CHUNK])(weight[0] + i), rows, into + i * ld, ld)
    }
}

typedef struct {
    const float *q[QUERIES], *grad[QUERIES];
    float *dq[QUERIES], lse[QUERIES], dot[QUERIES];
    int limit[QUERIES], n, most;
} Block;

/* What one segment's keys and values and some queries give each other. */
static void backward_block(Block *b, int d, const float *k_panels, const float *v_panels, const float *k, long k_ld, float *dk, float *dv,
                           long v_ld) {
    float p[QUERIES][CHUNK] __attribute__((aligned(64))), ds[QUERIES][CHUNK] __attribute__((aligned(64)));
    int every[MR];
    for (int i = 0; i < MR; i++) every[i] = 1 << 30;
    for (int first = 0; first < b->most; first += CHUNK) {
        int keys = b->most - first < CHUNK ? b->most - first : CHUNK;
        for (int i = 0; i < b->n; i += MR) {
            int m = b->n - i < MR ? b->n - i : MR;
            TILE(m, scores_tile, 0, 0, d, b->q + i, b->limit + i, k_panels + (long)first * d, 0, first, keys, p + i)
            TILE(m, scores_tile, 0, 0, d, b->grad + i, every, v_panels + (long)first * d, 0, first, keys, ds + i)
        }
        for (int i = 0; i < b->n; i++)
            for (int j = 0; j < keys; j += W) {
                vf e = vexp(load(p[i] + j) - b->lse[i]);
                store(p[i] + j, e);
                store(ds[i] + j, e * (load(ds[i] + j) - b->dot[i]));
            }
        for (int i = 0; i < b->n; i += MR) {
            int m = b->n - i < MR ? b->n - i : MR;
            TILE(m, weighted_tile, 0, 0, d, (const float (*)[CHUNK])(ds + i), k + first * k_ld, 0, k_ld, keys, b->dq + i)
        }
        transposed(keys, d, b->n, (const float (*)[CHUNK])ds, b->q, dk + first * k_ld, k_ld);
        transposed(keys, d, b->n, (const float (*)[CHUNK])p, b->grad, dv + first * v_ld, v_ld);
    }
    b->n = b->most = 0;
}

/* dq [tokens, heads, d], dk and dv [tokens, kv_heads, d], with rows as far apart as those of q, k and v, from the output, its gradient
   [tokens, heads, d] and the log-sums. */
static void attend_forest_backward(const Forest *f, const float *out, const float *lse, const float *grad, float *dq, float *dk, float *dv,
                                   float *work) {
    int d = f->d, heads = f->heads, group = heads / f->kv_heads;
    float *dot = work, *k_panels = work + (long)f->tokens * heads, *v_panels = k_panels + panel_floats(f);
    for (int g = f->from; g < f->to; g++) {
        for (int i = 0; i < f->tokens; i++) {
            memset(dk + i * f->k_ld + g * d, 0, sizeof(float) * d);
            memset(dv + i * f->v_ld + g * d, 0, sizeof(float) * d);
            for (long row = (long)i * heads + g * group; row < (long)i * heads + (g + 1) * group; row++) {
                vf total = (vf){0};
                for (int j = 0; j < d && asking(f, i); j += W) total += load(out + row * d + j) * load(grad + row * d + j);
                dot[row] = sum_of(total);
                memset(dq + i * f->q_ld + (row - (long)i * heads) * d, 0, sizeof(float) * d);
            }
        }
        for (const Span *span = f->span; span < f->span + f->spans; span++) {
            const float *k = f->k + span->start * f->k_ld + g * d;
            float *dk_own = dk + span->start * f->k_ld + g * d, *dv_own = dv + span->start * f->v_ld + g * d;
            panels_of(span->tokens, d, k, f->k_ld, k_panels);
            panels_of(span->tokens, d, f->v + span->start * f->v_ld + g * d, f->v_ld, v_panels);
            Block block = {.n = 0, .most = 0};
            for (int i = span->start; i < span->end; i++)
                for (int h = g * group; h < (g + 1) * group && asking(f, i); h++) {
                    long row = (long)i * heads + h;
                    int n = block.n++, limit = seen(span, i);
                    block.q[n] = f->q + i * f->q_ld + h * d, block.grad[n] = grad + row * d, block.dq[n] = dq + i * f->q_ld + h * d;
                    block.lse[n] = lse[row], block.dot[n] = dot[row], block.limit[n] = limit;
                    block.most = limit > block.most ? limit : block.most;
                    if (block.n == QUERIES) backward_block(&block, d, k_panels, v_panels, k, f->k_ld, dk_own, dv_own, f->v_ld);
                }
            if (block.n) backward_block(&block, d, k_panels, v_panels, k, f->k_ld, dk_own, dv_own, f->v_ld);
        }
    }
}
