/* A training step: one layer of a decoder (RMSNorm, rotary positions, attention over a packed forest, gated MLP) as one call, forward and
   backward, and its parts as calls of their own for layers that are put together otherwise (adapters, norms of queries). */
#include "forest.h"
#include "pointwise.h"
#include "product.h"

typedef struct {
    int tokens, hidden, heads, kv_heads, d, inner, spans, bf16; /* bf16: products round their factors to bfloat16 */
    float eps, scale;
    const Span *span;
    int wanted; /* of the tokens, those whose output is read: all, or fewer in a last layer, where the others give keys and values alone */
    const int32_t *row; /* [wanted], ascending; null: all */
    const uint8_t *asks; /* [tokens], the same as a mask; null: all */
    const float *cos, *sin; /* [tokens, d / 2] */
    const float *norm1, *norm2, *q, *k, *v, *o, *gate, *up, *down; /* [out, in] */
    const float *q_bias, *k_bias, *v_bias, *o_bias; /* null where there is none */
} Layer;

typedef struct { /* what the backward pass reads, beside the layer's input */
    float *r1, *lse, *qkv, *out;       /* of all tokens; qkv [tokens, (heads + 2 kv_heads) d]: rotated, queries scaled */
    float *r2, *middle, *gate, *up;    /* of the wanted ones */
} Kept;

typedef struct { /* null: not wanted */
    float *norm1, *norm2, *qkv, *qkv_bias, *o, *o_bias, *gate, *up, *down;
} Gradients;

static int width_of(const Layer *L) { return (L->heads + 2 * L->kv_heads) * L->d; }
static int rows_of(int rows, int from) { return rows - from < BLOCK ? rows - from : BLOCK; }

/* Rows of the wanted tokens [from, from + n), width numbers each, beside each other: where they stand, or copied to `into`. */
static const float *gathered(const Layer *L, int from, int n, int width, const float *x, float *into) {
    if (!L->row) return x + (long)from * width;
    for (int i = 0; i < n; i++) memcpy(into + (long)i * width, x + (long)L->row[from + i] * width, sizeof(float) * width);
    return into;
}

static Forest forest_of(const Layer *L, const float *qkv) {
    long ld = width_of(L);
    return (Forest){L->tokens, L->heads, L->kv_heads, L->d, L->spans, 0, L->kv_heads, L->asks, L->span,
                    qkv, qkv + L->heads * L->d, qkv + (L->heads + L->kv_heads) * L->d, ld, ld, ld};
}

/* Floats of work space. The last ones, as many as all widths times BLOCK, hold what a product or a transposed one reads in bfloat16. */
long ft_layer_work(const Layer *L) {
    Forest f = forest_of(L, 0);
    long H = L->hidden, F = L->inner, A = (long)L->heads * L->d, K = width_of(L);
    long packed = packed_size(K, H, 0) + packed_size(H, A, 0) + 2 * packed_size(F, H, 0) + packed_size(H, F, 0) + packed_size(H, K, 0) +
                  packed_size(A, H, 0) + packed_size(F, H, 0) + 2 * packed_size(H, F, 0);
    return packed + K + H + 2 * NR + BLOCK * (4 * H + 4 * F + A) + L->tokens * (A + K) + attend_work(&f) + BLOCK * (K + A + H + F) + 8 * NR;
}

static void times(const Layer *L, int M, int N, int K, const float *a, const float *b, float *c, const float *bias, int add, float *work) {
    if (L->bf16) product_bf16(M, N, K, a, K, (const uint32_t *)b, c, N, bias, add, (uint32_t *)work);
    else product_f32(M, N, K, a, K, b, c, N, bias, add);
}

static void times_transposed(const Layer *L, int M, int N, int K, const float *a, const float *b, float *c, float *work) {
    if (L->bf16) product_transposed_bf16(M, N, K, a, M, b, N, c, N, (uint32_t *)work);
    else product_transposed(M, N, K, a, M, b, N, c, N);
}

static float *packed_left(const Layer *L, int n, int K, const float *const *w, const int *rows, float **work) {
    int total = 0, from = 0;
    for (int i = 0; i < n; i++) total += rows[i];
    float *packed = *work;
    long size = packed_size(total, K, L->bf16);
    *work += size;
    if (total % NR || K % 2) memset(packed, 0, sizeof(float) * size);
    for (int i = 0; i < n; from += rows[i++]) pack_rows(from, rows[i], K, w[i], packed, L->bf16);
    return packed;
}

static float *packed_right(const Layer *L, int n, int N, const float *const *w, const int *rows, float **work) {
    int total = 0, from = 0;
    for (int i = 0; i < n; i++) total += rows[i];
    float *packed = *work;
    long size = packed_size(N, total, L->bf16);
    *work += size;
    if (N % NR || total % 2) memset(packed, 0, sizeof(float) * size);
    for (int i = 0; i < n; from += rows[i++]) pack_right(from, rows[i], total, N, w[i], packed, L->bf16);
    return packed;
}

static void turn(const Layer *L, int heads, int from, int n, float *x, float scale, float direction) {
    int half = L->d / 2;
    for (int i = from; i < from + n; i++) {
        const float *cos = L->cos + (long)i * half, *sin = L->sin + (long)i * half;
        for (int h = 0; h < heads; h++) {
            float *a = x + (long)i * width_of(L) + h * L->d, *b = a + half;
            for (int j = 0; j < half; j++) {
                float u = a[j] * scale, w = b[j] * scale, s = sin[j] * direction;
                a[j] = u * cos[j] - w * s;
                b[j] = w * cos[j] + u * s;
            }
        }
    }
}

/* y [wanted, hidden] from x [tokens, hidden]. */
void ft_layer(const Layer *L, const float *x, const Kept *kept, float *y, float *work) {
    int H = L->hidden, F = L->inner, A = L->heads * L->d, K = width_of(L), kv = L->kv_heads * L->d;
    float *bias = 0, *o_bias = 0, *block, *act;
    const float *qkv = packed_left(L, 3, H, (const float *[]){L->q, L->k, L->v}, (int[]){A, kv, kv}, &work);
    const float *o = packed_left(L, 1, A, &L->o, &H, &work), *gate_w = packed_left(L, 1, H, &L->gate, &F, &work);
    const float *up = packed_left(L, 1, H, &L->up, &F, &work), *down = packed_left(L, 1, F, &L->down, &H, &work);
    if (L->q_bias) {
        bias = work, work += K + NR;
        memcpy(bias, L->q_bias, sizeof(float) * A);
        memcpy(bias + A, L->k_bias, sizeof(float) * kv);
        memcpy(bias + A + kv, L->v_bias, sizeof(float) * kv);
        memset(bias + K, 0, sizeof(float) * NR);
    }
    if (L->o_bias) {
        o_bias = work, work += H + NR;
        memcpy(o_bias, L->o_bias, sizeof(float) * H);
        memset(o_bias + H, 0, sizeof(float) * NR);
    }
    block = work, act = block + (long)BLOCK * H, work = act + (long)BLOCK * (F + A);
    for (int from = 0; from < L->tokens; from += BLOCK) {
        int n = rows_of(L->tokens, from);
        norm(n, H, x + (long)from * H, L->norm1, L->eps, block, kept->r1 + from);
        times(L, n, K, H, block, qkv, kept->qkv + (long)from * K, bias, 0, work);
        turn(L, L->heads, from, n, kept->qkv, L->scale, 1);
        turn(L, L->kv_heads, from, n, kept->qkv + A, 1, 1);
    }
    Forest f = forest_of(L, kept->qkv);
    attend_forest(&f, kept->out, kept->lse, work);
    for (int from = 0; from < L->wanted; from += BLOCK) {
        int n = rows_of(L->wanted, from);
        float *middle = kept->middle + (long)from * H, *to = y + (long)from * H;
        float *g = kept->gate + (long)from * F, *u = kept->up + (long)from * F;
        memcpy(middle, gathered(L, from, n, H, x, block), sizeof(float) * n * H);
        times(L, n, H, A, gathered(L, from, n, A, kept->out, act), o, middle, o_bias, 1, work);
        norm(n, H, middle, L->norm2, L->eps, block, kept->r2 + from);
        times(L, n, F, H, block, gate_w, g, 0, 0, work);
        times(L, n, F, H, block, up, u, 0, 0, work);
        gate((long)n * F, g, u, act);
        memcpy(to, middle, sizeof(float) * n * H);
        times(L, n, H, F, act, down, to, 0, 1, work);
    }
}

static void unit(int n, int H, const float *x, const float *r, const float *w, float *y) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < H; j++) y[(long)i * H + j] = x[(long)i * H + j] * r[i] * w[j];
}

static void add_rows(int n, int width, const float *x, float *into) {
    for (int i = 0; i < n; i++, x += width)
        for (int j = 0; j < width; j++) into[j] += x[j];
}

/* dx += what flows through a norm. */
static void through_norm(int n, int H, const float *x, const float *w, const float *r, const float *grad, float *dx, float *dw,
                         float *work) {
    norm_backward(n, H, x, w, r, grad, work, dw);
    for (long j = 0; j < (long)n * H; j++) dx[j] += work[j];
}

/* dx [tokens, hidden] from dy [wanted, hidden]; gradients of the weights are added up where they are wanted. */
void ft_layer_backward(const Layer *L, const float *x, const Kept *kept, const float *dy, float *dx, const Gradients *g, float *work) {
    int H = L->hidden, F = L->inner, A = L->heads * L->d, K = width_of(L), kv = L->kv_heads * L->d;
    const float *down = packed_right(L, 1, F, &L->down, &H, &work), *gate_w = packed_right(L, 1, H, &L->gate, &F, &work);
    const float *up = packed_right(L, 1, H, &L->up, &F, &work), *o = packed_right(L, 1, A, &L->o, &H, &work);
    const float *qkv = packed_right(L, 3, H, (const float *[]){L->q, L->k, L->v}, (int[]){A, kv, kv}, &work);
    float *block = work, *d_block = block + (long)BLOCK * H, *spare = d_block + (long)BLOCK * H, *d_middle = spare + (long)BLOCK * H;
    float *act = d_middle + (long)BLOCK * H, *d_act = act + (long)BLOCK * F, *d_gate = d_act + (long)BLOCK * F;
    float *d_up = d_gate + (long)BLOCK * F, *some = d_up + (long)BLOCK * F;
    float *d_out = some + (long)BLOCK * A, *d_qkv = d_out + (long)L->tokens * A;
    work = d_qkv + (long)L->tokens * K;
    if (L->row) memset(dx, 0, sizeof(float) * L->tokens * H);
    for (int from = 0; from < L->wanted; from += BLOCK) {
        int n = rows_of(L->wanted, from);
        const float *top = dy + (long)from * H, *middle = kept->middle + (long)from * H, *r2 = kept->r2 + from;
        const float *g_in = kept->gate + (long)from * F, *u_in = kept->up + (long)from * F;
        memcpy(d_middle, top, sizeof(float) * n * H);
        times(L, n, F, H, top, down, d_act, 0, 0, work);
        if (g->down) {
            gate((long)n * F, g_in, u_in, act);
            times_transposed(L, H, F, n, top, act, g->down, work);
        }
        gate_backward((long)n * F, g_in, u_in, d_act, d_gate, d_up);
        if (g->gate || g->up) unit(n, H, middle, r2, L->norm2, block);
        if (g->gate) times_transposed(L, F, H, n, d_gate, block, g->gate, work);
        if (g->up) times_transposed(L, F, H, n, d_up, block, g->up, work);
        times(L, n, H, F, d_gate, gate_w, d_block, 0, 0, work);
        times(L, n, H, F, d_up, up, d_block, 0, 1, work);
        through_norm(n, H, middle, L->norm2, r2, d_block, d_middle, g->norm2, spare);
        if (g->o) times_transposed(L, H, A, n, d_middle, gathered(L, from, n, A, kept->out, some), g->o, work);
        if (g->o_bias) add_rows(n, H, d_middle, g->o_bias);
        times(L, n, A, H, d_middle, o, some, 0, 0, work);
        for (int i = 0; i < n; i++) {
            long row = L->row ? L->row[from + i] : from + i;
            memcpy(d_out + row * A, some + (long)i * A, sizeof(float) * A);
            memcpy(dx + row * H, d_middle + (long)i * H, sizeof(float) * H);
        }
    }
    Forest f = forest_of(L, kept->qkv);
    attend_forest_backward(&f, kept->out, kept->lse, d_out, d_qkv, d_qkv + A, d_qkv + A + kv, work);
    for (int from = 0; from < L->tokens; from += BLOCK) {
        int n = rows_of(L->tokens, from);
        long at = (long)from * H;
        turn(L, L->heads, from, n, d_qkv, L->scale, -1);
        turn(L, L->kv_heads, from, n, d_qkv + A, 1, -1);
        const float *d = d_qkv + (long)from * K;
        if (g->qkv_bias) add_rows(n, K, d, g->qkv_bias);
        if (g->qkv) {
            unit(n, H, x + at, kept->r1 + from, L->norm1, block);
            times_transposed(L, K, H, n, d, block, g->qkv, work);
        }
        times(L, n, H, K, d, qkv, d_block, 0, 0, work);
        through_norm(n, H, x + at, L->norm1, kept->r1 + from, d_block, dx + at, g->norm1, spare);
    }
}

/* The parts alone */
long ft_attend_work(const Forest *f) { return attend_work(f); }
void ft_attend(const Forest *f, float *out, float *lse, float *work) { attend_forest(f, out, lse, work); }
void ft_attend_backward(const Forest *f, const float *out, const float *lse, const float *grad, float *dq, float *dk, float *dv,
                        float *work) {
    attend_forest_backward(f, out, lse, grad, dq, dk, dv, work);
}
void ft_norm(int N, int H, const float *x, const float *w, float eps, float *y, float *r) { norm(N, H, x, w, eps, y, r); }
void ft_norm_backward(int N, int H, const float *x, const float *w, const float *r, const float *grad, float *dx, float *dw) {
    norm_backward(N, H, x, w, r, grad, dx, dw);
}
void ft_rotate(int N, int heads, int d, const float *x, long ld, const float *cos, const float *sin, float scale, float direction,
               float *y) {
    rotate(N, heads, d, x, ld, cos, sin, scale, direction, y);
}
void ft_gate(long n, const float *g, const float *up, float *y) { gate(n, g, up, y); }
void ft_gate_backward(long n, const float *g, const float *up, const float *grad, float *d_gate, float *d_up) {
    gate_backward(n, g, up, grad, d_gate, d_up);
}
