/* Sampling: the forward over tokens of a tree, the choice of the next tokens, and both in a loop. */
#include "choice.h"
#include "forward.h"

/* Floats of work space for a call of N tokens. */
long ft_work(const Model *M, int N, int threads) { return forward_work(M, N, threads); }

static void compute(Call *c, Activations *leaves, float *logits, float *work) {
    c->leaves = leaves;
    forward(c, logits, work);
    if (!leaves) return;
    for (long i = 0, V = c->M->vocabulary; i < c->outs; i++) {
        float *left = leaves->logits + (leaves->used + c->out[i]) * V;
        if (left != logits + i * V) memcpy(left, logits + i * V, sizeof(float) * V);
    }
    leaves->used += c->N;
}

/* logits[outs][vocabulary] after the tokens `out`, which ascend; keys and values of all tokens are kept in their segments. `leaves`: where
   they leave what they compute (null: nowhere); it has room for them. */
void ft_forward(const Model *M, int N, const int32_t *id, const int32_t *position, const int32_t *segment, const int32_t *at,
                float *const *base, const int32_t *cap, int items, const Item *item, int outs, const int32_t *out, float *logits, float *work,
                int threads, Activations *leaves) {
    Call c = {.M = M, .N = N, .items = items, .outs = outs, .threads = threads, .id = id, .position = position, .segment = segment, .at = at,
              .cap = cap, .out = out, .base = base, .item = item};
    compute(&c, leaves, logits, work);
}

/* The next tokens ------------------------------------------------------------------------------------------------------------ */

long ft_choose_work(int V) { return choice_work(V); }

/* token[R], its log-prob at temperature 1 and under the distribution that it was drawn from, by the row's own uniform number; the mode
   where the temperature is 0. Where a row's logits hold NaN or infinity, or nothing above minus infinity, its log-probs are NaN; minus
   infinity beside others is a token that is never drawn. work: `ft_choose_work` for each thread. */
void ft_choose(int R, int V, const float *logits, const double *uniform, const float *temperature, const float *top_p, const float *min_p,
               const int64_t *top_k, int64_t *token, float *logp, float *drawn_logp, float *work, int threads) {
    Choices c = {R, V, logits, uniform, temperature, top_p, min_p, top_k, token, logp, drawn_logp, work};
    in_parallel(threads, R, choose_row, &c);
}

/* Whole rows ------------------------------------------------------------------------------------------------------------------ */

typedef struct { /* rows in the making; where they are kept, each has `most` places */
    int rows, most, kinds, vocabulary, words;
    const int32_t *path_from, *path; /* [rows + 1] and pairs (segment, keys): each row's context */
    const int32_t *tail, *first;     /* segment of the row's own tokens, and where they begin in it */
    const int64_t *row;              /* its line in the arrays below */
    int64_t *token, *length;         /* drawn so far; at least one */
    float *logp, *drawn_logp;
    const double *uniform;
    const float *temperature, *top_p, *min_p;
    const int64_t *top_k;
    const int64_t *limit, *context;  /* most tokens; tokens of the context */
    const int64_t *kind;
    const uint8_t *ends;             /* [kinds, vocabulary] whether a token ends a row of this kind */
    uint8_t *done, *finished;
    int32_t *left;                   /* [rows, most] where a token has left what it computed; null: nowhere */
    const int32_t *drawn;            /* [words] tokens that a row says only where they stand in its context */
    const uint8_t *absent;           /* [words] of each line: those that do not */
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

/* Floats of the work space of a run beside `ft_work`. */
long ft_run_work(const Model *M, const Rows *R, int threads) {
    long items = R->path_from[R->rows] + R->rows;
    return items * (sizeof(Item) / 4) + 10L * R->rows + (long)R->rows * M->vocabulary + threads * choice_work(M->vocabulary) + 64;
}

#define NEVER (-1e30f) /* a logit whose probability is 0, as `vocabulary.py` has it */

typedef struct {
    const Rows *R;
    const int32_t *live;
    float *logits;
    float *work;
} Draw;

static void draw_row(void *job, int i, int thread) {
    const Draw *w = job;
    const Rows *R = w->R;
    int V = R->vocabulary;
    long row = R->row[w->live[i]], place = row * R->most + R->length[row];
    int64_t *token = R->token + place;
    for (int j = 0; j < R->words; j++)
        if (R->absent[row * R->words + j]) w->logits[(long)i * V + R->drawn[j]] = NEVER;
    Choices c = {1, V, w->logits + (long)i * V, R->uniform + place, R->temperature + row, R->top_p + row, R->min_p + row,
                 R->top_k + row, token, R->logp + place, R->drawn_logp + place, 0};
    choose(&c, 0, w->work + thread * choice_work(V));
    R->length[row]++;
    R->finished[row] = R->ends[R->kind[row] * V + *token];
    R->done[row] = R->finished[row] || R->length[row] == R->limit[row] || R->logp[place] != R->logp[place];
}

/* Each row that is not done goes on by a token a step, until no more than `few` go on, `steps` have been made, or what tokens leave has no
   room; returns the steps. */
int ft_run(const Model *M, const Rows *R, float *const *base, const int32_t *cap, int few, int steps, float *work, float *more, int threads,
           Activations *leaves) {
    int32_t *live = (int32_t *)more, *id = live + R->rows, *position = id + R->rows, *segment = position + R->rows, *at = segment + R->rows,
            *index = at + R->rows;
    Item *item = (Item *)(index + R->rows);
    float *logits = (float *)(item + R->path_from[R->rows] + R->rows);
    Draw draw = {R, live, logits, logits + (long)R->rows * M->vocabulary};
    for (int step = 0;; step++) {
        int n = 0;
        for (int i = 0; i < R->rows; i++)
            if (!R->done[R->row[i]]) live[n++] = i;
        if (n <= few || step == steps || (leaves && leaves->used + n > leaves->room)) return step;
        int items = shared_items(R, n, live, item);
        for (int i = 0; i < n; i++) {
            long row = R->row[live[i]];
            int drawn = R->length[row] - 1;
            index[i] = i, segment[i] = R->tail[live[i]], at[i] = R->first[live[i]] + drawn, position[i] = R->context[row] + drawn;
            id[i] = R->token[row * R->most + drawn];
            item[items++] = (Item){segment[i], at[i] + 1, i, i + 1, 1};
            if (leaves) R->left[(long)live[i] * R->most + drawn] = leaves->used + i;
        }
        if (leaves) draw.logits = leaves->logits + leaves->used * M->vocabulary; /* they stay where they are written */
        Call c = {.M = M, .N = n, .items = items, .outs = n, .threads = threads, .id = id, .position = position, .segment = segment, .at = at,
                  .cap = cap, .out = index, .base = base, .item = item, .alone = threads == 1};
        compute(&c, leaves, draw.logits, work);
        in_parallel(threads, n, draw_row, &draw);
    }
}
