/* Where AKConv samples: the positions of an output row, the pixels around each, and their bilinear weights. For the
 * letters see training_kernel.c, which includes this. */
/* One axis of the samples of an output row. */
typedef struct {
    REAL *position;
    int32_t *low, *high;          /* neighbouring pixels, always inside the map */
    REAL *low_weight, *high_weight; /* NaN for a non-finite position */
    REAL *low_slope, *high_slope; /* derivatives of the weights with respect to the position */
    int32_t *previous;            /* the pixel before `low`, which counts for a symmetric gradient only */
    REAL *previous_slope;
} Axis;

typedef struct {
    Axis row, column; /* of w N samples each */
    void *memory;
} Samples;

enum { REALS = 6, INTEGERS = 3 }; /* arrays of an axis */

static Samples allocate(const Shape *s) {
    const size_t count = (size_t)(s->out_w * s->points);
    Samples samples = {.memory = malloc(2 * count * (REALS * sizeof(REAL) + INTEGERS * sizeof(int32_t)))};
    REAL *real = samples.memory;
    Axis *axes[2] = {&samples.row, &samples.column};
    if (real)
        for (int k = 0; k < 2; k++, real += REALS * count)
            *axes[k] = (Axis){.position = real,
                              .low_weight = real + count,
                              .high_weight = real + 2 * count,
                              .low_slope = real + 3 * count,
                              .high_slope = real + 4 * count,
                              .previous_slope = real + 5 * count};
    int32_t *integer = (int32_t *)real;
    if (real)
        for (int k = 0; k < 2; k++, integer += INTEGERS * count) {
            axes[k]->low = integer;
            axes[k]->high = integer + count;
            axes[k]->previous = integer + 2 * count;
        }
    return samples;
}

/* Find the neighbours of `count` positions; this vectorizes. `size` is at most MAX_SIDE. */
static void locate(const Axis *axis, ptrdiff_t count, int32_t size, int zeros, int symmetric) {
    const REAL lowest = zeros ? -1 : 0, highest = zeros ? size : size - 1;
#pragma omp simd
    for (ptrdiff_t k = 0; k < count; k++) {
        const REAL position = axis->position[k];
        /* NaN fails every comparison and becomes `lowest`, so that an index is never out of range. */
        REAL bounded = position > lowest ? position : lowest;
        bounded = bounded < highest ? bounded : highest;
        int32_t low = (int32_t)bounded; /* rounded towards zero; fits, since |bounded| <= MAX_SIDE */
        low -= (REAL)low > bounded;
        const REAL inside = position == bounded ? 1 : 0;
        REAL high_weight = bounded - (REAL)low + 0 * position; /* NaN for a non-finite position */
        REAL low_weight = 1 - high_weight;
        const int both_sides = symmetric && (REAL)low == bounded;
        REAL low_slope = both_sides ? 0 : -inside, high_slope = both_sides ? inside / 2 : inside;
        REAL previous_slope = both_sides ? -inside / 2 : 0;
        const int32_t high = low + 1, previous = low - 1;
        if (zeros) {
            const REAL low_exists = low >= 0 && low < size ? 1 : 0, high_exists = high < size ? 1 : 0;
            low_weight *= low_exists;
            high_weight *= high_exists;
            low_slope *= low_exists;
            high_slope *= high_exists;
            previous_slope *= previous >= 0 && previous < size ? 1 : 0;
        }
        axis->low_weight[k] = low_weight;
        axis->high_weight[k] = high_weight;
        axis->low_slope[k] = low_slope;
        axis->high_slope[k] = high_slope;
        axis->previous_slope[k] = previous_slope;
        /* Beyond 2^24 pixels `highest` may be rounded up to a pixel outside the map. */
        axis->low[k] = low < 0 ? 0 : low < size ? low : size - 1;
        axis->high[k] = high < size ? high : size - 1;
        axis->previous[k] = previous < 0 ? 0 : previous < size ? previous : size - 1;
    }
}

/* Find the samples of output row i from its offsets, (w, M). */
static void find(const Shape *s, const REAL *offset, const REAL *points, ptrdiff_t i, const Samples *samples) {
    const ptrdiff_t moves = (2 + s->modulated) * s->points;
    for (ptrdiff_t j = 0; j < s->out_w; j++, offset += moves)
        for (ptrdiff_t n = 0; n < s->points; n++) {
            samples->row.position[j * s->points + n] = offset[n] + ((REAL)(i * s->stride) + points[2 * n]);
            samples->column.position[j * s->points + n] =
                offset[s->points + n] + ((REAL)(j * s->stride) + points[2 * n + 1]);
        }
    locate(&samples->row, s->out_w * s->points, (int32_t)s->height, s->zeros, s->symmetric);
    locate(&samples->column, s->out_w * s->points, (int32_t)s->width, s->zeros, s->symmetric);
}

/* The four neighbours of a sample: top left, top right, bottom left, bottom right. Only neighbours along an axis are
 * 32-bit: places, products with `width` and `channels`, have the 63 bits of addresses, so that no map overflows them. */
typedef struct {
    ptrdiff_t place[4];
    REAL weight[4], factor; /* the weights are already multiplied by the factor */
} Corners;

static inline Corners corners(const Shape *s, const Samples *samples, ptrdiff_t k, REAL factor) {
    const Axis *row = &samples->row, *column = &samples->column;
    const ptrdiff_t top = (ptrdiff_t)row->low[k] * s->width, bottom = (ptrdiff_t)row->high[k] * s->width;
    const REAL above = factor * row->low_weight[k], below = factor * row->high_weight[k];
    return (Corners){{(top + column->low[k]) * s->channels, (top + column->high[k]) * s->channels,
                      (bottom + column->low[k]) * s->channels, (bottom + column->high[k]) * s->channels},
                     {above * column->low_weight[k], above * column->high_weight[k], below * column->low_weight[k],
                      below * column->high_weight[k]},
                     factor};
}
