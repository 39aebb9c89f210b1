/* Attention over a packed forest, forward and backward. Sums that run over tokens are formed in order, so a step gives the same bits
   whenever it is repeated. */
#pragma once
#include "attention.h"

enum { QUERIES = 32 }; /* whose scores the backward pass holds */

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

/* Floats of one span's keys or values in panels, of the widest one. */
static long widest_panel(const Forest *f) {
    long most = 0;
    for (int s = 0; s < f->spans; s++) most = f->span[s].tokens > most ? f->span[s].tokens : most;
    return (most + W - 1) / W * W * f->d;
}

/* What is shared by all spans, and what one of them needs. */
static long attend_shared(const Forest *f) { return (long)f->tokens * f->heads + 3L * (f->spans + 1); }
static long attend_part(const Forest *f) { return 2 * widest_panel(f) + 64; }

/* Spans of one depth have neither keys nor queries in common: they can be attended to beside each other. `order`: spans by depth;
   `begins`: where each depth begins in it, and last where all end; `depth` of each. Returns how many depths there are. */
static int by_depth(const Forest *f, int *order, int *begins, int *depth) {
    int depths = 0, *above = order;
    for (int s = 0; s < f->spans; s++) {
        int parent = s - 1;
        while (parent >= 0 && f->span[parent].end <= f->span[s].start) parent = above[parent];
        above[s] = parent, depth[s] = parent < 0 ? 0 : depth[parent] + 1;
        depths = depth[s] < depths ? depths : depth[s] + 1;
    }
    for (int found = 0, d = 0; d <= depths; begins[d++] = found)
        for (int s = 0; d && s < f->spans; s++)
            if (depth[s] == d - 1) order[found++] = s;
    return depths;
}

static int asking(const Forest *f, int token) { return !f->asks || f->asks[token]; }
static int seen(const Span *s, int token) { return token - s->start + 1 < s->tokens ? token - s->start + 1 : s->tokens; }

/* out [tokens, heads, d] and lse [tokens, heads], log-sums of exponentials, are formed in three: tokens [from, to) begin, every span is
   read by those below it, and when all have been, the tokens end. s: sums of exponentials [tokens, heads]. */
static void attend_begin(const Forest *f, int from, int to, float *out, float *lse, float *s) {
    int group = f->heads / f->kv_heads;
    for (int i = from; i < to; i++)
        for (long row = (long)i * f->heads + f->from * group; row < (long)i * f->heads + f->to * group; row++) {
            memset(out + row * f->d, 0, sizeof(float) * f->d);
            lse[row] = -1e30f, s[row] = 0; /* until they end, lse holds the largest scores */
        }
}

static void attend_span(const Forest *f, const Span *span, int g, float *out, float *lse, float *s, float *panels) {
    int d = f->d, heads = f->heads, group = heads / f->kv_heads, filled = 0;
    Query tile[MR];
    const float *values = f->v + span->start * f->v_ld + g * d;
    panels_of(span->tokens, d, f->k + span->start * f->k_ld + g * d, f->k_ld, panels);
    for (int i = span->start; i < span->end; i++)
        for (int h = g * group; h < (g + 1) * group && asking(f, i); h++) {
            long row = (long)i * heads + h;
            tile[filled++] = (Query){f->q + i * f->q_ld + h * d, out + row * d, lse + row, s + row, seen(span, i)};
            if (filled == MR) attend(filled, d, tile, panels, values, f->v_ld, span->tokens), filled = 0;
        }
    if (filled) attend(filled, d, tile, panels, values, f->v_ld, span->tokens);
}

static void attend_end(const Forest *f, int from, int to, float *out, float *lse, const float *s) {
    int group = f->heads / f->kv_heads;
    for (int i = from; i < to; i++)
        for (long row = (long)i * f->heads + f->from * group; row < (long)i * f->heads + f->to * group; row++) {
            for (int j = 0; j < f->d && asking(f, i); j++) out[row * f->d + j] /= s[row];
            lse[row] += logf(s[row]);
        }
}

/* into[key] += sum over queries of weight[query][key] * rows[query], for m keys and n vectors. */
INLINE void transposed_vectors(const int m, const int n, int queries, const float (*weight)[CHUNK], const float *const *rows, float *into,
                               long ld, int at) {
    vf acc[MR][NV];
    for (int i = 0; i < m; i++)
        for (int v = 0; v < n; v++) acc[i][v] = load(into + i * ld + at + v * W);
    for (int j = 0; j < queries; j++)
        for (int v = 0; v < n; v++) {
            vf row = load(rows[j] + at + v * W);
            for (int i = 0; i < m; i++) acc[i][v] += weight[j][i] * row;
        }
    for (int i = 0; i < m; i++)
        for (int v = 0; v < n; v++) store(into + i * ld + at + v * W, acc[i][v]);
}

INLINE void transposed_tile(const int m, int d, int queries, const float (*weight)[CHUNK], const float *const *rows, float *into, long ld) {
    int at = 0;
    for (; at + NR <= d; at += NR) transposed_vectors(m, NV, queries, weight, rows, into, ld, at);
    for (; at < d; at += W) transposed_vectors(m, 1, queries, weight, rows, into, ld, at);
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
   [tokens, heads, d] and the log-sums: tokens [from, to) begin, then every span gives and takes, those of lesser depth first.
   dot [tokens, heads]. */
static void attend_backward_begin(const Forest *f, int from, int to, const float *out, const float *grad, float *dq, float *dk, float *dv,
                                  float *dot) {
    int d = f->d, heads = f->heads, group = heads / f->kv_heads;
    for (int i = from; i < to; i++)
        for (int g = f->from; g < f->to; g++) {
            memset(dk + i * f->k_ld + g * d, 0, sizeof(float) * d);
            memset(dv + i * f->v_ld + g * d, 0, sizeof(float) * d);
            for (long row = (long)i * heads + g * group; row < (long)i * heads + (g + 1) * group; row++) {
                vf total = (vf){0};
                for (int j = 0; j < d && asking(f, i); j += W) total += load(out + row * d + j) * load(grad + row * d + j);
                dot[row] = sum_of(total);
                memset(dq + i * f->q_ld + (row - (long)i * heads) * d, 0, sizeof(float) * d);
            }
        }
}

static void attend_backward_span(const Forest *f, const Span *span, int g, const float *lse, const float *grad, const float *dot, float *dq,
                                 float *dk, float *dv, float *panels) {
    int d = f->d, heads = f->heads, group = heads / f->kv_heads;
    const float *k = f->k + span->start * f->k_ld + g * d;
    float *dk_own = dk + span->start * f->k_ld + g * d, *dv_own = dv + span->start * f->v_ld + g * d;
    float *k_panels = panels, *v_panels = panels + widest_panel(f);
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

/* All of these heads by one thread. work: floats of `attend_work`. */
static long attend_work(const Forest *f) { return (long)f->tokens * f->heads + attend_part(f); }

static void attend_forest(const Forest *f, float *out, float *lse, float *work) {
    float *s = work, *panels = s + (long)f->tokens * f->heads;
    attend_begin(f, 0, f->tokens, out, lse, s);
    for (int g = f->from; g < f->to; g++)
        for (int i = 0; i < f->spans; i++) attend_span(f, f->span + i, g, out, lse, s, panels);
    attend_end(f, 0, f->tokens, out, lse, s);
}

static void attend_forest_backward(const Forest *f, const float *out, const float *lse, const float *grad, float *dq, float *dk, float *dv,
                                   float *work) {
    float *dot = work, *panels = dot + (long)f->tokens * f->heads;
    attend_backward_begin(f, 0, f->tokens, out, grad, dq, dk, dv, dot);
    for (int g = f->from; g < f->to; g++)
        for (int i = 0; i < f->spans; i++) attend_backward_span(f, f->span + i, g, lse, grad, dot, dq, dk, dv, panels);
}
