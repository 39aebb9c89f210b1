/* The forward of a decoder (RMSNorm, rotary positions, grouped attention, gated MLP) over tokens that stand in segments of a tree, and
   the choice of the next tokens. One call computes any tokens whose ancestors are kept already or come before them in the call: a whole
   forest of contexts, or one token for each row. */
#include "attention.h"
#include "choice.h"
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

static void times(const Model *M, int rows, int N, int K, const float *a, long lda, const void *b, float *c, long ldc, const float *bias,
                  int add, float *work) {
    product(M->way, rows, N, K, a, lda, b, c, ldc, bias, add, work);
}

/* Floats of a product's work space. */
static long times_work(const Model *M) {
    int widest = M->hidden > M->inner ? M->hidden : M->inner, heads = M->heads * M->d;
    return product_work(widest > heads ? widest : heads, M->way);
}

static void norm_row(int n, const float *x, const float *w, float eps, float *y) {
    vf total = (vf){0};
    float rest = 0;
    int j = 0;
    for (; j + W <= n; j += W) total += load(x + j) * load(x + j);
    for (int k = j; k < n; k++) rest += x[k] * x[k];
    float r = 1.0f / sqrtf((sum_of(total) + rest) / n + eps);
    for (int k = 0; k < n; k++) y[k] = x[k] * r * w[k];
}

static void rotate_head(int d, float *x, const float *cos, const float *sin, float scale) {
    for (int j = 0; j < d / 2; j++) {
        float a = x[j], b = x[j + d / 2];
        x[j] = (a * cos[j] - b * sin[j]) * scale;
        x[j + d / 2] = (b * cos[j] + a * sin[j]) * scale;
    }
}

/* Where layer l and head of keys g of a segment begin: keys in panels, then values [cap, d]. */
static float *keys_of(const Model *M, float *base, int cap, int l, int g) {
    return base + ((long)l * M->kv_heads + g) * 2 * cap * M->d;
}

static void project(const Model *M, const Layer *L, int l, int from, int n, const float *x, const int32_t *position, const int32_t *segment,
                    const int32_t *at, float *const *base, const int32_t *cap, float *y, float *qkv, float *work) {
    int H = M->hidden, d = M->d, width = (M->heads + 2 * M->kv_heads) * d;
    for (int i = 0; i < n; i++) norm_row(H, x + (long)(from + i) * H, L->norm1, M->eps, y + (long)i * H);
    times(M, n, width, H, y, H, L->qkv, qkv + (long)from * width, width, L->qkv_bias, 0, work);
    for (int i = from; i < from + n; i++) {
        float *row = qkv + (long)i * width;
        const float *cos = M->cos + (long)position[i] * (d / 2), *sin = M->sin + (long)position[i] * (d / 2);
        for (int h = 0; h < M->heads + M->kv_heads; h++) {
            const float *w = h < M->heads ? L->q_norm : L->k_norm;
            if (w) norm_row(d, row + h * d, w, M->eps, row + h * d);
            rotate_head(d, row + h * d, cos, sin, h < M->heads ? M->scale : 1.0f);
        }
        for (int g = 0; g < M->kv_heads; g++) {
            int room = cap[segment[i]];
            float *panels = keys_of(M, base[segment[i]], room, l, g), *k = panels + (long)(at[i] / W) * d * W + at[i] % W;
            for (int j = 0; j < d; j++) k[j * W] = row[(M->heads + g) * d + j];
            memcpy(panels + (long)room * d + (long)at[i] * d, row + (M->heads + M->kv_heads + g) * d, sizeof(float) * d);
        }
    }
}

static void attention(const Model *M, int l, int N, const float *qkv, const int32_t *at, float *const *base, const int32_t *cap, int items,
                      const Item *item, const uint8_t *asks, float *o, float *m, float *s) {
    int d = M->d, heads = M->heads, group = heads / M->kv_heads, width = (heads + 2 * M->kv_heads) * d;
    memset(o, 0, sizeof(float) * N * heads * d);
    memset(s, 0, sizeof(float) * N * heads);
    for (long i = 0; i < (long)N * heads; i++) m[i] = -1e30f;
    for (const Item *t = item; t < item + items; t++)
        for (int g = 0; g < M->kv_heads; g++) { /* in the order in which they lie in memory */
            int room = cap[t->segment], filled = 0;
            const float *panels = keys_of(M, base[t->segment], room, l, g), *values = panels + (long)room * d;
            Query tile[MR];
            for (int i = t->from; i < t->to; i++)
                for (int h = g * group; h < (g + 1) * group && (!asks || asks[i]); h++) {
                    long row = (long)i * heads + h;
                    tile[filled++] = (Query){qkv + (long)i * width + h * d, o + row * d, m + row, s + row, t->causal ? at[i] + 1 : t->keys};
                    if (filled == MR) attend(filled, d, tile, panels, values, d, t->keys), filled = 0;
                }
            if (filled) attend(filled, d, tile, panels, values, d, t->keys);
        }
    for (long i = 0; i < (long)N * heads; i++)
        for (int j = 0; j < d && s[i] > 0; j++) o[i * d + j] /= s[i];
}

static void feed_forward(const Model *M, const Layer *L, int n, float *x, float *y, float *gate_up, float *work) {
    int H = M->hidden, F = M->inner;
    for (int i = 0; i < n; i++) norm_row(H, x + (long)i * H, L->norm2, M->eps, y + (long)i * H);
    times(M, n, 2 * F, H, y, H, L->gate_up, gate_up, 2 * F, L->gate_up_bias, 0, work);
    for (int i = 0; i < n; i++) {
        float *g = gate_up + (long)i * 2 * F, *u = g + F;
        int j = 0;
        for (; j + W <= F; j += W) store(g + j, load(g + j) / (1.0f + vexp(-load(g + j))) * load(u + j));
        for (; j < F; j++) g[j] = g[j] / (1.0f + expf(-g[j])) * u[j];
    }
    times(M, n, H, F, gate_up, 2 * F, L->down, x, H, L->down_bias, 1, work);
}

/* Rows `out` of x, width floats each, to its front: they ascend, so none is overwritten before it is read. */
static void to_front(int outs, const int32_t *out, int width, float *x) {
    for (int i = 0; i < outs; i++) memmove(x + (long)i * width, x + (long)out[i] * width, sizeof(float) * width);
}

/* Floats of work space for a call of N tokens. */
long ft_work(const Model *M, int N) {
    long per_token = M->hidden + (long)(2 * M->heads + 2 * M->kv_heads) * M->d + 2 * M->heads;
    return N * (per_token + 1) + BLOCK * ((long)M->hidden + 2 * M->inner) + times_work(M) + 64;
}

/* logits[outs][vocabulary] after the tokens `out`, which ascend; keys and values of all tokens are kept in their segments. */
void ft_forward(const Model *M, int N, const int32_t *id, const int32_t *position, const int32_t *segment, const int32_t *at,
                float *const *base, const int32_t *cap, int items, const Item *item, int outs, const int32_t *out, float *logits,
                float *work) {
    int H = M->hidden, d = M->d, width = (M->heads + 2 * M->kv_heads) * d;
    float *x = work, *qkv = x + (long)N * H, *o = qkv + (long)N * width, *m = o + (long)N * M->heads * d, *s = m + (long)N * M->heads;
    float *y = s + (long)N * M->heads, *gate_up = y + (long)BLOCK * H, *spare = gate_up + 2L * BLOCK * M->inner;
    uint8_t *asks = (uint8_t *)(spare + times_work(M));
    memset(asks, 0, N);
    for (int i = 0; i < outs; i++) asks[out[i]] = 1;
    for (int i = 0; i < N; i++) memcpy(x + (long)i * H, M->embed + (long)id[i] * H, sizeof(float) * H);
    for (int l = 0; l < M->layers; l++) {
        const Layer *L = M->layer + l;
        for (int from = 0; from < N; from += BLOCK)
            project(M, L, l, from, N - from < BLOCK ? N - from : BLOCK, x, position, segment, at, base, cap, y, qkv, spare);
        int last = l == M->layers - 1, rows = last ? outs : N; /* in the last layer the others give keys and values alone */
        attention(M, l, N, qkv, at, base, cap, items, item, last ? asks : 0, o, m, s);
        if (last) to_front(outs, out, H, x), to_front(outs, out, M->heads * d, o);
        for (int from = 0; from < rows; from += BLOCK) {
            int n = rows - from < BLOCK ? rows - from : BLOCK;
            times(M, n, H, M->heads * d, o + (long)from * M->heads * d, M->heads * d, L->o, x + (long)from * H, H, L->o_bias, 1, spare);
            feed_forward(M, L, n, x + (long)from * H, y, gate_up, spare);
        }
    }
    for (int from = 0; from < outs; from += BLOCK) {
        int n = outs - from < BLOCK ? outs - from : BLOCK;
        for (int i = 0; i < n; i++) norm_row(H, x + (long)(from + i) * H, M->norm, M->eps, y + (long)i * H);
        times(M, n, M->vocabulary, H, y, H, M->head, logits + (long)from * M->vocabulary, M->vocabulary, M->head_bias, 0, spare);
    }
}

/* The next tokens ------------------------------------------------------------------------------------------------------------ */

long ft_choose_work(int V) { return choice_work(V); }

/* token[R], its log-prob at temperature 1 and under the distribution that it was drawn from, by the row's own uniform number; the mode
   where the temperature is 0. Where a row's logits hold NaN or infinity, or nothing above minus infinity, its log-probs are NaN; minus
   infinity beside others is a token that is never drawn. work: `ft_choose_work` for each thread. */
void ft_choose(int R, int V, const float *logits, const double *uniform, const float *temperature, const float *top_p, int64_t *token,
               float *logp, float *drawn_logp, float *work, int threads) {
    Choices c = {R, V, logits, uniform, temperature, top_p, token, logp, drawn_logp, work};
    in_parallel(threads, R, choose_row, &c);
}

/* Whole rows ------------------------------------------------------------------------------------------------------------------ */

typedef struct { /* rows in the making; where they are kept, each has `most` places */
    int rows, most, kinds, vocabulary;
    const int32_t *path_from, *path; /* [rows + 1] and pairs (segment, keys): each row's context */
    const int32_t *tail, *first;     /* segment of the row's own tokens, and where they begin in it */
    const int64_t *row;              /* its line in the arrays below */
    int64_t *token, *length;         /* drawn so far; at least one */
    float *logp, *drawn_logp;
    const double *uniform;
    const float *temperature, *top_p;
    const int64_t *limit, *context;  /* most tokens; tokens of the context */
    const int64_t *kind;
    const uint8_t *ends;             /* [kinds, vocabulary] whether a token ends a row of this kind */
    uint8_t *done, *finished;
} Rows;

/* Neighbours that see the same keys see them together. */
static int shared_items(const Rows *R, int n, const int32_t *live, Item *item) {
    int items = 0, deepest = 0;
    for (int i = 0; i < n; i++) {
        int depth = R->path_from[live[i] + 1] - R->path_from[live[i]];
        deepest = depth > deepest ? depth : deepest;
    }
    for (int level = 0; level < deepest; level++)
        for (int i = 0; i < n; i++) {
            const int32_t *p = R->path + 2L * (R->path_from[live[i]] + level);
            if (R->path_from[live[i]] + level >= R->path_from[live[i] + 1]) continue;
            Item *last = item + items - 1;
            if (items && last->to == i && i > 0 && last->segment == p[0] && last->keys == p[1]) last->to = i + 1;
            else item[items++] = (Item){p[0], p[1], i, i + 1, 0};
        }
    return items;
}

/* Most items of a call with these rows, and floats of its work space beside `ft_work`. */
long ft_run_work(const Model *M, const Rows *R) {
    long items = R->path_from[R->rows] + R->rows;
    return items * (sizeof(Item) / 4) + 10L * R->rows + (long)R->rows * M->vocabulary + choice_work(M->vocabulary) + 64;
}

/* Each row that is not done goes on by a token a step, until no more than `few` go on or `steps` have been made; returns the steps. */
int ft_run(const Model *M, const Rows *R, float *const *base, const int32_t *cap, int few, int steps, float *work, float *more) {
    int32_t *live = (int32_t *)more, *id = live + R->rows, *position = id + R->rows, *segment = position + R->rows, *at = segment + R->rows,
            *index = at + R->rows;
    Item *item = (Item *)(index + R->rows);
    float *logits = (float *)(item + R->path_from[R->rows] + R->rows), *own = logits + (long)R->rows * M->vocabulary;
    for (int step = 0;; step++) {
        int n = 0;
        for (int i = 0; i < R->rows; i++)
            if (!R->done[R->row[i]]) live[n++] = i;
        if (n <= few || step == steps) return step;
        int items = shared_items(R, n, live, item);
        for (int i = 0; i < n; i++) {
            long row = R->row[live[i]];
            int drawn = R->length[row] - 1;
            index[i] = i, segment[i] = R->tail[live[i]], at[i] = R->first[live[i]] + drawn, position[i] = R->context[row] + drawn;
            id[i] = R->token[row * R->most + drawn];
            item[items++] = (Item){segment[i], at[i] + 1, i, i + 1, 1};
        }
        ft_forward(M, n, id, position, segment, at, base, cap, items, item, n, index, logits, work);
        for (int i = 0; i < n; i++) {
            long row = R->row[live[i]], place = row * R->most + R->length[row];
            int64_t *token = R->token + place;
            ft_choose(1, M->vocabulary, logits + (long)i * M->vocabulary, R->uniform + place, R->temperature + row, R->top_p + row, token,
                      R->logp + place, R->drawn_logp + place, own, 1);
            R->length[row]++;
            R->finished[row] = R->ends[R->kind[row] * R->vocabulary + *token];
            R->done[row] = R->finished[row] || R->length[row] == R->limit[row] || R->logp[place] != R->logp[place];
        }
    }
}
