/* What rows of logits say of one token each, and how that moves with the logits: each row is read from memory once. */
#include "crew.h"
#include "vectors.h"

enum { SPAN = 128 }; /* numbers that are summed in float32; their sums are in double */

typedef struct {
    int V;
    const float *x;     /* [rows, V] */
    const float *const *at; /* of each row; null: they are those of x */
    const int64_t *id;
    float *logp, *entropy;
    float *descent;     /* [rows, V]: minus the derivative of logp; null: not wanted */
} Said;

static float most_of(int V, const float *x) {
    vf most = all(x[0]);
    float top = x[0];
    int j = 0;
    for (; j + W <= V; j += W) most = larger(load(x + j), most);
    for (; j < V; j++) top = x[j] > top ? x[j] : top;
    float other = max_of(most);
    return other > top ? other : top;
}

/* A NaN among the logits makes both sums NaN. */
static void say_row(void *job, int row, int thread) {
    const Said *s = job;
    int V = s->V;
    const float *x = s->at ? s->at[row] : s->x + (long)row * V;
    float *p = s->descent ? s->descent + (long)row * V : 0, most = most_of(V, x);
    double total = 0, below = 0; /* of e^(x - most), and of that times x - most */
    for (int from = 0; from < V; from += SPAN) {
        int end = from + SPAN < V ? from + SPAN : V, j = from;
        vf sum = (vf){0}, dot = (vf){0};
        for (; j + W <= end; j += W) {
            vf less = load(x + j) - most, e = vexp(less);
            sum += e, dot += e * less;
            if (p) store(p + j, e);
        }
        for (; j < end; j++) {
            float less = x[j] - most, e = expf(less);
            total += e, below += e * less;
            if (p) p[j] = e;
        }
        total += sum_of(sum), below += sum_of(dot);
    }
    double logp = x[s->id[row]] - most - log(total);
    s->logp[row] = logp, s->entropy[row] = log(total) - below / total;
    if (!p) return;
    float share = 1 / total;
    for (int j = 0; j < V; j++) p[j] *= share;
    p[s->id[row]] = expm1(logp); /* p - 1 */
}

void ft_say(int threads, int rows, int V, const float *x, const float *const *at, const int64_t *id, float *logp, float *entropy,
            float *descent) {
    Said s = {V, x, at, id, logp, entropy, descent};
    in_parallel(threads, rows, say_row, &s);
}
