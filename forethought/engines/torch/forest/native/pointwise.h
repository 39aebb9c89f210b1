/* RMSNorm, rotary positions and the gated MLP's gate, forward and backward. */
#pragma once
#include "vectors.h"

/* RMSNorm: y = w x / rms(x), r = 1 / rms(x). */
static void norm(int N, int H, const float *x, const float *w, float eps, float *y, float *r) {
    for (int i = 0; i < N; i++, x += H, y += H) {
        vf total = (vf){0};
        float rest = 0;
        int j = 0;
        for (; j + W <= H; j += W) total += load(x + j) * load(x + j);
        for (; j < H; j++) rest += x[j] * x[j];
        r[i] = 1.0f / sqrtf((sum_of(total) + rest) / H + eps);
        for (int k = 0; k < H; k++) y[k] = x[k] * r[i] * w[k];
    }
}

/* dw, added up over the rows. */
static void norm_weight(int N, int H, const float *x, const float *r, const float *grad, float *dw) {
    for (int i = 0; i < N; i++, x += H, grad += H)
        for (int k = 0; k < H; k++) dw[k] += grad[k] * x[k] * r[i];
}

/* dx, and dw added up over the rows (null: not wanted). */
static void norm_backward(int N, int H, const float *x, const float *w, const float *r, const float *grad, float *dx, float *dw) {
    for (int i = 0; i < N; i++, x += H, grad += H, dx += H) {
        vf total = (vf){0};
        float rest = 0;
        int j = 0;
        for (; j + W <= H; j += W) total += load(grad + j) * load(w + j) * load(x + j);
        for (; j < H; j++) rest += grad[j] * w[j] * x[j];
        float pull = (sum_of(total) + rest) * r[i] * r[i] / H;
        for (int k = 0; k < H; k++) dx[k] = (grad[k] * w[k] - x[k] * pull) * r[i];
        if (dw) norm_weight(1, H, x, r + i, grad, dw);
    }
}

/* Rotary positions on halves: y [N, heads, d] of x with rows `ld` apart; cos and sin [N, d / 2]; backward is the turn by -1. */
static void rotate(int N, int heads, int d, const float *x, long ld, const float *cos, const float *sin, float scale, float turn,
                   float *y) {
    int half = d / 2;
    for (int i = 0; i < N; i++, cos += half, sin += half)
        for (int h = 0; h < heads; h++, y += d) {
            const float *a = x + i * ld + h * d, *b = a + half;
            for (int j = 0; j < half; j++) {
                float c = cos[j] * scale, s = sin[j] * scale * turn;
                y[j] = a[j] * c - b[j] * s;
                y[j + half] = b[j] * c + a[j] * s;
            }
        }
}

/* y = silu(gate) * up over n numbers. */
static void gate(long n, const float *gate, const float *up, float *y) {
    long j = 0;
    for (; j + W <= n; j += W) store(y + j, load(gate + j) / (1.0f + vexp(-load(gate + j))) * load(up + j));
    for (; j < n; j++) y[j] = gate[j] / (1.0f + expf(-gate[j])) * up[j];
}

static void gate_backward(long n, const float *gate, const float *up, const float *grad, float *d_gate, float *d_up) {
    long j = 0;
    for (; j + W <= n; j += W) {
        vf g = load(gate + j), s = 1.0f / (1.0f + vexp(-g)), dy = load(grad + j);
        store(d_up + j, dy * g * s);
        store(d_gate + j, dy * load(up + j) * s * (1.0f + g * (1.0f - s)));
    }
    for (; j < n; j++) {
        float g = gate[j], s = 1.0f / (1.0f + expf(-g));
        d_up[j] = grad[j] * g * s;
        d_gate[j] = grad[j] * up[j] * s * (1.0f + g * (1.0f - s));
    }
}
