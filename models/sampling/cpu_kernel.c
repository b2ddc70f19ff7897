/* AKConv's sampling on the CPU: one pass computes positions and weights and reads the map, forward and backward.
 *
 * utils/compiled.py compiles this twice, with REAL as float and as double. Maps are channels-last: a row holds the C
 * channels of one pixel. Letters: B batch, (H, W) map, (h, w) output, N points, C channels.
 * The library is not linked against libgomp: it uses the OpenMP runtime, and the threads, that torch has loaded.
 */
#include <stddef.h>

typedef struct {
    ptrdiff_t batch, height, width, out_h, out_w, points, channels, stride;
    ptrdiff_t offset_image, offset_channel, offset_row, offset_column; /* strides in elements */
    ptrdiff_t zeros;                                                   /* padding: 0 is border, 1 is zeros */
    ptrdiff_t threads;                                                 /* number of threads */
    ptrdiff_t chunks; /* channel chunks of the backward pass; each writes its own partial offset gradients */
} Shape;

typedef struct {
    ptrdiff_t low, high;          /* neighbouring pixels, always inside the map */
    REAL low_weight, high_weight; /* NaN for a non-finite position */
    REAL low_slope, high_slope;   /* derivatives of the weights with respect to the position */
} Axis;

static inline Axis locate(REAL position, ptrdiff_t size, ptrdiff_t zeros) {
    const REAL lowest = zeros ? -1 : 0, highest = zeros ? size : size - 1;
    /* NaN fails every comparison and becomes `lowest`, so that an index is never out of range. */
    REAL bounded = position > lowest ? position : lowest;
    bounded = bounded < highest ? bounded : highest;
    ptrdiff_t low = (ptrdiff_t)bounded; /* rounded towards zero */
    if ((REAL)low > bounded) low -= 1;
    const REAL inside = position == bounded;
    Axis axis;
    axis.high_weight = bounded - (REAL)low + 0 * position; /* NaN for a non-finite position */
    axis.low_weight = 1 - axis.high_weight;
    axis.low_slope = -inside;
    axis.high_slope = inside;
    ptrdiff_t high = low + 1;
    if (zeros) {
        const REAL low_exists = low >= 0 && low < size, high_exists = high < size;
        axis.low_weight *= low_exists;
        axis.high_weight *= high_exists;
        axis.low_slope *= low_exists;
        axis.high_slope *= high_exists;
    }
    /* Beyond 2^24 pixels `highest` may be rounded up to a pixel outside the map. */
    axis.low = low < 0 ? 0 : low < size ? low : size - 1;
    axis.high = high < size ? high : size - 1;
    return axis;
}

typedef struct {
    ptrdiff_t place[4]; /* offsets of the four rows in the map: top left, top right, bottom left, bottom right */
    REAL weight[4];
    Axis row, column;
} Sample;

static inline Sample find(const Shape *s, const REAL *offset, const REAL *points, ptrdiff_t b, ptrdiff_t i, ptrdiff_t j,
                          ptrdiff_t n) {
    const REAL *moved = offset + b * s->offset_image + i * s->offset_row + j * s->offset_column + n * s->offset_channel;
    Sample a;
    a.row = locate(moved[0] + ((REAL)(i * s->stride) + points[2 * n]), s->height, s->zeros);
    a.column =
        locate(moved[s->points * s->offset_channel] + ((REAL)(j * s->stride) + points[2 * n + 1]), s->width, s->zeros);
    const ptrdiff_t top = (b * s->height + a.row.low) * s->width, bottom = (b * s->height + a.row.high) * s->width;
    a.place[0] = (top + a.column.low) * s->channels;
    a.place[1] = (top + a.column.high) * s->channels;
    a.place[2] = (bottom + a.column.low) * s->channels;
    a.place[3] = (bottom + a.column.high) * s->channels;
    a.weight[0] = a.row.low_weight * a.column.low_weight;
    a.weight[1] = a.row.low_weight * a.column.high_weight;
    a.weight[2] = a.row.high_weight * a.column.low_weight;
    a.weight[3] = a.row.high_weight * a.column.high_weight;
    return a;
}

/* Write the weighted sum of four rows. */
static inline void blend(const Shape *s, const REAL *map, Sample a, REAL *to) {
    const REAL *r0 = map + a.place[0], *r1 = map + a.place[1], *r2 = map + a.place[2], *r3 = map + a.place[3];
    const REAL w0 = a.weight[0], w1 = a.weight[1], w2 = a.weight[2], w3 = a.weight[3];
#pragma omp simd
    for (ptrdiff_t c = 0; c < s->channels; c++) to[c] = w0 * r0[c] + w1 * r1[c] + w2 * r2[c] + w3 * r3[c];
}

/* Sample the map: `out` is (B, h, w, N, C). */
void forward(const Shape *s, const REAL *map, const REAL *offset, const REAL *points, REAL *out) {
#pragma omp parallel for collapse(2) schedule(static) num_threads((int)s->threads)
    for (ptrdiff_t b = 0; b < s->batch; b++)
        for (ptrdiff_t i = 0; i < s->out_h; i++)
            for (ptrdiff_t j = 0; j < s->out_w; j++) {
                REAL *pixel = out + ((b * s->out_h + i) * s->out_w + j) * s->points * s->channels;
                for (ptrdiff_t n = 0; n < s->points; n++)
                    blend(s, map, find(s, offset, points, b, i, j, n), pixel + n * s->channels);
            }
}

/* Add the gradient of the map to `grad_map` (zeros at the start) and write that of the offsets, (chunks, B, h, w, 2N),
 * from `grad`, (B, h, w, N, C). Threads never write to the same element: they differ in image or channel chunk. */
void backward(const Shape *s, const REAL *map, const REAL *offset, const REAL *points, const REAL *grad, REAL *grad_map,
              REAL *grad_offset) {
    const ptrdiff_t pixels = s->out_h * s->out_w;
#pragma omp parallel for collapse(2) schedule(static) num_threads((int)s->threads)
    for (ptrdiff_t chunk = 0; chunk < s->chunks; chunk++)
        for (ptrdiff_t b = 0; b < s->batch; b++) {
            const ptrdiff_t first = chunk * s->channels / s->chunks, end = (chunk + 1) * s->channels / s->chunks;
            for (ptrdiff_t i = 0; i < s->out_h; i++)
                for (ptrdiff_t j = 0; j < s->out_w; j++) {
                    const ptrdiff_t pixel = b * pixels + i * s->out_w + j;
                    REAL *slope = grad_offset + (chunk * s->batch * pixels + pixel) * 2 * s->points;
                    for (ptrdiff_t n = 0; n < s->points; n++) {
                        const Sample a = find(s, offset, points, b, i, j, n);
                        const REAL *from = grad + (pixel * s->points + n) * s->channels;
                        const REAL *r[4] = {map + a.place[0], map + a.place[1], map + a.place[2], map + a.place[3]};
                        REAL dot[4];
                        /* One corner at a time, since at the border two corners may be the same row. */
                        for (int k = 0; k < 4; k++) {
                            REAL *to = grad_map + a.place[k];
                            const REAL *row = r[k], weight = a.weight[k];
                            REAL sum = 0;
#pragma omp simd reduction(+ : sum)
                            for (ptrdiff_t c = first; c < end; c++) {
                                sum += from[c] * row[c];
                                to[c] += weight * from[c];
                            }
                            dot[k] = sum;
                        }
                        slope[n] = a.row.low_slope * (a.column.low_weight * dot[0] + a.column.high_weight * dot[1]) +
                                   a.row.high_slope * (a.column.low_weight * dot[2] + a.column.high_weight * dot[3]);
                        slope[s->points + n] =
                            a.column.low_slope * (a.row.low_weight * dot[0] + a.row.high_weight * dot[2]) +
                            a.column.high_slope * (a.row.low_weight * dot[1] + a.row.high_weight * dot[3]);
                    }
                }
        }
}
