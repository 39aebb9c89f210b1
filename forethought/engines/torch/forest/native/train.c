/* A training step: one layer of a decoder (RMSNorm, rotary positions, attention over a packed forest, gated MLP) as one call, forward and
   backward, and its parts as calls of their own for layers that are put together otherwise (adapters, norms of queries). */
#include "crew.h"
#include "forest.h"
#include "pointwise.h"
#include "product.h"

enum { Q, K_, V, O, GATE, UP, DOWN, MATRICES };

typedef struct {
    int tokens, hidden, heads, kv_heads, d, inner, spans, way, threads; /* way: of products (`product.h`) */
    float eps, scale;
    const Span *span;
    int wanted; /* of the tokens, those whose output is read: all, or fewer in a last layer, where the others give keys and values alone */
    const int32_t *row; /* [wanted], ascending; null: all */
    const uint8_t *asks; /* [tokens], the same as a mask; null: all */
    const float *cos, *sin; /* [tokens, d / 2] */
    const float *norm1, *norm2, *q, *k, *v, *o, *gate, *up, *down; /* [out, in] */
    const float *q_bias, *k_bias, *v_bias, *o_bias; /* null where there is none */
    int rank;
    const float *low[MATRICES][2]; /* LoRA: A [rank, in] and B [out, rank], whose product the matrix has in it already; null: none */
} Layer;

typedef struct { /* what the backward pass reads, beside the layer's input */
    float *r1, *lse, *qkv, *out;       /* of all tokens; qkv [tokens, (heads + 2 kv_heads) d]: rotated, queries scaled */
    float *r2, *middle, *gate, *up;    /* of the wanted ones */
} Kept;

typedef struct { /* null: not wanted */
    float *norm1, *norm2, *qkv, *qkv_bias, *o, *o_bias, *gate, *up, *down;
    float *low[MATRICES][2];
} Gradients;

static int width_of(const Layer *L) { return (L->heads + 2 * L->kv_heads) * L->d; }
static int in_of(const Layer *L, int m) { return m == DOWN ? L->inner : m == O ? L->heads * L->d : L->hidden; }
static int out_of(const Layer *L, int m) {
    return m == Q ? L->heads * L->d : m == K_ || m == V ? L->kv_heads * L->d : m == GATE || m == UP ? L->inner : L->hidden;
}
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

/* ---- work space: packed matrices, what a call shares, then one part a thread, whose last floats a product works in. */

enum { PIECES = 4, WIDE = 512 }; /* chunks that a matrix is packed in; numbers of a row from which the cache is minded */

static int is_wide(const Layer *L) { return L->inner >= 2 * WIDE; }

/* Rows of a weight's gradient that are one chunk, and tokens that are summed before they are added to it: a wide gradient does not stay in
   the cache from one sum to the next. */
static int slice_of(const Layer *L) { return is_wide(L) ? 192 : 64; }
static int summed(const Layer *L) { return is_wide(L) ? 4 * BLOCK : BLOCK; }

/* How far rows of `width` numbers stand apart. Where it is an odd number of the cache's lines, rows share none of its sets. */
static int apart_of(int width) { return width < WIDE ? width : ((width + 15) / 16 | 1) * 16; }

static int least(int a, int b) { return a < b ? a : b; }
static long larger_of(long a, long b) { return a > b ? a : b; }

static long part_of(const Layer *L) {
    Forest f = forest_of(L, 0);
    int widest = larger_of(larger_of(width_of(L), L->rank), larger_of(L->hidden, L->inner));
    long blocks = BLOCK * (3 * (long)L->hidden + 2 * L->inner + L->heads * L->d), attend = attend_part(&f);
    return larger_of(blocks, attend) + 16 * NR +
           larger_of(product_work(widest, L->way), transposed_work(larger_of(slice_of(L), L->rank), widest, summed(L), L->way));
}

/* Rows whose parts of the gradients are formed together: one sum where one thread does it all, so that it stays in the cache. */
static int rows_at_once(const Layer *L) { return L->threads > 1 ? 8 * BLOCK : summed(L); }

/* Floats that the backward pass shares, for the rows at once. */
static long shared_of(const Layer *L) {
    long low = 2 * MATRICES * ((long)L->rank * rows_at_once(L) + NR);
    return rows_at_once(L) * (2L * L->hidden + apart_of(L->hidden) + 3L * apart_of(L->inner) + L->heads * L->d) + 8 * NR + low;
}

/* Floats of the adapters' own matrices, packed, and of the gradients of one of them. */
static long low_of(const Layer *L) {
    long total = 0;
    for (int m = 0; L->rank && m < MATRICES; m++)
        total += packed_size(L->rank, in_of(L, m), L->way) + packed_size(L->rank, out_of(L, m), L->way) + (long)L->rank * out_of(L, m);
    return total;
}

long ft_layer_work(const Layer *L) {
    Forest f = forest_of(L, 0);
    long H = L->hidden, F = L->inner, A = (long)L->heads * L->d, K = width_of(L);
    int way = L->way;
    long packed = packed_size(K, H, way) + packed_size(H, A, way) + 2 * packed_size(F, H, way) + packed_size(H, F, way) +
                  packed_size(H, K, way) + packed_size(A, H, way) + packed_size(F, H, way) + 2 * packed_size(H, F, way);
    return packed + low_of(L) + K + H + 2 * NR + L->tokens * (A + K) + attend_shared(&f) + shared_of(L) + L->threads * part_of(L);
}

static void times_apart(const Layer *L, int M, int N, int K, const float *a, long lda, const float *b, float *c, const float *bias, int add,
                        float *work) {
    product(L->way, M, N, K, a, lda, b, c, N, bias, add, work);
}

static void times(const Layer *L, int M, int N, int K, const float *a, const float *b, float *c, const float *bias, int add, float *work) {
    times_apart(L, M, N, K, a, K, b, c, bias, add, work);
}

/* ---- packing */

typedef struct {
    const float *w;
    int from, n, K, N, right; /* rows [from, from + n) of the packed matrix; K columns (left), or [K, N] (right) */
    float *packed;
} Matrix;

typedef struct {
    Matrix matrix[3 * MATRICES];
    int n, way;
} Packing;

static void pack_piece(void *job, int chunk, int thread) {
    const Packing *p = job;
    const Matrix *m = p->matrix + chunk / PIECES;
    int step = (m->n + PIECES - 1) / PIECES, first = step * (chunk % PIECES), n = least(step, m->n - first);
    if (n <= 0) return;
    if (m->right) pack_right(m->from + first, n, m->K, m->N, m->w + (long)first * m->N, m->packed, p->way);
    else pack_rows(m->from + first, n, m->K, m->w + (long)first * m->K, m->packed, p->way);
}

/* n matrices above each other, as the left or the right factor; they are packed when `pack` is called. */
static float *to_pack(Packing *p, int right, int n, int width, const float *const *w, const int *rows, float **work) {
    int total = 0, from = 0;
    for (int i = 0; i < n; i++) total += rows[i];
    float *packed = *work;
    long size = right ? packed_size(width, total, p->way) : packed_size(total, width, p->way);
    *work += size;
    if (right ? rests(width, total) : rests(total, width)) memset(packed, 0, sizeof(float) * size);
    for (int i = 0; i < n; from += rows[i++])
        p->matrix[p->n++] = right ? (Matrix){w[i], from, rows[i], total, width, 1, packed} : (Matrix){w[i], from, rows[i], width, 0, 0, packed};
    return packed;
}

static void pack(const Layer *L, Packing *p) { in_parallel(L->threads, PIECES * p->n, pack_piece, p); }

/* ---- rotary positions */

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

/* ---- attention, depth by depth */

typedef struct {
    Forest forest;
    float *of_rows; /* a number of each token's heads, which its spans share */
    int *order, *begins, depths, now;
} Depths;

static Depths depths_of(const Layer *L, const float *qkv, float **work) {
    Depths d = {.forest = forest_of(L, qkv), .of_rows = *work, .order = (int *)(*work + (long)L->tokens * L->heads)};
    d.begins = d.order + L->spans + 1;
    d.depths = by_depth(&d.forest, d.order, d.begins, d.begins + L->spans + 1);
    *work += attend_shared(&d.forest);
    return d;
}

/* The span of a chunk, and the head in `g`. */
static const Span *span_of(const Depths *d, int chunk, int *g) {
    *g = chunk % d->forest.kv_heads;
    return d->forest.span + d->order[d->begins[d->now] + chunk / d->forest.kv_heads];
}

/* Every span of every head, those of one depth beside each other. */
static void by_spans(int threads, Depths *d, Chunk run, void *job) {
    for (d->now = 0; d->now < d->depths; d->now++)
        in_parallel(threads, (d->begins[d->now + 1] - d->begins[d->now]) * d->forest.kv_heads, run, job);
}

/* ---- forward */

typedef struct {
    const Layer *L;
    const float *x, *qkv, *o, *gate, *up, *down, *bias, *o_bias;
    const Kept *kept;
    float *y, *parts;
    Depths depths;
} Forward;

static float *padded(int n, const float *const *from, const int *sizes, float **work) {
    float *bias = *work, *at = bias;
    for (int i = 0; i < n; at += sizes[i++]) memcpy(at, from[i], sizeof(float) * sizes[i]);
    memset(at, 0, sizeof(float) * NR);
    *work = at + NR;
    return bias;
}

/* Queries, keys and values of one block of tokens. */
static void forward_in(void *job, int chunk, int thread) {
    const Forward *F = job;
    const Layer *L = F->L;
    int from = chunk * BLOCK, n = rows_of(L->tokens, from), H = L->hidden, A = L->heads * L->d, K = width_of(L);
    float *block = F->parts + thread * part_of(L), *work = block + BLOCK * H;
    norm(n, H, F->x + (long)from * H, L->norm1, L->eps, block, F->kept->r1 + from);
    times(L, n, K, H, block, F->qkv, F->kept->qkv + (long)from * K, F->bias, 0, work);
    turn(L, L->heads, from, n, F->kept->qkv, L->scale, 1);
    turn(L, L->kv_heads, from, n, F->kept->qkv + A, 1, 1);
    attend_begin(&F->depths.forest, from, from + n, F->kept->out, F->kept->lse, F->depths.of_rows);
}

static void forward_attention(void *job, int chunk, int thread) {
    const Forward *F = job;
    int g;
    const Span *span = span_of(&F->depths, chunk, &g);
    attend_span(&F->depths.forest, span, g, F->kept->out, F->kept->lse, F->depths.of_rows, F->parts + thread * part_of(F->L));
}

static void forward_attended(void *job, int chunk, int thread) {
    const Forward *F = job;
    int from = chunk * BLOCK;
    attend_end(&F->depths.forest, from, from + rows_of(F->L->tokens, from), F->kept->out, F->kept->lse, F->depths.of_rows);
}

/* What stands behind attention, for one block of the wanted tokens. */
static void forward_out(void *job, int chunk, int thread) {
    const Forward *w = job;
    const Layer *L = w->L;
    const Kept *kept = w->kept;
    int from = chunk * BLOCK, n = rows_of(L->wanted, from), H = L->hidden, F = L->inner, A = L->heads * L->d;
    float *block = w->parts + thread * part_of(L), *act = block + (long)BLOCK * H, *work = act + (long)BLOCK * (F + A);
    float *middle = kept->middle + (long)from * H, *to = w->y + (long)from * H;
    float *g = kept->gate + (long)from * F, *u = kept->up + (long)from * F;
    memcpy(middle, gathered(L, from, n, H, w->x, block), sizeof(float) * n * H);
    times(L, n, H, A, gathered(L, from, n, A, kept->out, act), w->o, middle, w->o_bias, 1, work);
    norm(n, H, middle, L->norm2, L->eps, block, kept->r2 + from);
    times(L, n, F, H, block, w->gate, g, 0, 0, work);
    times(L, n, F, H, block, w->up, u, 0, 0, work);
    gate((long)n * F, g, u, act);
    memcpy(to, middle, sizeof(float) * n * H);
    times(L, n, H, F, act, w->down, to, 0, 1, work);
}

/* y [wanted, hidden] from x [tokens, hidden]. */
void ft_layer(const Layer *L, const float *x, const Kept *kept, float *y, float *work) {
    int H = L->hidden, F = L->inner, A = L->heads * L->d, kv = L->kv_heads * L->d;
    Packing p = {.n = 0, .way = L->way};
    Forward f = {.L = L, .x = x, .kept = kept, .y = y};
    f.qkv = to_pack(&p, 0, 3, H, (const float *[]){L->q, L->k, L->v}, (int[]){A, kv, kv}, &work);
    f.o = to_pack(&p, 0, 1, A, &L->o, &H, &work), f.gate = to_pack(&p, 0, 1, H, &L->gate, &F, &work);
    f.up = to_pack(&p, 0, 1, H, &L->up, &F, &work), f.down = to_pack(&p, 0, 1, F, &L->down, &H, &work);
    if (L->q_bias) f.bias = padded(3, (const float *[]){L->q_bias, L->k_bias, L->v_bias}, (int[]){A, kv, kv}, &work);
    if (L->o_bias) f.o_bias = padded(1, &L->o_bias, &H, &work);
    f.depths = depths_of(L, kept->qkv, &work);
    f.parts = work;
    pack(L, &p);
    in_parallel(L->threads, (L->tokens + BLOCK - 1) / BLOCK, forward_in, &f);
    by_spans(L->threads, &f.depths, forward_attention, &f);
    in_parallel(L->threads, (L->tokens + BLOCK - 1) / BLOCK, forward_attended, &f);
    in_parallel(L->threads, (L->wanted + BLOCK - 1) / BLOCK, forward_out, &f);
}

/* ---- backward: first what flows through the rows, block by block; then the weights' gradients, slice by slice, which are sums over those
   rows in their order */

typedef struct {
    const Layer *L;
    const float *x, *dy, *qkv, *o, *gate, *up, *down;
    const Kept *kept;
    const Gradients *g;
    float *dx, *d_out, *d_qkv, *parts;
    int first, rows; /* at once */
    float *d_middle, *unit, *d_unit, *act, *d_gate, *d_up, *out; /* of those rows */
    const float *low[MATRICES][2]; /* A and B, packed */
    float *narrow[MATRICES][2]; /* of those rows, [rows, rank]: what goes in times A, and the gradient of what comes out times B */
    float *across[MATRICES]; /* gradients of B, [rank, out]: vectors are filled so, however small the rank is */
    Depths depths;
} Backward;

static void act_rows(const Backward *b, int n, const float *gates, const float *up, float *act) {
    int F = b->L->inner, apart = apart_of(F);
    if (apart == F) gate((long)n * F, gates, up, act);
    else
        for (int i = 0; i < n; i++) gate(F, gates + (long)i * F, up + (long)i * F, act + (long)i * apart);
}

static void gate_rows(const Backward *b, int n, const float *gates, const float *up, const float *grad, float *d_gate, float *d_up) {
    int F = b->L->inner, apart = apart_of(F);
    if (apart == F) gate_backward((long)n * F, gates, up, grad, d_gate, d_up);
    else
        for (int i = 0; i < n; i++) {
            long at = (long)i * F, to = (long)i * apart;
            gate_backward(F, gates + at, up + at, grad + at, d_gate + to, d_up + to);
        }
}

typedef struct {
    const float *at;
    long apart;
} Rows; /* of a matrix, and how far they stand apart */

/* The gradient of what came out of matrix m, and in `in` what went into it, of the rows at once. */
static Rows grad_of(const Backward *b, int m, Rows *in) {
    const Layer *L = b->L;
    long A = (long)L->heads * L->d, kv = (long)L->kv_heads * L->d, K = width_of(L), H = L->hidden, F = apart_of(L->inner);
    *in = m == DOWN ? (Rows){b->act, F} : m != O ? (Rows){b->unit, apart_of(H)} : (Rows){L->row ? b->out : b->kept->out + b->first * A, A};
    switch (m) {
    case Q: return (Rows){b->d_qkv + b->first * K, K};
    case K_: return (Rows){b->d_qkv + b->first * K + A, K};
    case V: return (Rows){b->d_qkv + b->first * K + A + kv, K};
    case O: return (Rows){b->d_middle, H};
    case GATE: return (Rows){b->d_gate, F};
    case UP: return (Rows){b->d_up, F};
    default: return (Rows){b->dy + b->first * H, H};
    }
}

/* An adapter's narrow factors of some rows. Nothing as wide as the matrix is formed for its gradients. */
static void narrow_rows(const Backward *b, int m, int local, int n, float *work) {
    const Layer *L = b->L;
    if (!b->g->low[m][0]) return;
    long at = (long)local * L->rank;
    Rows in, grad = grad_of(b, m, &in);
    times_apart(L, n, L->rank, in_of(L, m), in.at + local * in.apart, in.apart, b->low[m][0], b->narrow[m][0] + at, 0, 0, work);
    times_apart(L, n, L->rank, out_of(L, m), grad.at + local * grad.apart, grad.apart, b->low[m][1], b->narrow[m][1] + at, 0, 0, work);
}

static void unit(int n, int H, const float *x, const float *r, const float *w, float *y) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < H; j++) y[(long)i * apart_of(H) + j] = x[(long)i * H + j] * r[i] * w[j];
}

static void add_rows(int n, int width, const float *x, float *into) {
    for (int i = 0; i < n; i++, x += width)
        for (int j = 0; j < width; j++) into[j] += x[j];
}

/* dx += what flows through a norm. */
static void through_norm(int n, int H, const float *x, const float *w, const float *r, const float *grad, float *dx, float *work) {
    norm_backward(n, H, x, w, r, grad, work, 0);
    for (long j = 0; j < (long)n * H; j++) dx[j] += work[j];
}

static void backward_out(void *job, int chunk, int thread) {
    const Backward *b = job;
    const Layer *L = b->L;
    const Kept *kept = b->kept;
    int local = chunk * BLOCK, n = rows_of(b->rows, local), H = L->hidden, F = L->inner, A = L->heads * L->d;
    long from = b->first + local;
    float *spare = b->parts + thread * part_of(L), *d_act = spare + (long)BLOCK * H, *some = d_act + (long)BLOCK * F;
    float *work = some + (long)BLOCK * A;
    float *d_middle = b->d_middle + (long)local * H, *d_unit = b->d_unit + (long)local * H;
    int wide = apart_of(F);
    float *d_gate = b->d_gate + (long)local * wide, *d_up = b->d_up + (long)local * wide;
    const float *top = b->dy + from * H, *middle = kept->middle + from * H, *g_in = kept->gate + from * F, *u_in = kept->up + from * F;
    memcpy(d_middle, top, sizeof(float) * n * H);
    times(L, n, F, H, top, b->down, d_act, 0, 0, work);
    if (b->g->down || b->g->low[DOWN][0]) act_rows(b, n, g_in, u_in, b->act + (long)local * wide);
    gate_rows(b, n, g_in, u_in, d_act, d_gate, d_up);
    if (b->g->gate || b->g->up || b->g->low[GATE][0] || b->g->low[UP][0]) unit(n, H, middle, kept->r2 + from, L->norm2, b->unit + (long)local * apart_of(H));
    times_apart(L, n, H, F, d_gate, wide, b->gate, d_unit, 0, 0, work);
    times_apart(L, n, H, F, d_up, wide, b->up, d_unit, 0, 1, work);
    through_norm(n, H, middle, L->norm2, kept->r2 + from, d_unit, d_middle, spare);
    if ((b->g->o || b->g->low[O][0]) && L->row) gathered(L, from, n, A, kept->out, b->out + (long)local * A);
    for (int m = O; m <= DOWN; m++) narrow_rows(b, m, local, n, work);
    times(L, n, A, H, d_middle, b->o, some, 0, 0, work);
    for (int i = 0; i < n; i++) {
        long row = L->row ? L->row[from + i] : from + i;
        memcpy(b->d_out + row * A, some + (long)i * A, sizeof(float) * A);
        memcpy(b->dx + row * H, d_middle + (long)i * H, sizeof(float) * H);
    }
}

static void backward_attended(void *job, int chunk, int thread) {
    const Backward *b = job;
    const Layer *L = b->L;
    int A = L->heads * L->d, from = chunk * BLOCK, to = from + rows_of(L->tokens, from);
    float *d_v = b->d_qkv + A + L->kv_heads * L->d;
    attend_backward_begin(&b->depths.forest, from, to, b->kept->out, b->d_out, b->d_qkv, b->d_qkv + A, d_v, b->depths.of_rows);
}

static void backward_attention(void *job, int chunk, int thread) {
    const Backward *b = job;
    const Layer *L = b->L;
    int A = L->heads * L->d, g;
    const Span *span = span_of(&b->depths, chunk, &g);
    attend_backward_span(&b->depths.forest, span, g, b->kept->lse, b->d_out, b->depths.of_rows, b->d_qkv, b->d_qkv + A,
                         b->d_qkv + A + L->kv_heads * L->d, b->parts + thread * part_of(L));
}

static void backward_in(void *job, int chunk, int thread) {
    const Backward *b = job;
    const Layer *L = b->L;
    int local = chunk * BLOCK, n = rows_of(b->rows, local), H = L->hidden, A = L->heads * L->d, K = width_of(L);
    long from = b->first + local, at = from * H;
    float *spare = b->parts + thread * part_of(L), *work = spare + (long)BLOCK * H, *d_unit = b->d_unit + (long)local * H;
    turn(L, L->heads, from, n, b->d_qkv, L->scale, -1);
    turn(L, L->kv_heads, from, n, b->d_qkv + A, 1, -1);
    if (b->g->qkv || b->g->low[Q][0] || b->g->low[K_][0] || b->g->low[V][0]) unit(n, H, b->x + at, b->kept->r1 + from, L->norm1, b->unit + (long)local * apart_of(H));
    for (int m = Q; m <= V; m++) narrow_rows(b, m, local, n, work);
    times(L, n, H, K, b->d_qkv + from * K, b->qkv, d_unit, 0, 0, work);
    through_norm(n, H, b->x + at, L->norm1, b->kept->r1 + from, d_unit, b->dx + at, spare);
}

/* A slice of c[M, N] += a^T right over the rows at once; null: not wanted. Returns how many slices c has. */
static int weight_slice(const Backward *b, int slice, int M, int N, Rows a, Rows right, float *c, float *work) {
    int high = slice_of(b->L), n = c ? (M + high - 1) / high : 0, at = slice * high, sum = summed(b->L);
    if (slice < 0 || slice >= n) return n;
    for (int from = 0; from < b->rows; from += sum)
        product_transposed(b->L->way, least(high, M - at), N, least(sum, b->rows - from), a.at + from * a.apart + at, a.apart,
                           right.at + from * right.apart, right.apart, c + (long)at * N, N, work);
    return n;
}

/* The same by columns of c[rank, N]. */
static int low_slice(const Backward *b, int slice, int N, const float *narrow, Rows right, float *c, float *work) {
    int r = b->L->rank, n = c ? (N + WIDE - 1) / WIDE : 0, at = slice * WIDE, sum = summed(b->L);
    if (slice < 0 || slice >= n) return n;
    for (int from = 0; from < b->rows; from += sum)
        product_transposed(b->L->way, r, least(WIDE, N - at), least(sum, b->rows - from), narrow + (long)from * r, r,
                           right.at + from * right.apart + at, right.apart, c + at, N, work);
    return n;
}

/* The slices of the gradients of matrices [first, last]: of the matrix (null: not wanted), then of an adapter on it. */
static int slices_of(const Backward *b, int slice, int first, int last, float *const *whole, float *work) {
    int n = 0;
    for (int m = first; m <= last; m++) {
        Rows in, grad = grad_of(b, m, &in);
        n += weight_slice(b, slice - n, out_of(b->L, m), in_of(b->L, m), grad, in, whole[m - first], work);
        n += low_slice(b, slice - n, in_of(b->L, m), b->narrow[m][1], in, b->g->low[m][0], work);
        n += low_slice(b, slice - n, out_of(b->L, m), b->narrow[m][0], grad, b->across[m], work);
    }
    return n;
}

/* Chunk 0 is the norm's weight and the biases. `slice` counts down through the matrices; asked for none, it says how many there are. */
static int slices_out(const Backward *b, int slice, float *work) {
    return slices_of(b, slice, O, DOWN, (float *const[]){b->g->o, b->g->gate, b->g->up, b->g->down}, work);
}

static void sums_out(void *job, int chunk, int thread) {
    const Backward *b = job;
    const Layer *L = b->L;
    int H = L->hidden;
    if (chunk) slices_out(b, chunk - 1, b->parts + thread * part_of(L));
    else {
        if (b->g->norm2) norm_weight(b->rows, H, b->kept->middle + (long)b->first * H, b->kept->r2 + b->first, b->d_unit, b->g->norm2);
        if (b->g->o_bias) add_rows(b->rows, H, b->d_middle, b->g->o_bias);
    }
}

static int slices_in(const Backward *b, int slice, float *work) {
    int H = b->L->hidden, A = out_of(b->L, Q), kv = out_of(b->L, V);
    float *d = b->g->qkv;
    return slices_of(b, slice, Q, V, (float *const[]){d, d ? d + (long)A * H : 0, d ? d + (long)(A + kv) * H : 0}, work);
}

static void sums_in(void *job, int chunk, int thread) {
    const Backward *b = job;
    const Layer *L = b->L;
    int H = L->hidden, K = width_of(L);
    const float *d = b->d_qkv + (long)b->first * K;
    if (chunk) slices_in(b, chunk - 1, b->parts + thread * part_of(L));
    else {
        if (b->g->norm1) norm_weight(b->rows, H, b->x + (long)b->first * H, b->kept->r1 + b->first, b->d_unit, b->g->norm1);
        if (b->g->qkv_bias) add_rows(b->rows, K, d, b->g->qkv_bias);
    }
}

/* dx [tokens, hidden] from dy [wanted, hidden]; gradients of the weights are added up where they are wanted. */
void ft_layer_backward(const Layer *L, const float *x, const Kept *kept, const float *dy, float *dx, const Gradients *g, float *work) {
    int H = L->hidden, F = L->inner, A = L->heads * L->d, K = width_of(L), kv = L->kv_heads * L->d, most = rows_at_once(L);
    Packing p = {.n = 0, .way = L->way};
    Backward b = {.L = L, .x = x, .dy = dy, .kept = kept, .g = g, .dx = dx};
    b.down = to_pack(&p, 1, 1, F, &L->down, &H, &work), b.gate = to_pack(&p, 1, 1, H, &L->gate, &F, &work);
    b.up = to_pack(&p, 1, 1, H, &L->up, &F, &work), b.o = to_pack(&p, 1, 1, A, &L->o, &H, &work);
    b.qkv = to_pack(&p, 1, 3, H, (const float *[]){L->q, L->k, L->v}, (int[]){A, kv, kv}, &work);
    b.d_out = work, b.d_qkv = b.d_out + (long)L->tokens * A, work = b.d_qkv + (long)L->tokens * K;
    b.d_middle = work, b.unit = b.d_middle + (long)most * H, b.d_unit = b.unit + (long)most * apart_of(H) + NR; /* a product may read beyond */
    long wide = (long)most * apart_of(F);
    b.act = b.d_unit + (long)most * H, b.d_gate = b.act + wide + NR, b.d_up = b.d_gate + wide, b.out = b.d_up + wide, work = b.out + (long)most * A + NR;
    for (int m = 0; m < MATRICES; m++) {
        if (!g->low[m][0]) continue;
        int out = out_of(L, m);
        b.low[m][0] = to_pack(&p, 0, 1, in_of(L, m), &L->low[m][0], &L->rank, &work);
        b.low[m][1] = to_pack(&p, 1, 1, L->rank, &L->low[m][1], &out, &work);
        for (int i = 0; i < 2; i++, work += (long)most * L->rank + NR) b.narrow[m][i] = work;
        b.across[m] = memset(work, 0, sizeof(float) * L->rank * out), work += (long)L->rank * out;
    }
    b.depths = depths_of(L, kept->qkv, &work);
    b.parts = work;
    pack(L, &p);
    if (L->row) memset(dx, 0, sizeof(float) * L->tokens * H);
    for (b.first = 0; b.first < L->wanted; b.first += most) {
        b.rows = least(most, L->wanted - b.first);
        in_parallel(L->threads, (b.rows + BLOCK - 1) / BLOCK, backward_out, &b);
        in_parallel(L->threads, 1 + slices_out(&b, -1, 0), sums_out, &b);
    }
    in_parallel(L->threads, (L->tokens + BLOCK - 1) / BLOCK, backward_attended, &b);
    by_spans(L->threads, &b.depths, backward_attention, &b);
    for (b.first = 0; b.first < L->tokens; b.first += most) {
        b.rows = least(most, L->tokens - b.first);
        in_parallel(L->threads, (b.rows + BLOCK - 1) / BLOCK, backward_in, &b);
        in_parallel(L->threads, 1 + slices_in(&b, -1, 0), sums_in, &b);
    }
    for (int m = 0; m < MATRICES; m++)
        for (int i = 0, out = out_of(L, m); g->low[m][1] && i < out; i++)
            for (int j = 0; j < L->rank; j++) g->low[m][1][(long)i * L->rank + j] += b.across[m][(long)j * out + i];
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
