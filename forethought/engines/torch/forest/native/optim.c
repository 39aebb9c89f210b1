/* AdamW (arXiv 1711.05101) over many tensors: the norm of all gradients in one pass, and clipping and the update in another. */
#include "crew.h"

enum { PIECE = 1 << 16, SOME = 256 }; /* numbers of a chunk; numbers that are summed in float32 */

typedef struct {
    int tensors;
    const int64_t *size, *first; /* of each tensor: its numbers, and its first chunk; `first` has one more, the number of chunks */
    float *const *p, *const *g, *const *m, *const *v; /* weights, gradients, moments */
    double *sums; /* a number for each chunk */
    float clip, keep, rate, beta1, beta2, eps, root; /* keep: 1 - rate x decay; rate and root: corrected for the number of steps */
} Moved;

/* The tensor of a chunk, and which of its numbers. */
static int tensor_of(const Moved *a, int chunk, long *from, long *end) {
    int low = 0, high = a->tensors;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (a->first[middle] <= chunk) low = middle;
        else high = middle;
    }
    *from = (chunk - a->first[low]) * (long)PIECE;
    *end = *from + PIECE < a->size[low] ? *from + PIECE : a->size[low];
    return low;
}

static void squares(void *job, int chunk, int thread) {
    const Moved *a = job;
    long from, end;
    const float *g = a->g[tensor_of(a, chunk, &from, &end)];
    double total = 0;
    while (from < end) {
        long most = from + SOME < end ? from + SOME : end;
        vf sum = (vf){0};
        float rest = 0;
        for (; from + W <= most; from += W) sum += load(g + from) * load(g + from);
        for (; from < most; from++) rest += g[from] * g[from];
        total += sum_of(sum) + rest;
    }
    a->sums[chunk] = total;
}

static void move(void *job, int chunk, int thread) {
    const Moved *a = job;
    long from, end;
    int t = tensor_of(a, chunk, &from, &end);
    float *p = a->p[t], *m = a->m[t], *v = a->v[t];
    const float *g = a->g[t];
    for (long i = from; i < end; i++) {
        float own = g[i] * a->clip;
        m[i] += (own - m[i]) * (1 - a->beta1);
        v[i] = v[i] * a->beta2 + own * own * (1 - a->beta2);
        p[i] = p[i] * a->keep - a->rate * m[i] / (sqrtf(v[i]) / a->root + a->eps);
    }
}

/* The sum of all squares, whatever the number of threads. */
double ft_squares(int threads, const Moved *a) {
    double total = 0;
    int chunks = a->first[a->tensors];
    in_parallel(threads, chunks, squares, (void *)a);
    for (int i = 0; i < chunks; i++) total += a->sums[i];
    return total;
}

void ft_adamw(int threads, const Moved *a) { in_parallel(threads, a->first[a->tensors], move, (void *)a); }
