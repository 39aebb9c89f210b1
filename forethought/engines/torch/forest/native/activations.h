/* What a token leaves in each layer while it is sampled: all that the backward pass of a training step on the same weights reads of its
   forward pass, which then need not be computed. */
#pragma once
#include "vectors.h"

typedef struct { /* rows that tokens leave, one after another; `at` null: nothing is left */
    float *at;   /* [layers, room, width of `Left`] */
    float *last; /* [room, hidden]: what comes out of the last layer */
    float *logits; /* [room, vocabulary]: of those after which logits were asked for */
    long room, used;
} Activations;

typedef struct {
    long x, qkv, lse, out, middle, gate, up, width; /* where each stands in a row, and how long that is: an odd number of cache lines */
} Left;

static Left left_of(int hidden, int heads, int kv_heads, int d, int inner) {
    Left p = {.x = 0, .qkv = hidden};
    p.out = p.qkv + (long)(heads + 2 * kv_heads) * d, p.middle = p.out + (long)heads * d, p.gate = p.middle + hidden, p.up = p.gate + inner;
    p.lse = p.up + inner, p.width = ((p.lse + heads + 15) / 16 | 1) * 16;
    return p;
}
