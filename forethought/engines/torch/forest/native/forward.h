/* The forward of a decoder (RMSNorm, rotary positions, grouped attention, gated MLP) over tokens that stand in segments of a tree. One call
   computes any tokens whose ancestors are kept already or come before them in the call: a whole forest of contexts, or one token for each
   row. Several threads share a call: blocks of its rows where it has many, else the columns of each product. */
#pragma once
#include "activations.h"
#include "attention.h"
#include "crew.h"
#include "product.h"

typedef struct {
    const float *norm1, *norm2, *q_norm, *k_norm, *qkv_bias, *o_bias, *gate_up_bias, *down_bias; /* null where there is none */
    const void *qkv, *o, *gate_up, *down;                                                      /* packed */
} Layer;

typedef struct {
    int layers, hidden, heads, kv_heads, d, inner, vocabulary, way; /* way: of products (`product.h`) */
    float eps, scale;
    const float *embed, *norm, *cos, *sin, *head_bias; /* cos, sin: [positions, d / 2] */
    const void *head;
    const Layer *layer;
} Model;

typedef struct {
    int segment, keys, from, to, causal; /* tokens [from, to) of the call see the first `keys` keys, or causally the ones up to their own */
} Item;

typedef struct {
    const Model *M;
    const Layer *L;
    int l, N, rows, items, outs, threads; /* rows: that go on behind the attention of this layer */
    const int32_t *id, *position, *segment, *at, *cap, *out;
    float *const *base;
    const Item *item;
    const uint8_t *asks; /* tokens whose attention is wanted in this layer; null: all */
    const Activations *leaves; /* where the tokens leave what they compute, in order; null: nowhere */
    Left left;
    float *x, *qkv, *o, *m, *s, *y, *gate_up, *spare; /* spare: `spare_of` for each thread */
    long spare_of;
    /* Each token reads a segment of its own, in which no other token of the call reads its keys, and that by a causal item of its own: they
       are kept just before that, so that what they lie beside comes into the cache once, and not once to be written and once to be read. */
    int alone;
} Call;

enum {
    ROWS = 16,    /* of a chunk of what is done row by row */
    PORTIONS = 2, /* chunks of a product's columns for each thread */
    LINE = 16     /* floats of a line of the cache */
};

static int half_of(const Model *M) { return M->way != FLOATS; } /* keys and values are kept in bfloat16 */
static int width_of(const Model *M) { return (M->heads + 2 * M->kv_heads) * M->d; }
/* Floats of a row of gate_up: an odd number of cache lines, else a tile's rows lie in few sets of the cache. */
static int gated_of(const Model *M) { return ((2 * M->inner + 15) / 16 | 1) * 16; }
static int chunks_of(int n, int size) { return (n + size - 1) / size; }
static int fewer(int a, int b) { return a < b ? a : b; }

/* Rows of y and of gate_up. Of more tokens than these, each thread takes blocks. */
static int rows_at_once(int threads) { return threads == 1 ? BLOCK : 2 * BLOCK * threads; }

/* Floats of a product's work space. */
static long spare_of(const Model *M) {
    int widest = M->hidden > M->inner ? M->hidden : M->inner, heads = M->heads * M->d;
    return product_work(widest > heads ? widest : heads, M->way);
}

/* ---- products, by columns */

typedef struct {
    const Call *c;
    int rows, N, K, step, add;
    const float *a;
    long lda, ldc;
    const void *b;
    float *out;
    const float *bias;
} Columns;

static void columns(void *job, int chunk, int thread) {
    const Columns *p = job;
    int way = p->c->M->way, j = chunk * p->step;
    product(way, p->rows, fewer(p->step, p->N - j), p->K, p->a, p->lda, (const float *)p->b + packed_size(j, p->K, way), p->out + j, p->ldc,
            p->bias ? p->bias + j : 0, p->add, p->c->spare + thread * p->c->spare_of);
}

/* out[rows, N] = a[rows, K] times a packed matrix, in which panels of columns follow each other. */
static void times(const Call *c, int rows, int N, int K, const float *a, long lda, const void *b, float *out, long ldc, const float *bias,
                  int add) {
    int step = NR * chunks_of(chunks_of(N, NR), c->threads == 1 ? 1 : PORTIONS * c->threads);
    Columns p = {c, rows, N, K, step, add, a, lda, ldc, b, out, bias};
    in_parallel(c->threads, chunks_of(N, step), columns, &p);
}

/* ---- rows */

static void norm_row(int n, const float *x, const float *w, float eps, float *y) {
    vf total = (vf){0};
    float rest = 0;
    int j = 0;
    for (; j + W <= n; j += W) total += load(x + j) * load(x + j);
    for (int k = j; k < n; k++) rest += x[k] * x[k];
    float r = 1.0f / sqrtf((sum_of(total) + rest) / n + eps);
    for (int k = 0; k < n; k++) y[k] = x[k] * r * w[k];
}

static void norm_rows(const Call *c, const float *w, int from, int n, float *y) {
    int H = c->M->hidden;
    for (int i = 0; i < n; i++) norm_row(H, c->x + (long)(from + i) * H, w, c->M->eps, y + (long)i * H);
}

static void rotate_head(int d, float *x, const float *cos, const float *sin, float scale) {
    for (int j = 0; j < d / 2; j++) {
        float a = x[j], b = x[j + d / 2];
        x[j] = (a * cos[j] - b * sin[j]) * scale;
        x[j + d / 2] = (b * cos[j] + a * sin[j]) * scale;
    }
}

/* Where layer l and head of keys g of a segment begin: keys in panels, then values [cap, d]; half as many floats in bfloat16. */
static float *keys_of(const Model *M, float *base, int cap, int l, int g) {
    return base + ((long)l * M->kv_heads + g) * 2 * cap * M->d / (half_of(M) ? 2 : 1);
}

static void keep(const Model *M, float *panels, int room, int at, const float *k, const float *v) {
    int d = M->d;
    if (half_of(M)) {
        float *keys = panels + (long)(at / W) * (d / 2) * W + at % W;
        uint16_t *values = (uint16_t *)panels + (long)room * d + (long)(at / 2) * 2 * d + at % 2;
        for (int j = 0; j < d; j += W) {
            float pairs[W / 2];
            uint16_t one[W];
            *(vh *)pairs = rounded(load(k + j), ROUNDED), *(vh *)one = rounded(load(v + j), ROUNDED);
            for (int i = 0; i < W / 2; i++) memcpy(keys + (j / 2 + i) * W, pairs + i, sizeof(float));
            for (int i = 0; i < W; i++) values[2 * (j + i)] = one[i];
        }
    } else {
        float *keys = panels + (long)(at / W) * d * W + at % W;
        for (int j = 0; j < d; j++) keys[j * W] = k[j];
        memcpy(panels + (long)room * d + (long)at * d, v, sizeof(float) * d);
    }
}

/* Head g of keys and values of token i. */
static void keep_head(const Call *c, int i, int g) {
    const Model *M = c->M;
    int room = c->cap[c->segment[i]];
    const float *k = c->qkv + (long)i * width_of(M) + (M->heads + g) * M->d;
    keep(M, keys_of(M, c->base[c->segment[i]], room, c->l, g), room, c->at[i], k, k + M->kv_heads * M->d);
}

/* Where they will be kept is fetched: a key lies in as many lines of the cache as it has numbers. */
static void fetch_place(const Call *c, int i, int g) {
    const Model *M = c->M;
    int room = c->cap[c->segment[i]], half = half_of(M);
    const float *panels = keys_of(M, c->base[c->segment[i]], room, c->l, g);
    const float *keys = panels + (long)(c->at[i] / W) * W * M->d / (half ? 2 : 1);
    const float *values = panels + (half ? (long)room * M->d / 2 + (long)(c->at[i] / 2) * M->d : ((long)room + c->at[i]) * M->d);
    for (int j = 0; j < W * M->d / (half ? 2 : 1); j += LINE) __builtin_prefetch(keys + j, 1);
    for (int j = 0; j < M->d; j += LINE) __builtin_prefetch(values + j, 1);
}

/* ---- what tokens leave (`activations.h`) */

/* Of a row that goes on behind the attention, its token. */
static int token_of(const Call *c, int row) { return c->asks ? c->out[row] : row; }

static float *left_by(const Call *c, int token) {
    return c->leaves->at + ((long)c->l * c->leaves->room + c->leaves->used + token) * c->left.width;
}

/* What goes into the layer; queries, keys and values, of which attention reads the last two as they are kept. */
static void leave_in(const Call *c, int from, int n) {
    const Model *M = c->M;
    int H = M->hidden, width = width_of(M);
    for (int i = from; i < from + n; i++) {
        float *left = left_by(c, i), *kept = left + c->left.qkv + M->heads * M->d;
        memcpy(left + c->left.x, c->x + (long)i * H, sizeof(float) * H);
        memcpy(left + c->left.qkv, c->qkv + (long)i * width, sizeof(float) * width);
        for (int j = 0; half_of(M) && j < 2 * M->kv_heads * M->d; j++) kept[j] = float_of(bf16_of(kept[j]));
    }
}

/* Of heads [from, to) of a token. */
static void leave_attended(const Call *c, int token, int from, int to) {
    int d = c->M->d;
    long row = (long)token * c->M->heads;
    float *left = left_by(c, token);
    memcpy(left + c->left.out + from * d, c->o + (row + from) * d, sizeof(float) * (to - from) * d);
    for (int h = from; h < to; h++) left[c->left.lse + h] = c->m[row + h] + logf(c->s[row + h]);
}

static void leave_middle(const Call *c, int from, int n) {
    int H = c->M->hidden;
    for (int i = from; i < from + n; i++) memcpy(left_by(c, token_of(c, i)) + c->left.middle, c->x + (long)i * H, sizeof(float) * H);
}

static void leave_gates(const Call *c, int from, int n, const float *gate_up) {
    int F = c->M->inner;
    for (int i = 0; i < n; i++)
        memcpy(left_by(c, token_of(c, from + i)) + c->left.gate, gate_up + (long)i * gated_of(c->M), 2 * sizeof(float) * F);
}

/* Queries and keys of rows are turned; keys and values are kept, where not each token is `alone`. */
static void turn_rows(const Call *c, int from, int n) {
    const Model *M = c->M;
    int d = M->d, width = width_of(M);
    for (int i = from; i < from + n; i++) {
        float *row = c->qkv + (long)i * width;
        const float *cos = M->cos + (long)c->position[i] * (d / 2), *sin = M->sin + (long)c->position[i] * (d / 2);
        for (int h = 0; h < M->heads + M->kv_heads; h++) {
            const float *w = h < M->heads ? c->L->q_norm : c->L->k_norm;
            if (w) norm_row(d, row + h * d, w, M->eps, row + h * d);
            rotate_head(d, row + h * d, cos, sin, h < M->heads ? M->scale : 1.0f);
        }
        for (int g = 0; g < M->kv_heads && !c->alone; g++) keep_head(c, i, g);
    }
    if (c->leaves) leave_in(c, from, n);
}

/* Rows [from, from + n) behind the attention; gate_up: the first one's. */
static void gate_rows(const Call *c, int from, int n, float *gate_up) {
    int F = c->M->inner;
    if (c->leaves) leave_gates(c, from, n, gate_up);
    for (int i = 0; i < n; i++) {
        float *g = gate_up + (long)i * gated_of(c->M), *u = g + F;
        int j = 0;
        for (; j + W <= F; j += W) store(g + j, load(g + j) / (1.0f + vexp(-load(g + j))) * load(u + j));
        for (; j < F; j++) g[j] = g[j] / (1.0f + expf(-g[j])) * u[j];
    }
}

/* ---- attention */

/* Where the keys begin that are read after those of head k of an item: of its next head or of the next item's head g; null behind all. */
static const float *keys_after(const Call *c, const Item *t, int k, int g, int to) {
    if (k + 1 == to && ++t == c->item + c->items) return 0;
    return keys_of(c->M, c->base[t->segment], c->cap[t->segment], c->l, k + 1 < to ? k + 1 : g);
}

/* Of heads of keys [g, to) for tokens [from, end). */
static void attend_part(const Call *c, int from, int end, int g, int to) {
    const Model *M = c->M;
    int d = M->d, heads = M->heads, group = heads / M->kv_heads, width = width_of(M), half = half_of(M);
    void (*look)(int, int, Query *, const float *, const float *, int, const float *) = half ? attend_half : attend_floats;
    for (int i = from; i < end; i++)
        for (long row = (long)i * heads + g * group; row < (long)i * heads + to * group; row++) {
            memset(c->o + row * d, 0, sizeof(float) * d);
            c->s[row] = 0, c->m[row] = -1e30f;
        }
    for (const Item *t = c->item; t < c->item + c->items; t++) {
        int first = t->from > from ? t->from : from, last = fewer(t->to, end);
        for (int k = g; k < to && first < last; k++) { /* in the order in which they lie in memory */
            int room = c->cap[t->segment], filled = 0;
            const float *panels = keys_of(M, c->base[t->segment], room, c->l, k), *values = panels + (long)room * d / (half ? 2 : 1);
            const float *after = keys_after(c, t, k, g, to);
            Query tile[MR];
            if (c->alone && t->causal) {
                if (k + 1 < to) fetch_place(c, first, k + 1);
                else if (last < end) fetch_place(c, last, g);
                keep_head(c, first, k);
            }
            for (int i = first; i < last; i++)
                for (int h = k * group; h < (k + 1) * group && (!c->asks || c->asks[i]); h++) {
                    long row = (long)i * heads + h;
                    tile[filled++] = (Query){c->qkv + (long)i * width + h * d, c->o + row * d, c->m + row, c->s + row,
                                             t->causal ? c->at[i] + 1 : t->keys};
                    if (filled == MR) look(filled, d, tile, panels, values, t->keys, after), filled = 0;
                }
            if (filled) look(filled, d, tile, panels, values, t->keys, after);
        }
    }
    for (int i = from; i < end; i++)
        for (long row = (long)i * heads + g * group; row < (long)i * heads + to * group; row++)
            for (int j = 0; j < d && c->s[row] > 0; j++) c->o[row * d + j] /= c->s[row];
    for (int i = from; c->leaves && i < end; i++)
        if (!c->asks || c->asks[i]) leave_attended(c, i, g * group, to * group);
}

static int tokens_of(const Call *c) { return c->N < 2 * c->threads ? c->N : chunks_of(c->N, 4 * c->threads); } /* of a chunk */

static void attend_chunk(void *job, int chunk, int thread) {
    const Call *c = job;
    int tokens = tokens_of(c), from = chunk * tokens;
    if (tokens == c->N) attend_part(c, 0, c->N, chunk, chunk + 1);
    else attend_part(c, from, fewer(from + tokens, c->N), 0, c->M->kv_heads);
}

static void attention(const Call *c) {
    if (c->threads == 1) attend_part(c, 0, c->N, 0, c->M->kv_heads);
    else in_parallel(c->threads, tokens_of(c) == c->N ? c->M->kv_heads : chunks_of(c->N, tokens_of(c)), attend_chunk, (void *)c);
}

/* ---- a layer, by blocks of rows */

static float *own(const Call *c, float *rows, int width, int thread) { return rows + (long)thread * BLOCK * width; }

static void project_block(void *job, int block, int thread) {
    const Call *c = job;
    const Model *M = c->M;
    int from = block * BLOCK, n = fewer(BLOCK, c->N - from), H = M->hidden, width = width_of(M);
    float *y = own(c, c->y, H, thread);
    norm_rows(c, c->L->norm1, from, n, y);
    product(M->way, n, width, H, y, H, c->L->qkv, c->qkv + (long)from * width, width, c->L->qkv_bias, 0, c->spare + thread * c->spare_of);
    turn_rows(c, from, n);
}

static void feed_block(void *job, int block, int thread) {
    const Call *c = job;
    const Model *M = c->M;
    const Layer *L = c->L;
    int from = block * BLOCK, n = fewer(BLOCK, c->rows - from), H = M->hidden, F = M->inner, A = M->heads * M->d, gated = gated_of(M);
    float *y = own(c, c->y, H, thread), *gate_up = own(c, c->gate_up, gated, thread), *spare = c->spare + thread * c->spare_of;
    float *x = c->x + (long)from * H;
    product(M->way, n, H, A, c->o + (long)from * A, A, L->o, x, H, L->o_bias, 1, spare);
    if (c->leaves) leave_middle(c, from, n);
    norm_rows(c, L->norm2, from, n, y);
    product(M->way, n, 2 * F, H, y, H, L->gate_up, gate_up, gated, L->gate_up_bias, 0, spare);
    gate_rows(c, from, n, gate_up);
    product(M->way, n, H, F, gate_up, gated, L->down, x, H, L->down_bias, 1, spare);
}

/* ---- a layer, by columns */

static void norm1_some(void *job, int chunk, int thread) {
    const Call *c = job;
    int from = chunk * ROWS;
    norm_rows(c, c->L->norm1, from, fewer(ROWS, c->N - from), c->y + (long)from * c->M->hidden);
}

static void norm2_some(void *job, int chunk, int thread) {
    const Call *c = job;
    int from = chunk * ROWS, n = fewer(ROWS, c->rows - from);
    if (c->leaves) leave_middle(c, from, n);
    norm_rows(c, c->L->norm2, from, n, c->y + (long)from * c->M->hidden);
}

static void turn_some(void *job, int chunk, int thread) {
    const Call *c = job;
    turn_rows(c, chunk * ROWS, fewer(ROWS, c->N - chunk * ROWS));
}

static void gate_some(void *job, int chunk, int thread) {
    const Call *c = job;
    int from = chunk * ROWS;
    gate_rows(c, from, fewer(ROWS, c->rows - from), c->gate_up + (long)from * gated_of(c->M));
}

static void project_columns(Call *c) {
    int H = c->M->hidden;
    in_parallel(c->threads, chunks_of(c->N, ROWS), norm1_some, c);
    times(c, c->N, width_of(c->M), H, c->y, H, c->L->qkv, c->qkv, width_of(c->M), c->L->qkv_bias, 0);
    in_parallel(c->threads, chunks_of(c->N, ROWS), turn_some, c);
}

static void feed_columns(Call *c) {
    const Layer *L = c->L;
    int H = c->M->hidden, F = c->M->inner, A = c->M->heads * c->M->d, gated = gated_of(c->M), some = chunks_of(c->rows, ROWS);
    times(c, c->rows, H, A, c->o, A, L->o, c->x, H, L->o_bias, 1);
    in_parallel(c->threads, some, norm2_some, c);
    times(c, c->rows, 2 * F, H, c->y, H, L->gate_up, c->gate_up, gated, L->gate_up_bias, 0);
    in_parallel(c->threads, some, gate_some, c);
    times(c, c->rows, H, F, c->gate_up, gated, L->down, c->x, H, L->down_bias, 1);
}

/* ---- the whole */

/* Rows `out` of x, width floats each, to its front: they ascend, so none is overwritten before it is read. */
static void to_front(int outs, const int32_t *out, int width, float *x) {
    for (int i = 0; i < outs; i++) memmove(x + (long)i * width, x + (long)out[i] * width, sizeof(float) * width);
}

/* Floats of work space for a call of N tokens. */
static long forward_work(const Model *M, int N, int threads) {
    long per_token = M->hidden + (long)(2 * M->heads + 2 * M->kv_heads) * M->d + 2 * M->heads;
    return N * (per_token + 1) + rows_at_once(threads) * ((long)M->hidden + gated_of(M)) + threads * spare_of(M) + 64;
}

/* logits[outs][vocabulary] after the tokens `out`. */
static void head(const Call *c, float *logits) {
    const Model *M = c->M;
    int H = M->hidden, most = rows_at_once(c->threads);
    for (int from = 0; from < c->outs; from += most) {
        int n = fewer(most, c->outs - from);
        norm_rows(c, M->norm, from, n, c->y);
        times(c, n, M->vocabulary, H, c->y, H, M->head, logits + (long)from * M->vocabulary, M->vocabulary, M->head_bias, 0);
    }
}

static void forward(Call *c, float *logits, float *work) {
    const Model *M = c->M;
    int N = c->N, H = M->hidden, A = M->heads * M->d, by_blocks = c->threads == 1 || N >= rows_at_once(c->threads);
    c->x = work, c->qkv = c->x + (long)N * H, c->o = c->qkv + (long)N * width_of(M), c->m = c->o + (long)N * A;
    c->s = c->m + (long)N * M->heads, c->y = c->s + (long)N * M->heads, c->gate_up = c->y + (long)rows_at_once(c->threads) * H;
    c->spare = c->gate_up + (long)rows_at_once(c->threads) * gated_of(M), c->spare_of = spare_of(M);
    c->left = left_of(H, M->heads, M->kv_heads, M->d, M->inner);
    uint8_t *asks = (uint8_t *)(c->spare + c->threads * c->spare_of);
    memset(asks, 0, N);
    for (int i = 0; i < c->outs; i++) asks[c->out[i]] = 1;
    for (int i = 0; i < N; i++) memcpy(c->x + (long)i * H, M->embed + (long)c->id[i] * H, sizeof(float) * H);
    for (c->l = 0; c->l < M->layers; c->l++) {
        int last = c->l == M->layers - 1; /* in the last layer those that nobody asks for give keys and values alone */
        c->L = M->layer + c->l, c->rows = last ? c->outs : N, c->asks = last ? asks : 0;
        if (by_blocks) in_parallel(c->threads, chunks_of(N, BLOCK), project_block, c);
        else project_columns(c);
        attention(c);
        if (last) to_front(c->outs, c->out, H, c->x), to_front(c->outs, c->out, A, c->o);
        if (by_blocks) in_parallel(c->threads, chunks_of(c->rows, BLOCK), feed_block, c);
        else feed_columns(c);
    }
    for (int i = 0; c->leaves && i < c->outs; i++)
        memcpy(c->leaves->last + (c->leaves->used + c->out[i]) * H, c->x + (long)i * H, sizeof(float) * H);
    head(c, logits);
}
