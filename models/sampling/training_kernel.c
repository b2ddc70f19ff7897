/* AKConv's sampling on the CPU, forward and backward, together with the 3x3 convolution that predicts its offsets.
 *
 * utils/compiled.py compiles this twice, with REAL as float and as double. Maps are channels-last: a row holds the C
 * channels of one pixel. Letters: B batch, (H, W) map, (h, w) output, N points, C channels, M offsets and factors.
 * The library is not linked against libgomp: it uses the OpenMP runtime, and the threads, that torch has loaded.
 */
#include "offset_kernel.c"
#include "positions.c"

enum { AHEAD = 8 }; /* pixels, by which lower rows are fetched into the cache in advance */

static inline void blend(const REAL *image, const Corners *a, ptrdiff_t channels, REAL *to) {
    const REAL *r0 = image + a->place[0], *r1 = image + a->place[1];
    const REAL *r2 = image + a->place[2], *r3 = image + a->place[3];
    const REAL w0 = a->weight[0], w1 = a->weight[1], w2 = a->weight[2], w3 = a->weight[3];
    ptrdiff_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        store(to + c, w0 * load(r0 + c) + w1 * load(r1 + c) + w2 * load(r2 + c) + w3 * load(r3 + c));
    for (; c < channels; c++) to[c] = w0 * r0[c] + w1 * r1[c] + w2 * r2[c] + w3 * r3[c];
}

/* Write samples (B, h, w, N, C) of `map`. `offset` (B, h, w, M) is read, or if there is a weight (M, 3, 3, C) written:
 * the convolution of the map, with bias (M), with factors after their sigmoid. Returns 1 if out of memory. */
int forward(const Shape *s, const REAL *map, const REAL *offset_weight, const REAL *offset_bias, const REAL *points,
            REAL *offset, REAL *out) {
    const ptrdiff_t moves = (2 + s->modulated) * s->points, area = s->height * s->width * s->channels;
    int failed = 0;
#pragma omp parallel num_threads((int)s->threads)
    {
        Samples samples = allocate(s);
        REAL *nothing = calloc((size_t)s->channels, sizeof(REAL));
        if (!samples.memory || !nothing) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for collapse(2) schedule(static)
        for (ptrdiff_t b = 0; b < s->batch; b++)
            for (ptrdiff_t i = 0; i < s->out_h; i++) {
                if (!samples.memory || !nothing) continue;
                const ptrdiff_t first = (b * s->out_h + i) * s->out_w;
                REAL *moved = offset + first * moves, *to = out + first * s->points * s->channels;
                if (offset_weight) predict(s, map + b * area, offset_weight, offset_bias, i, nothing, moved);
                find(s, moved, points, i, &samples);
                for (ptrdiff_t j = 0, k = 0; j < s->out_w; j++, moved += moves)
                    for (ptrdiff_t n = 0; n < s->points; n++, k++, to += s->channels) {
                        const Corners a = corners(s, &samples, k, s->modulated ? moved[2 * s->points + n] : 1);
                        blend(map + b * area, &a, s->channels, to);
                    }
            }
        free(samples.memory);
        free(nothing);
    }
    return failed;
}

/* Add the gradient of a sample to those of its four neighbours, and replace it by the sample, over the channels from
 * `first` to `end`; write the products of the gradient with each neighbour. */
static inline void spread(const Shape *s, const REAL *image, REAL *grad_image, const Corners *a, REAL *grad,
                          ptrdiff_t first, ptrdiff_t end, REAL *dot) {
    Vector sums[4] = {{0}};
    ptrdiff_t c = first, ahead = AHEAD * s->channels;
    for (; c + LANES <= end; c += LANES) {
        const Vector from = load(grad + c);
        Vector sample = {0};
        /* One corner at a time, since at the border two corners may be the same row. */
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            const Vector row = load(image + a->place[k] + c);
            REAL *to = grad_image + a->place[k] + c;
            if (k > 1) __builtin_prefetch(image + a->place[k] + c + ahead), __builtin_prefetch(to + ahead, 1);
            sums[k] += from * row;
            sample += a->weight[k] * row;
            store(to, load(to) + a->weight[k] * from);
        }
        store(grad + c, sample);
    }
    sum_lanes(sums, 4, dot);
    for (; c < end; c++) {
        const REAL from = grad[c];
        REAL sample = 0;
        for (int k = 0; k < 4; k++) {
            const REAL value = image[a->place[k] + c];
            dot[k] += from * value;
            sample += a->weight[k] * value;
            grad_image[a->place[k] + c] += a->weight[k] * from;
        }
        grad[c] = sample;
    }
}

/* Return the product of a gradient with the weighted sum of two pixels, over the channels from `first` to `end`. */
static REAL pair_product(const REAL *pixel, const REAL *other, REAL weight, REAL other_weight, const REAL *grad,
                         ptrdiff_t first, ptrdiff_t end) {
    REAL sum = 0;
#pragma omp simd reduction(+ : sum)
    for (ptrdiff_t c = first; c < end; c++) sum += grad[c] * (weight * pixel[c] + other_weight * other[c]);
    return sum;
}

/* Spread the gradients of the samples of output row i, over the channels from `first` to `end`, and write those of the
 * offsets and factors, (w, M). */
static void spread_row(const Shape *s, const REAL *image, const Samples *samples, const REAL *offset, REAL *grad,
                       REAL *grad_image, REAL *slope, ptrdiff_t first, ptrdiff_t end) {
    const ptrdiff_t points = s->points, moves = (2 + s->modulated) * points;
    const Axis *row = &samples->row, *column = &samples->column;
    for (ptrdiff_t j = 0, k = 0; j < s->out_w; j++, offset += moves, slope += moves)
        for (ptrdiff_t n = 0; n < points; n++, k++, grad += s->channels) {
            const Corners a = corners(s, samples, k, s->modulated ? offset[2 * points + n] : 1);
            const REAL left = column->low_weight[k], right = column->high_weight[k];
            const REAL above = row->low_weight[k], below = row->high_weight[k];
            const ptrdiff_t top = (ptrdiff_t)row->low[k] * s->width, bottom = (ptrdiff_t)row->high[k] * s->width;
            REAL by_row = 0, by_column = 0, dot[4];
            if (s->symmetric && row->previous_slope[k] != 0) {
                const REAL *before = image + (ptrdiff_t)row->previous[k] * s->width * s->channels;
                by_row = row->previous_slope[k] * pair_product(before + column->low[k] * s->channels,
                                                               before + column->high[k] * s->channels, left, right,
                                                               grad, first, end);
            }
            if (s->symmetric && column->previous_slope[k] != 0)
                by_column = column->previous_slope[k] *
                            pair_product(image + (top + column->previous[k]) * s->channels,
                                         image + (bottom + column->previous[k]) * s->channels, above, below, grad,
                                         first, end);
            spread(s, image, grad_image, &a, grad, first, end, dot);
            const REAL upper = left * dot[0] + right * dot[1], lower = left * dot[2] + right * dot[3];
            by_row += row->low_slope[k] * upper + row->high_slope[k] * lower;
            by_column += column->low_slope[k] * (above * dot[0] + below * dot[2]) +
                         column->high_slope[k] * (above * dot[1] + below * dot[3]);
            slope[n] = a.factor * by_row;
            slope[points + n] = a.factor * by_column;
            if (s->modulated) slope[2 * points + n] = above * upper + below * lower;
        }
}

/* Set the gradient of the map to zero as far down as output row i reaches: just before use, it stays in the cache. */
static void clear(const Shape *s, const Samples *samples, ptrdiff_t i, ptrdiff_t first, ptrdiff_t end, REAL *grad_image,
                  ptrdiff_t *cleared) {
    ptrdiff_t lowest = i * s->stride + 1; /* of the convolution */
    for (ptrdiff_t k = 0; k < s->out_w * s->points; k++)
        if (samples->row.high[k] > lowest) lowest = samples->row.high[k];
    if (i + 1 == s->out_h || lowest >= s->height) lowest = s->height - 1;
    const ptrdiff_t whole = end - first == s->channels, step = whole ? s->channels * s->width : s->channels;
    const ptrdiff_t rest = (lowest + 1) * s->width * s->channels, length = whole ? step : end - first;
    for (; *cleared < rest; *cleared += step) memset(grad_image + *cleared + first, 0, (size_t)length * sizeof(REAL));
}

/* Multiply the gradients of the factors, (w, M), by the derivative of twice the sigmoid. */
static void differentiate_factors(const Shape *s, const REAL *offset, REAL *slope) {
    for (ptrdiff_t j = 0, moves = 3 * s->points; s->modulated && j < s->out_w; j++)
        for (ptrdiff_t k = j * moves + 2 * s->points; k < (j + 1) * moves; k++)
            slope[k] *= offset[k] * (1 - offset[k] / 2);
}

/* Write the gradient of the map, from that of the samples, (B, h, w, N, C), which is replaced by the samples; that of
 * the offsets and factors, (chunks, B, h, w, M) of which the first counts; and if there is an offset convolution, add
 * those of its weight and bias to `parts`, one for each thread. Images are divided among the threads, or if there are
 * several chunks of channels, these: so no two write to the same element. Returns 1 if out of memory. */
int backward(const Shape *s, const REAL *map, const REAL *offset_weight, const REAL *points, const REAL *offset,
             REAL *grad, REAL *grad_map, REAL *grad_offset, REAL *parts) {
    const ptrdiff_t moves = (2 + s->modulated) * s->points, row = s->out_w * moves, chunks = s->chunks;
    const ptrdiff_t area = s->height * s->width * s->channels, columns = s->points * s->channels;
    const ptrdiff_t team = chunks > 1 ? 1 : s->threads, size = moves * (TAPS * s->channels + 1);
    int failed = 0;
#pragma omp parallel num_threads((int)s->threads)
    {
        Samples samples = allocate(s);
        REAL *nothing = calloc((size_t)(4 * s->channels), sizeof(REAL));
        if (!samples.memory || !nothing) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
        for (ptrdiff_t image = 0; image < s->batch && !failed; image += team) {
            const ptrdiff_t images = s->batch - image < team ? s->batch - image : team;
#pragma omp for collapse(2) schedule(static)
            for (ptrdiff_t b = image; b < image + images; b++)
                for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
                    const ptrdiff_t first = chunk * s->channels / chunks, end = (chunk + 1) * s->channels / chunks;
                    const REAL *from = map + b * area;
                    REAL *to = grad_map + b * area;
                    for (ptrdiff_t i = 0, cleared = 0; i < s->out_h; i++) {
                        const ptrdiff_t place = (b * s->out_h + i) * s->out_w;
                        REAL *slope = grad_offset + (chunk * s->batch * s->out_h * s->out_w + place) * moves;
                        find(s, offset + place * moves, points, i, &samples);
                        clear(s, &samples, i, first, end, to, &cleared);
                        spread_row(s, from, &samples, offset + place * moves, grad + place * columns, to, slope, first,
                                   end);
                        if (offset_weight && chunks == 1) {
                            differentiate_factors(s, offset + place * moves, slope);
                            unpredict(s, from, offset_weight, slope, i, nothing, first, end, to,
                                      parts + (b - image) * size);
                        }
                    }
                }
            if (chunks == 1) continue;
            /* Only all chunks together have the gradients of the offsets, which those of the convolution need. */
            const ptrdiff_t start = image * s->out_h * row, total = s->batch * s->out_h * row;
#pragma omp for schedule(static)
            for (ptrdiff_t i = 0; i < s->out_h; i++) {
                REAL *slope = grad_offset + start + i * row;
                for (ptrdiff_t k = 0; k < row; k++)
                    for (ptrdiff_t chunk = 1; chunk < chunks; chunk++) slope[k] += slope[chunk * total + k];
                if (offset_weight) differentiate_factors(s, offset + start + i * row, slope);
            }
#pragma omp for schedule(static)
            for (ptrdiff_t chunk = 0; chunk < chunks; chunk++)
                for (ptrdiff_t i = 0; offset_weight && i < s->out_h; i++)
                    unpredict(s, map + image * area, offset_weight, grad_offset + start + i * row, i, nothing,
                              chunk * s->channels / chunks, (chunk + 1) * s->channels / chunks, grad_map + image * area,
                              parts);
        }
        free(samples.memory);
        free(nothing);
    }
    return failed;
}
