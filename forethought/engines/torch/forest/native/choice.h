/* The choice of the next token: inverse-CDF sampling among the heaviest tokens (top-k, top-p, min-p), in a few passes over the vocabulary
   and without sorting it. */
#pragma once
#include "crew.h"
#include "vectors.h"
#include <stdlib.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

enum { SPAN = 128 }; /* weights whose sum is formed at once */

/* Floats of the work space of one thread. */
static long choice_work(int V) { return 2L * V + 2 * ((V + SPAN - 1) / SPAN) + 16; }

static double sum_span(int V, const float *weight, int from) {
    vf total = (vf){0};
    double rest = 0;
    int i = from, end = from + SPAN < V ? from + SPAN : V;
    for (; i + W <= end; i += W) total += load(weight + i);
    for (; i < end; i++) rest += weight[i];
    return rest + sum_of(total);
}

/* The sums of all spans, and of these. */
static double sum_spans(int V, const float *weight, double *span) {
    double total = 0;
    for (int i = 0; i < V; i += SPAN) total += span[i / SPAN] = sum_span(V, weight, i);
    return total;
}

/* weight[V]: e to the power of x over the temperature, relative to the largest. */
static void exponentials(int V, const float *x, float most, float temperature, float *weight) {
    int j = 0;
    if (temperature == 1.0f)
        for (; j + W <= V; j += W) store(weight + j, vexp(load(x + j) - most));
    else
        for (; j + W <= V; j += W) store(weight + j, vexp((load(x + j) - most) / temperature));
    for (; j < V; j++) weight[j] = expf((x[j] - most) / temperature);
}

/* The largest number's first place; -1 where some are NaN. */
static int largest(int V, const float *x) {
    vf most[4];
    vi bad = (vi){0};
    float top = x[0];
    int j = 0, wrong = 0;
    for (int k = 0; k < 4; k++) most[k] = all(top);
    for (; j + 4 * W <= V; j += 4 * W)
        for (int k = 0; k < 4; k++) {
            vf some = load(x + j + k * W);
            most[k] = larger(some, most[k]);
            bad |= some != some;
        }
    for (int k = 0; k < 4; k++) {
        float one = max_of(most[k]);
        top = one > top ? one : top;
    }
    for (int i = 0; i < W; i++) wrong |= bad[i];
    for (int i = j; i < V; i++) {
        wrong |= x[i] != x[i];
        top = x[i] > top ? x[i] : top;
    }
    if (wrong || x[0] != x[0]) return -1;
    for (j = 0; j + SPAN <= V; j += SPAN) {
        vi here = (vi){0};
        int any = 0;
        for (int k = 0; k < SPAN; k += W) here |= load(x + j + k) == all(top);
        for (int i = 0; i < W; i++) any |= here[i];
        if (any) break;
    }
    while (x[j] != top) j++;
    return j;
}

/* Those of n numbers from `from` up and below `below`, in their order, to `into`, which may be x itself; how many. */
static int between(int n, const float *x, float from, float below, float *into) {
    int kept = 0, i = 0;
#if defined(__AVX512F__)
    for (; i + W <= n; i += W) {
        __m512 some = _mm512_loadu_ps(x + i);
        __mmask16 in = _mm512_cmp_ps_mask(some, _mm512_set1_ps(from), _CMP_GE_OQ) & _mm512_cmp_ps_mask(some, _mm512_set1_ps(below), _CMP_LT_OQ);
        if (!in) continue;
        int count = __builtin_popcount(in);
        _mm512_mask_storeu_ps(into + kept, (__mmask16)((1u << count) - 1), _mm512_maskz_compress_ps(in, some));
        kept += count;
    }
#endif
    for (; i < n; i++) {
        float some = x[i];
        into[kept] = some;
        kept += some >= from && some < below;
    }
    return kept;
}

typedef float narrow __attribute__((vector_size(2 * W), aligned(4), may_alias));
typedef int32_t narrow_mask __attribute__((vector_size(2 * W)));
typedef double doubles __attribute__((vector_size(4 * W)));

/* The sum of those of n numbers that are `from` or more. */
static double mass(int n, const float *x, float from) {
    doubles total[4] = {(doubles){0}};
    double rest = 0;
    int i = 0;
    for (; i + 2 * W <= n; i += 2 * W)
        for (int k = 0; k < 4; k++) {
            narrow some = *(const narrow *)(x + i + k * (W / 2));
            total[k] += __builtin_convertvector((narrow)((narrow_mask)some & (some >= from)), doubles);
        }
    for (; i < n; i++) rest += x[i] >= from ? x[i] : 0;
    for (int k = 0; k < 4; k++)
        for (int j = 0; j < W / 2; j++) rest += total[k][j];
    return rest;
}

/* How many of n numbers are `from` or more. */
static double number(int n, const float *x, float from) {
    vi total = (vi){0};
    int i = 0, rest = 0;
    for (; i + W <= n; i += W) total -= load(x + i) >= all(from); /* a comparison that holds is -1 */
    for (; i < n; i++) rest += x[i] >= from;
    for (int j = 0; j < W; j++) rest += total[j];
    return rest;
}

static float as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint32_t as_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* Weights of all tokens but the fewest, heaviest first, whose `mass` or `number` reaches the limit become zero; of equals the first ones
   stay. The lightest weight that stays, at least `least`, is found by halving its bits, among fewer weights each time. some: [V]. */
static void keep_heaviest(int V, float *weight, double (*measure)(int, const float *, float), double limit, float least, float *some) {
    double above = 0;
    uint32_t from = as_bits(least), below = as_bits(1.0f) + 1; /* no weight is more than one */
    int n = between(V, weight, least, INFINITY, some);
    if (!(measure(n, some, 0) >= limit)) return; /* all of them are needed */
    while (below - from > 1) {
        uint32_t middle = from + (below - from) / 2;
        double more = measure(n, some, as_float(middle));
        if (above + more >= limit) {
            from = middle;
            n = between(n, some, as_float(middle), INFINITY, some);
        } else {
            above += more, below = middle;
            n = between(n, some, 0, as_float(middle), some);
        }
    }
    float lightest = as_float(from);
    double each = measure(1, &lightest, 0);
    int equals = 0;
    while (equals < n && above < limit) above += each, equals++;
    int i = 0;
    if (equals == n)
        for (; i + W <= V; i += W) store(weight + i, where(load(weight + i) >= all(lightest), load(weight + i), all(0)));
    for (; i < V; i++)
        if (weight[i] < lightest || (weight[i] == lightest && equals-- <= 0)) weight[i] = 0;
}

static void top_k(int V, float *weight, int k, float *some) { keep_heaviest(V, weight, number, k, as_float(1), some); }

static void top_p(int V, float *weight, float p, float *some) {
    double total = mass(V, weight, 0);
    /* all that are lighter than this hold less than what may be left out */
    keep_heaviest(V, weight, mass, p * total, 0.5 * (1.0 - p) * total / V, some);
}

/* Weights below this share of the heaviest, which is one, become zero. */
static void min_p(int V, float *weight, float share) {
    int i = 0;
    for (; i + W <= V; i += W) store(weight + i, where(load(weight + i) >= all(share), load(weight + i), all(0)));
    for (; i < V; i++) weight[i] = weight[i] >= share ? weight[i] : 0;
}

/* The first token whose cumulative weight exceeds `target`; the last of any weight where rounding lets none exceed it. */
static int drawn_token(int V, const float *weight, const double *span, double target) {
    double sum = 0;
    int last = 0, i = 0;
    for (; i + SPAN < V && sum + span[i / SPAN] <= target; i += SPAN) sum += span[i / SPAN];
    for (; i < V; i++) {
        sum += weight[i];
        if (weight[i] > 0) last = i;
        if (sum > target && weight[i] > 0) return i;
    }
    return last;
}

typedef struct {
    int rows, vocabulary;
    const float *logits;
    const double *uniform;
    const float *temperature, *top_p, *min_p;
    const int64_t *top_k; /* 0: all */
    int64_t *token;
    float *logp, *drawn_logp, *work;
} Choices;

/* One row's. What is left of the distribution: at its temperature the `top_k` likeliest tokens, of these the fewest that hold `top_p`, and
   of these the ones that are at least `min_p` as likely as the likeliest. */
static void choose(const Choices *c, int r, float *work) {
    int V = c->vocabulary;
    const float *logits = c->logits + (long)r * V, temperature = c->temperature[r];
    double *span = (double *)(((uintptr_t)work + 7) / 8 * 8);
    float *weight = (float *)(span + (V + SPAN - 1) / SPAN);
    int best = largest(V, logits);
    float most = best < 0 ? NAN : logits[best];
    if (most - most != 0) { /* there is no distribution */
        c->token[r] = best < 0 ? 0 : best, c->logp[r] = c->drawn_logp[r] = NAN;
        return;
    }
    exponentials(V, logits, most, 1.0f, weight);
    double total = sum_spans(V, weight, span), drawn = total;
    int chosen = best;
    if (temperature > 0) {
        if (temperature != 1.0f) exponentials(V, logits, most, temperature, weight);
        int some = c->top_k[r] > 0 && c->top_k[r] < V;
        if (some) top_k(V, weight, c->top_k[r], weight + V);
        if (c->top_p[r] < 1.0f) top_p(V, weight, c->top_p[r], weight + V);
        if (c->min_p[r] > 0) min_p(V, weight, c->min_p[r]);
        if (temperature != 1.0f || some || c->top_p[r] < 1.0f || c->min_p[r] > 0) drawn = sum_spans(V, weight, span);
        chosen = drawn_token(V, weight, span, c->uniform[r] * drawn);
    }
    c->token[r] = chosen;
    c->logp[r] = logits[chosen] - most - log(total);
    c->drawn_logp[r] = temperature > 0 ? log(weight[chosen] / drawn) : 0;
}

static void choose_row(void *job, int row, int thread) {
    const Choices *c = job;
    choose(c, row, c->work + thread * choice_work(c->vocabulary));
}
