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
    ptrdiff_t modulated; /* whether a factor for each point follows the offsets, which have 2N or 3N channels */
    ptrdiff_t symmetric; /* gradient at an integer position: 0 is towards the next pixel, 1 the mean of both sides */
    ptrdiff_t threads;   /* number of threads */
    ptrdiff_t chunks; /* channel chunks of the backward pass; each writes its own partial offset gradients */
} Shape;

typedef struct {
    ptrdiff_t low, high;          /* neighbouring pixels, always inside the map */
    REAL low_weight, high_weight; /* NaN for a non-finite position */
    REAL low_slope, high_slope;   /* derivatives of the weights with respect to the position */
    ptrdiff_t previous;           /* the pixel before `low`, which counts for a symmetric gradient only */
    REAL previous_slope;
} Axis;

static inline Axis locate(REAL position, ptrdiff_t size, ptrdiff_t zeros, ptrdiff_t symmetric) {
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
    const int both_sides = symmetric && (REAL)low == bounded;
    axis.low_slope = both_sides ? 0 : -inside;
    axis.high_slope = both_sides ? inside / 2 : inside;
    axis.previous_slope = both_sides ? -inside / 2 : 0;
    ptrdiff_t high = low + 1, previous = low - 1;
    if (zeros) {
        const REAL low_exists = low >= 0 && low < size, high_exists = high < size;
        axis.low_weight *= low_exists;
        axis.high_weight *= high_exists;
        axis.low_slope *= low_exists;
        axis.high_slope *= high_exists;
        axis.previous_slope *= previous >= 0 && previous < size;
    }
    /* Beyond 2^24 pixels `highest` may be rounded up to a pixel outside the map. */
    axis.low = low < 0 ? 0 : low < size ? low : size - 1;
    axis.high = high < size ? high : size - 1;
    axis.previous = previous < 0 ? 0 : previous < size ? previous : size - 1;
    return axis;
}

typedef struct {
    ptrdiff_t place[4]; /* offsets of the four rows in the map: top left, top right, bottom left, bottom right */
    REAL weight[4];     /* times the factor */
    REAL factor;
    Axis row, column;
} Sample;

static inline ptrdiff_t place(const Shape *s, ptrdiff_t b, ptrdiff_t row, ptrdiff_t column) {
    return ((b * s->height + row) * s->width + column) * s->channels;
}

static inline Sample find(const Shape *s, const REAL *offset, const REAL *points, ptrdiff_t b, ptrdiff_t i, ptrdiff_t j,
                          ptrdiff_t n) {
    const REAL *moved = offset + b * s->offset_image + i * s->offset_row + j * s->offset_column + n * s->offset_channel;
    Sample a;
    const ptrdiff_t all = s->points * s->offset_channel;
    const REAL row = moved[0] + ((REAL)(i * s->stride) + points[2 * n]);
    const REAL column = moved[all] + ((REAL)(j * s->stride) + points[2 * n + 1]);
    a.row = locate(row, s->height, s->zeros, s->symmetric);
    a.column = locate(column, s->width, s->zeros, s->symmetric);
    a.factor = s->modulated ? moved[2 * all] : 1;
    a.place[0] = place(s, b, a.row.low, a.column.low);
    a.place[1] = place(s, b, a.row.low, a.column.high);
    a.place[2] = place(s, b, a.row.high, a.column.low);
    a.place[3] = place(s, b, a.row.high, a.column.high);
    a.weight[0] = a.row.low_weight * a.column.low_weight;
    a.weight[1] = a.row.low_weight * a.column.high_weight;
    a.weight[2] = a.row.high_weight * a.column.low_weight;
    a.weight[3] = a.row.high_weight * a.column.high_weight;
    for (int k = 0; k < 4; k++) a.weight[k] *= a.factor;
    return a;
}

/* Write the weighted sum of four rows. */
static inline void blend(const Shape *s, const REAL *map, Sample a, REAL *to) {
    const REAL *r0 = map + a.place[0], *r1 = map + a.place[1], *r2 = map + a.place[2], *r3 = map + a.place[3];
    const REAL w0 = a.weight[0], w1 = a.weight[1], w2 = a.weight[2], w3 = a.weight[3];
#pragma omp simd
    for (ptrdiff_t c = 0; c < s->channels; c++) to[c] = w0 * r0[c] + w1 * r1[c] + w2 * r2[c] + w3 * r3[c];
}
