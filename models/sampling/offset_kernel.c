/* The 3x3 convolution that predicts AKConv's offsets, forward and backward. Its few outputs do not fill the vectors of
 * ordinary convolutions; here a vector holds channels. For the letters see training_kernel.c, which includes this. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#define PIXELS 4 /* forward: 4 x 6 sums in 32 registers */
#define OUTPUTS 6
#else
#define BYTES 32
#define PIXELS 2 /* 2 x 3 sums in 16 registers */
#define OUTPUTS 3
#endif
#define LANES (8 * BYTES / BITS)

typedef REAL Vector __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#if BITS == 32
typedef int32_t Integers __attribute__((vector_size(BYTES)));
#else
typedef int64_t Integers __attribute__((vector_size(BYTES)));
#endif
#include "vectors.c"

typedef struct {
    ptrdiff_t batch, height, width, out_h, out_w, points, channels, stride;
    ptrdiff_t zeros;     /* padding: 0 is border, 1 is zeros */
    ptrdiff_t modulated; /* whether a factor for each point follows the offsets: M is 3N, otherwise 2N */
    ptrdiff_t symmetric; /* gradient at an integer position: 0 is towards the next pixel, 1 the mean of both sides */
    ptrdiff_t threads;   /* number of threads */
    ptrdiff_t chunks;    /* channel chunks of the backward pass */
} Shape;

INLINE Vector load(const REAL *from) { return *(const Vector *)from; }
INLINE void store(REAL *to, Vector value) { *(Vector *)to = value; }

INLINE Vector load_part(const REAL *from, ptrdiff_t count) {
    Vector part = {0};
    if (count >= LANES) return load(from);
    memcpy(&part, from, (size_t)count * sizeof(REAL));
    return part;
}

INLINE void store_part(REAL *to, Vector value, ptrdiff_t count) {
    if (count >= LANES)
        store(to, value);
    else
        memcpy(to, &value, (size_t)count * sizeof(REAL));
}

/* Write the sums (pixels, outputs) of TAPS rows of C channels, times weights (outputs, TAPS, C). `outputs` is constant
 * after inlining, so that the sums stay in registers. */
INLINE void predict_tile(const REAL *const (*from)[PIXELS], ptrdiff_t channels, const REAL *weight, const int outputs,
                         REAL *to) {
    Vector sums[PIXELS * OUTPUTS];
#pragma GCC unroll 24
    for (int k = 0; k < PIXELS * outputs; k++) sums[k] = (Vector){0};
    const ptrdiff_t rest = channels % LANES, whole = channels - rest;
    for (ptrdiff_t tap = 0; tap < TAPS; tap++, weight += channels) {
        const REAL *rows[PIXELS];
#pragma GCC unroll 4
        for (int p = 0; p < PIXELS; p++) rows[p] = from[tap][p];
        for (ptrdiff_t c = 0; c < whole; c += LANES)
#pragma GCC unroll 6
            for (int o = 0; o < outputs; o++) {
                const Vector factor = load(weight + o * TAPS * channels + c);
#pragma GCC unroll 4
                for (int p = 0; p < PIXELS; p++) sums[p * outputs + o] += load(rows[p] + c) * factor;
            }
        if (rest)
#pragma GCC unroll 6
            for (int o = 0; o < outputs; o++) {
                const Vector factor = load_part(weight + o * TAPS * channels + whole, rest);
#pragma GCC unroll 4
                for (int p = 0; p < PIXELS; p++) sums[p * outputs + o] += load_part(rows[p] + whole, rest) * factor;
            }
    }
    sum_lanes(sums, PIXELS * outputs, to);
}

/* Write the offsets of output row i, (w, M), with factors after their sigmoid. `nothing`, zeros, is read outside. */
static void predict(const Shape *s, const REAL *image, const REAL *weight, const REAL *bias, ptrdiff_t i,
                    const REAL *nothing, REAL *offset) {
    const ptrdiff_t moves = (2 + s->modulated) * s->points, channels = s->channels;
    for (ptrdiff_t j = 0; j < s->out_w; j += PIXELS) {
        const REAL *from[TAPS][PIXELS];
        for (ptrdiff_t tap = 0; tap < TAPS; tap++)
            for (ptrdiff_t p = 0; p < PIXELS; p++) {
                const ptrdiff_t y = i * s->stride + tap / 3 - 1, x = (j + p) * s->stride + tap % 3 - 1;
                const int inside = y >= 0 && y < s->height && x >= 0 && x < s->width && j + p < s->out_w;
                from[tap][p] = inside ? image + (y * s->width + x) * channels : nothing;
            }
        const ptrdiff_t used = s->out_w - j < PIXELS ? s->out_w - j : PIXELS;
        for (ptrdiff_t move = 0, outputs; move < moves; move += outputs) {
            const REAL *factors = weight + move * TAPS * channels;
            REAL sums[PIXELS * OUTPUTS];
            outputs = moves - move < OUTPUTS ? moves - move : OUTPUTS;
            switch (outputs) {
                case 1: predict_tile(from, channels, factors, 1, sums); break;
                case 2: predict_tile(from, channels, factors, 2, sums); break;
#if OUTPUTS == 6
                case 3: predict_tile(from, channels, factors, 3, sums); break;
                case 4: predict_tile(from, channels, factors, 4, sums); break;
                case 5: predict_tile(from, channels, factors, 5, sums); break;
#endif
                default: predict_tile(from, channels, factors, OUTPUTS, sums);
            }
            for (ptrdiff_t p = 0; p < used; p++)
                for (ptrdiff_t o = 0; o < outputs; o++)
                    offset[(j + p) * moves + move + o] = sums[p * outputs + o] + (bias ? bias[move + o] : 0);
        }
    }
    for (ptrdiff_t j = 0; s->modulated && j < s->out_w; j++)
        for (ptrdiff_t n = 2 * s->points; n < moves; n++)
            offset[j * moves + n] = 2 / (1 + (REAL)exp(-offset[j * moves + n]));
}

/* Add, for `count` output pixels, the gradients of one row of taps: of the weights (outputs, TAPS, C), from the three
 * pixels under the taps, and of these pixels. The distance of the taps from one output pixel to the next is `step`. */
INLINE void unpredict_tile(const REAL *const *from, REAL *const *to, ptrdiff_t step, ptrdiff_t count, const REAL *slope,
                           ptrdiff_t moves, const REAL *weight, REAL *grad_weight, ptrdiff_t channels, ptrdiff_t lanes,
                           const int outputs) {
    Vector sums[3 * OUTPUTS];
#pragma GCC unroll 18
    for (int k = 0; k < 3 * outputs; k++) sums[k] = (Vector){0};
    for (ptrdiff_t j = 0; j < count; j++) {
        Vector pixel[3];
#pragma GCC unroll 3
        for (int t = 0; t < 3; t++) pixel[t] = load_part(from[t] + j * step, lanes);
#pragma GCC unroll 6
        for (int o = 0; o < outputs; o++)
#pragma GCC unroll 3
            for (int t = 0; t < 3; t++) sums[3 * o + t] += slope[j * moves + o] * pixel[t];
    }
#pragma GCC unroll 18
    for (int k = 0; k < 3 * outputs; k++) {
        REAL *sum = grad_weight + (k / 3 * TAPS + k % 3) * channels;
        store_part(sum, load_part(sum, lanes) + sums[k], lanes);
        sums[k] = load_part(weight + (k / 3 * TAPS + k % 3) * channels, lanes);
    }
    for (ptrdiff_t j = 0; j < count; j++) {
        Vector totals[3];
#pragma GCC unroll 3
        for (int t = 0; t < 3; t++) totals[t] = load_part(to[t] + j * step, lanes);
#pragma GCC unroll 6
        for (int o = 0; o < outputs; o++)
#pragma GCC unroll 3
            for (int t = 0; t < 3; t++) totals[t] += slope[j * moves + o] * sums[3 * o + t];
#pragma GCC unroll 3
        for (int t = 0; t < 3; t++) store_part(to[t] + j * step, totals[t], lanes);
    }
}

/* Add the gradients from output row i: of an image's map, over the channels from `first` to `end`, and of weight
 * (M, 3, 3, C) and bias (M), one after the other in `grad_weight`, from `slope`, (w, M), that of the offsets before the
 * sigmoid of the factors. `nothing` holds C zeros, and C numbers for each tap in a row of taps that nobody reads. */
static void unpredict(const Shape *s, const REAL *image, const REAL *weight, const REAL *slope, ptrdiff_t i,
                      REAL *nothing, ptrdiff_t first, ptrdiff_t end, REAL *grad_image, REAL *grad_weight) {
    const ptrdiff_t moves = (2 + s->modulated) * s->points, channels = s->channels, step = s->stride * channels;
    REAL *grad_bias = grad_weight + moves * TAPS * channels;
    for (ptrdiff_t k = 0; !first && k < s->out_w * moves; k += moves)
        for (ptrdiff_t move = 0; move < moves; move++) grad_bias[move] += slope[k + move];
    /* The first and the last output pixel have taps outside the map; those between them have none. */
    const ptrdiff_t last = s->out_w - 1, parts[4] = {0, 1, last > 0 ? last : 1, last + 1};
    for (ptrdiff_t row = 0; row < 3; row++) {
        const ptrdiff_t y = i * s->stride + row - 1;
        if (y < 0 || y >= s->height) continue;
        for (ptrdiff_t c = first; c < end; c += LANES)
            for (int part = 0; part < 3; part++) {
                const ptrdiff_t j = parts[part], count = parts[part + 1] - j;
                const REAL *from[3];
                REAL *to[3];
                for (ptrdiff_t t = 0; t < 3; t++) {
                    const ptrdiff_t x = j * s->stride + t - 1, place = (y * s->width + x) * channels;
                    const int inside = x >= 0 && x < s->width;
                    from[t] = (inside ? image + place : nothing) + c;
                    to[t] = (inside ? grad_image + place : nothing + (1 + t) * channels) + c;
                }
                for (ptrdiff_t move = 0, outputs; count > 0 && move < moves; move += outputs) {
                    const ptrdiff_t place = (move * TAPS + 3 * row) * channels + c;
                    outputs = moves - move < OUTPUTS ? moves - move : OUTPUTS;
#define TILE(COUNT)                                                                                                 \
    if (end - c >= LANES)                                                                                           \
        unpredict_tile(from, to, step, count, slope + j * moves + move, moves, weight + place, grad_weight + place, \
                       channels, LANES, COUNT);                                                                     \
    else                                                                                                            \
        unpredict_tile(from, to, step, count, slope + j * moves + move, moves, weight + place, grad_weight + place, \
                       channels, end - c, COUNT)
                    switch (outputs) {
                        case 1: TILE(1); break;
                        case 2: TILE(2); break;
#if OUTPUTS == 6
                        case 3: TILE(3); break;
                        case 4: TILE(4); break;
                        case 5: TILE(5); break;
#endif
                        default: TILE(OUTPUTS);
                    }
#undef TILE
                }
            }
    }
}
