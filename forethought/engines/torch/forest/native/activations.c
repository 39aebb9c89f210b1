/* See `activations.h`: from what tokens have left to the arrays of a training step's layer. */
#include "activations.h"
#include "crew.h"

enum { SOME = 32 }; /* tokens of a chunk */

typedef struct {
    int tokens, wanted, hidden, heads, kv_heads, d, inner;
    float eps;
    const float *const *at; /* of each token, its row in this layer; null: a token that nobody reads, whose numbers are zero */
    const int32_t *row;     /* [wanted], ascending; null: all are wanted */
    const uint8_t *asks;    /* [tokens], the same as a mask; null: all */
    float *x, *r1, *lse, *qkv, *out;    /* of all tokens, as `train.c` keeps them */
    float *r2, *middle, *gate, *up;     /* of the wanted ones */
} Taken;

static void copied(const float *from, long n, float *to) {
    if (from) memcpy(to, from, sizeof(float) * n);
    else memset(to, 0, sizeof(float) * n);
}

/* 1 / rms(x), as the norm has it. */
static float over_rms(int n, const float *x, float eps) {
    vf total = (vf){0};
    float rest = 0;
    int j = 0;
    for (; j + W <= n; j += W) total += load(x + j) * load(x + j);
    for (; j < n; j++) rest += x[j] * x[j];
    return 1.0f / sqrtf((sum_of(total) + rest) / n + eps);
}

static void take_some(void *job, int chunk, int thread) {
    const Taken *t = job;
    Left p = left_of(t->hidden, t->heads, t->kv_heads, t->d, t->inner);
    long H = t->hidden, A = (long)t->heads * t->d, K = A + 2L * t->kv_heads * t->d, F = t->inner;
    for (long i = (long)chunk * SOME; i < t->tokens && i < (chunk + 1L) * SOME; i++) {
        const float *own = t->at[i], *seen = t->asks && !t->asks[i] ? 0 : own; /* in the last layer others do not look around */
        copied(own ? own + p.x : 0, H, t->x + i * H);
        copied(own ? own + p.qkv : 0, K, t->qkv + i * K);
        copied(seen ? seen + p.out : 0, A, t->out + i * A);
        copied(seen ? seen + p.lse : 0, t->heads, t->lse + i * t->heads);
        t->r1[i] = over_rms(H, t->x + i * H, t->eps);
    }
    for (long i = (long)chunk * SOME; i < t->wanted && i < (chunk + 1L) * SOME; i++) {
        const float *own = t->at[t->row ? t->row[i] : i];
        copied(own ? own + p.middle : 0, H, t->middle + i * H);
        copied(own ? own + p.gate : 0, F, t->gate + i * F);
        copied(own ? own + p.up : 0, F, t->up + i * F);
        t->r2[i] = over_rms(H, t->middle + i * H, t->eps);
    }
}

void ft_take_left(int threads, const Taken *t) { in_parallel(threads, (t->tokens + SOME - 1) / SOME, take_some, (void *)t); }

long ft_left_width(int hidden, int heads, int kv_heads, int d, int inner) { return left_of(hidden, heads, kv_heads, d, inner).width; }
