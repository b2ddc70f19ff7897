/* A whole AKConv layer on the CPU without gradients. It computes offsets, samples and matrix product for one output row
 * at a time, so that the offsets and columns of a row stay in the cache.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_kernel.c"

#define LANES ((ptrdiff_t)(32 / sizeof(REAL)))
#define TAPS 9 /* of the 3x3 convolution that predicts the offsets */
typedef REAL Vector __attribute__((vector_size(32), aligned(sizeof(REAL)), may_alias));

/* A matrix (outputs, count) as panels (count, width), padded with zeros. A panel is 2 LANES wide; the last one is LANES
 * wide if that suffices. The bias is padded to the width of all panels. */
typedef struct {
    ptrdiff_t outputs, count;
    REAL *panels, *bias;
} Packed;

static ptrdiff_t panel_width(ptrdiff_t remaining) { return remaining > LANES ? 2 * LANES : LANES; }

static ptrdiff_t packed_size(ptrdiff_t outputs, ptrdiff_t count) { return (outputs + 2 * LANES) * (count + 1); }

static Packed pack(const REAL *weight, const REAL *bias, ptrdiff_t outputs, ptrdiff_t count, REAL *memory) {
    const Packed packed = {outputs, count, memory, memory + (outputs + 2 * LANES) * count};
    for (ptrdiff_t first = 0, width; first < outputs; first += width) {
        width = panel_width(outputs - first);
        REAL *panel = packed.panels + first * count;
        for (ptrdiff_t o = 0; o < width; o++) {
            const int exists = first + o < outputs;
            packed.bias[first + o] = exists && bias ? bias[first + o] : 0;
            for (ptrdiff_t k = 0; k < count; k++) panel[k * width + o] = exists ? weight[(first + o) * count + k] : 0;
        }
    }
    return packed;
}

/* Multiply a tile of `pixels` rows, each in `segments` parts, by one panel. `pixels` and `vectors` are constants after
 * inlining, so that the loops over them are unrolled and the sums stay in registers. */
static inline __attribute__((always_inline)) void multiply_tile(const REAL *const *from, ptrdiff_t row_length,
                                                                ptrdiff_t segments, ptrdiff_t length, const REAL *panel,
                                                                const REAL *bias, REAL *to, ptrdiff_t outputs,
                                                                ptrdiff_t used, const int pixels, const int vectors) {
    Vector sums[12];
    for (int p = 0; p < pixels; p++)
        for (int v = 0; v < vectors; v++) sums[p * vectors + v] = ((const Vector *)bias)[v];
    for (ptrdiff_t segment = 0; segment < segments; segment++, from += row_length)
        for (ptrdiff_t k = 0; k < length; k++, panel += vectors * LANES) {
            const Vector left = ((const Vector *)panel)[0], right = ((const Vector *)panel)[vectors - 1];
            for (int p = 0; p < pixels; p++) {
                sums[p * vectors] += from[p][k] * left;
                if (vectors == 2) sums[p * vectors + 1] += from[p][k] * right;
            }
        }
    for (int p = 0; p < pixels; p++)
        if (used == vectors * LANES)
            for (int v = 0; v < vectors; v++) ((Vector *)(to + p * outputs))[v] = sums[p * vectors + v];
        else
            memcpy(to + p * outputs, sums + p * vectors, (size_t)used * sizeof(REAL));
}

/* Multiply a row of pixels by a packed matrix; `from` (segments, row_length) points to the parts of each pixel. */
static void multiply(const REAL *const *from, ptrdiff_t row_length, ptrdiff_t segments, const Packed *matrix,
                     REAL *to) {
    const ptrdiff_t outputs = matrix->outputs, length = matrix->count / segments;
    for (ptrdiff_t first = 0, width; first < outputs; first += width) {
        width = panel_width(outputs - first);
        const ptrdiff_t used = outputs - first < width ? outputs - first : width;
        const REAL *panel = matrix->panels + first * matrix->count, *bias = matrix->bias + first;
        ptrdiff_t j = 0;
#define TILES(PIXELS, VECTORS)                                                                                  \
    for (; j + PIXELS <= row_length; j += PIXELS)                                                               \
    multiply_tile(from + j, row_length, segments, length, panel, bias, to + j * outputs + first, outputs, used, \
                  PIXELS, VECTORS)
        if (width == 2 * LANES) {
            TILES(6, 2);
            TILES(2, 2);
            TILES(1, 2);
        } else {
            TILES(8, 1);
            TILES(4, 1);
            TILES(1, 1);
        }
#undef TILES
    }
}

/* Convolve each channel of a row of pixels by itself: `from` (TAPS, width) points to its neighbours, `weight` is
 * (TAPS, channels). */
static void convolve_depthwise(const REAL *const *from, ptrdiff_t width, ptrdiff_t channels, const REAL *weight,
                               REAL *to) {
    memset(to, 0, (size_t)(width * channels) * sizeof(REAL));
    for (ptrdiff_t j = 0; j < width; j++, to += channels)
        for (ptrdiff_t tap = 0; tap < TAPS; tap++)
#pragma omp simd
            for (ptrdiff_t c = 0; c < channels; c++) to[c] += weight[tap * channels + c] * from[tap * width + j][c];
}

/* Compute out (B, h, w, O) from map (B, H, W, C), points (N, 2), weight (O, N, C) and bias (O) or NULL. The offsets, and
 * the factors of modulated samples before their sigmoid, M in all, come from offset_weight (M, 3, 3, C), or after a
 * depthwise convolution with weights (3, 3, C) from offset_weight (M, C), and offset_bias (M) or NULL. Returns 1 if out
 * of memory, otherwise 0. */
int layer(const Shape *s, const REAL *map, const REAL *depthwise, const REAL *offset_weight, const REAL *offset_bias,
          const REAL *points, const REAL *weight, const REAL *bias, ptrdiff_t outputs, REAL *out) {
    const ptrdiff_t channels = s->channels, columns = s->points * channels, width = s->out_w;
    const ptrdiff_t moves = (2 + s->modulated) * s->points, inputs = depthwise ? channels : TAPS * channels;
    const ptrdiff_t offset_size = packed_size(moves, inputs), size = packed_size(outputs, columns);
    REAL *shared = calloc((size_t)(offset_size + size + channels), sizeof(REAL));
    if (!shared) return 1;
    const Packed offset_matrix = pack(offset_weight, offset_bias, moves, inputs, shared);
    const Packed matrix = pack(weight, bias, outputs, columns, shared + offset_size);
    const REAL *nothing = shared + offset_size + size; /* zeros, which the 3x3 convolution reads outside the map */
    Shape row = *s;                                    /* describes the offsets of one row */
    row.offset_image = row.offset_row = 0;
    row.offset_column = moves;
    row.offset_channel = 1;
    int failed = 0;
#pragma omp parallel num_threads((int)s->threads)
    {
        const REAL **from = malloc((size_t)(TAPS * width) * sizeof(REAL *));
        REAL *offset = malloc((size_t)(width * (moves + columns)) * sizeof(REAL));
        if (!from || !offset) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for collapse(2) schedule(static)
        for (ptrdiff_t b = 0; b < s->batch; b++)
            for (ptrdiff_t i = 0; i < s->out_h; i++) {
                if (!from || !offset) continue;
                REAL *samples = offset + width * moves;
                for (ptrdiff_t tap = 0; tap < TAPS; tap++)
                    for (ptrdiff_t j = 0; j < width; j++) {
                        const ptrdiff_t y = i * s->stride + tap / 3 - 1, x = j * s->stride + tap % 3 - 1;
                        const int inside = y >= 0 && y < s->height && x >= 0 && x < s->width;
                        from[tap * width + j] =
                            inside ? map + ((b * s->height + y) * s->width + x) * channels : nothing;
                    }
                if (depthwise) {
                    /* The samples, which come later, leave room for its output. */
                    convolve_depthwise(from, width, channels, depthwise, samples);
                    for (ptrdiff_t j = 0; j < width; j++) from[j] = samples + j * channels;
                }
                multiply(from, width, depthwise ? 1 : TAPS, &offset_matrix, offset);
                for (ptrdiff_t j = 0; s->modulated && j < width; j++)
                    for (ptrdiff_t n = 2 * s->points; n < moves; n++)
                        offset[j * moves + n] = 2 / (1 + (REAL)exp(-offset[j * moves + n]));
                for (ptrdiff_t j = 0; j < width; j++) {
                    from[j] = samples + j * columns;
                    for (ptrdiff_t n = 0; n < s->points; n++)
                        blend(&row, map, find(&row, offset, points, b, i, j, n), samples + j * columns + n * channels);
                }
                multiply(from, width, 1, &matrix, out + (b * s->out_h + i) * width * outputs);
            }
        free(from);
        free(offset);
    }
    free(shared);
    return failed;
}
