/* Checks of models/sampling/training_kernel.c, compiled with REAL as float or double. */
#include "common.h"
#include "models/sampling/training_kernel.c"

DEFINE_REFERENCE(REAL)
static const double TOLERANCE = BITS == 32 ? 1e-3 : 1e-9;

/* The arrays of a call; `slots` of the gradients of offsets and of the offset convolution. */
typedef struct {
    Shape shape;
    ptrdiff_t offsets, samples, elements, weights; /* numbers of elements */
    REAL *map, *offset_weight, *offset_bias, *points, *offset, *out, *grad, *grad_map, *grad_offset, *parts;
} Case;

static REAL *numbers(ptrdiff_t count, double scale) {
    REAL *values = buffer(count * (ptrdiff_t)sizeof(REAL));
    for (ptrdiff_t k = 0; k < count; k++) values[k] = (REAL)uniform(-scale, scale);
    return values;
}

static Case make_case(Shape s, int predicted, int biased, double scale) {
    s.out_h = (s.height - 1) / s.stride + 1, s.out_w = (s.width - 1) / s.stride + 1;
    const ptrdiff_t moves = (2 + s.modulated) * s.points, pixels = s.batch * s.out_h * s.out_w;
    Case a = {s,
              pixels * moves,
              pixels * s.points * s.channels,
              s.batch * s.height * s.width * s.channels,
              moves * (TAPS * s.channels + 1),
              0,
              0,
              0,
              0,
              0,
              0,
              0,
              0,
              0,
              0};
    a.map = numbers(a.elements, 1);
    a.offset_weight = predicted ? numbers(moves * TAPS * s.channels, 0.1) : NULL;
    a.offset_bias = predicted && biased ? numbers(moves, scale) : NULL;
    a.points = numbers(2 * s.points, 2);
    a.offset = numbers(a.offsets, scale);
    a.out = numbers(a.samples, 1);
    a.grad = numbers(a.samples, 1);
    a.grad_map = numbers(a.elements, 1);
    a.grad_offset = numbers(s.chunks * a.offsets, 1);
    const ptrdiff_t slots = s.chunks > 1 ? 1 : s.threads;
    a.parts = numbers(predicted ? slots * a.weights : 1, 0);
    return a;
}

static int call_forward(const Case *a) {
    return forward(&a->shape, a->map, a->offset_weight, a->offset_bias, a->points, a->offset, a->out);
}
static int call_backward(const Case *a) {
    return backward(&a->shape, a->map, a->offset_weight, a->points, a->offset, a->grad, a->grad_map, a->grad_offset,
                    a->parts);
}

/* Compare the samples with the definition. */
static void compare(const Case *a) {
    const Shape *s = &a->shape;
    const ptrdiff_t moves = (2 + s->modulated) * s->points;
    for (ptrdiff_t k = 0; k < a->samples / s->channels; k++) {
        const ptrdiff_t n = k % s->points, pixel = k / s->points, j = pixel % s->out_w, i = pixel / s->out_w % s->out_h;
        const REAL *image = a->map + pixel / s->out_w / s->out_h * s->height * s->width * s->channels;
        const REAL *offset = a->offset + pixel * moves;
        const REAL row = offset[n] + ((REAL)(i * s->stride) + a->points[2 * n]);
        const REAL column = offset[s->points + n] + ((REAL)(j * s->stride) + a->points[2 * n + 1]);
        const double factor = s->modulated ? (double)offset[2 * s->points + n] : 1;
        for (ptrdiff_t c = 0; c < s->channels; c++) {
            const double expected =
                factor * reference(image, s->height, s->width, s->channels, c, (int)s->zeros, row, column);
            REQUIRE(is_close(a->out[k * s->channels + c], expected, TOLERANCE * (1 + fabs(factor)) / 10));
        }
    }
}

/* Require |a - b| within the tolerance, relative to the largest value. */
static void require_close(const REAL *a, const REAL *b, ptrdiff_t count) {
    double largest = 1;
    for (ptrdiff_t k = 0; k < count; k++) largest = fmax(largest, fabs((double)b[k]));
    for (ptrdiff_t k = 0; k < count; k++) REQUIRE(is_close(a[k], b[k], TOLERANCE * largest));
}

static void random_shape(void) {
    static const double scales[] = {0, 0.7, 5, 1e6, 1e38};
    Shape s;
    do {
        const int wide = one_in(8);
        s = (Shape){.batch = between(1, 5),
                    .height = between(1, wide ? 2 : 14),
                    .width = between(1, wide ? 150 : 14),
                    .points = between(1, 11),
                    .channels = near_multiple(LANES, 70),
                    .stride = between(1, 4),
                    .zeros = one_in(2),
                    .modulated = one_in(2),
                    .symmetric = one_in(2),
                    .threads = between(1, 5)};
        if (wide && one_in(2)) s.height = s.width, s.width = 1;
    } while (s.batch * s.height * s.width / s.stride / s.stride * s.points * s.channels > 8000);
    s.chunks = s.batch % s.threads == 0 || one_in(4) ? 1 : between(1, s.channels < s.threads ? s.channels : s.threads);
    const double scale = scales[between(0, COUNT_OF(scales) - 1)];
    const int predicted = one_in(2), biased = !one_in(4), regular = scale <= 5 && !one_in(4);
    const uint64_t seed = state;
    const Case a = make_case(s, predicted, biased, scale);
    s = a.shape;
    snprintf(described, sizeof described,
             "batch %td height %td width %td points %td channels %td stride %td zeros %td modulated %td symmetric %td "
             "threads %td chunks %td predicted %d scale %g",
             s.batch, s.height, s.width, s.points, s.channels, s.stride, s.zeros, s.modulated, s.symmetric, s.threads,
             s.chunks, predicted, scale);
    if (!regular) { /* numbers that no model has, wherever they may come from */
        const REAL odd[] = {NAN, INFINITY, -INFINITY, (REAL)3.4e38, (REAL)-3.4e38, (REAL)1e-45};
        for (int k = 0; k < 4; k++) a.map[between(0, a.elements - 1)] = odd[between(0, 5)];
        for (int k = 0; k < 4; k++) a.offset[between(0, a.offsets - 1)] = odd[between(0, 5)];
        if (a.offset_bias) a.offset_bias[between(0, s.points - 1)] = odd[between(0, 5)];
    }
    REQUIRE(call_forward(&a) == 0);
    if (regular) compare(&a);
    double products = 0, largest = 1; /* of the samples with their gradient */
    for (ptrdiff_t k = 0; k < a.samples; k++)
        products += (double)a.out[k] * (double)a.grad[k], largest += fabs((double)a.out[k] * (double)a.grad[k]);
    REQUIRE(call_backward(&a) == 0);
    if (regular) {
        require_close(a.grad, a.out, a.samples); /* the samples are in place of their gradient */
        if (!predicted) {                        /* sampling is linear in the map: <A x, g> = <x, A' g> */
            for (ptrdiff_t k = 0; k < a.elements; k++) products -= (double)a.map[k] * (double)a.grad_map[k];
            REQUIRE(fabs(products) <= TOLERANCE * largest);
        }
#ifndef __SANITIZE_THREAD__
        state = seed; /* the same case on one thread */
        s.threads = s.chunks = 1;
        const Case b = make_case(s, predicted, biased, scale);
        REQUIRE(same_bits(a.map, b.map, (size_t)a.elements * sizeof(REAL)));
        REQUIRE(call_forward(&b) == 0);
        REQUIRE(same_bits(a.out, b.out, (size_t)a.samples * sizeof(REAL)));
        REQUIRE(call_backward(&b) == 0);
        require_close(a.grad_map, b.grad_map, a.elements);
        require_close(a.grad_offset, b.grad_offset, a.offsets);
        for (ptrdiff_t k = a.weights; predicted && a.shape.chunks == 1 && k < a.shape.threads * a.weights; k++)
            a.parts[k % a.weights] += a.parts[k];
        if (predicted) require_close(a.parts, b.parts, a.weights);
#else
        (void)seed;
#endif
    }
    for (int backwards = 0; backwards < 2 && one_in(16); backwards++) { /* out of memory in some thread, or in all */
        refused_at = (int)between(0, 2 * a.shape.threads - 1);
        const int failed = backwards ? call_backward(&a) : call_forward(&a);
        refused_at = -1;
        REQUIRE(failed);
    }
    free_buffers();
}

/* All maps of at most 4 x 4 pixels, points up to 4 and strides up to 2, forward and backward, with each pair of
 * `list_positions` as offsets. */
static ptrdiff_t all_small(void) {
    ptrdiff_t cases = 0;
    for (int shape = 0; shape < 4 * 4 * 4 * 2 * 2 * 2 * 2; shape++) {
        Shape s = {.batch = 1,
                   .height = shape % 4 + 1,
                   .width = shape / 4 % 4 + 1,
                   .points = shape / 16 % 4 + 1,
                   .stride = shape / 64 % 2 + 1,
                   .zeros = shape / 128 % 2,
                   .modulated = shape / 256 % 2,
                   .symmetric = shape / 512,
                   .channels = shape % 3 ? LANES + 1 : 1,
                   .threads = 1,
                   .chunks = 1};
        double rows[MAX_POSITIONS], columns[MAX_POSITIONS];
        const int of_rows = list_positions(s.height, rows), of_columns = list_positions(s.width, columns);
        const Case a = make_case(s, 0, 0, 1);
        s = a.shape;
        snprintf(described, sizeof described, "height %td width %td points %td channels %td stride %td zeros %td",
                 s.height, s.width, s.points, s.channels, s.stride, s.zeros);
        memset(a.points, 0, (size_t)(2 * s.points) * sizeof(REAL));
        const ptrdiff_t moves = (2 + s.modulated) * s.points, samples = a.samples / s.channels,
                        pairs = of_rows * of_columns;
        for (ptrdiff_t start = 0; start < pairs; start += samples) {
            for (ptrdiff_t k = 0; k < samples; k++, cases++) {
                REAL *offset = a.offset + k / s.points * moves + k % s.points;
                const ptrdiff_t pair = (start + k) % pairs, pixel = k / s.points;
                /* The position is that of the list: the pixel's own is taken off again, exactly for small numbers. */
                offset[0] = (REAL)rows[pair / of_columns] - (REAL)(pixel / s.out_w * s.stride);
                offset[s.points] = (REAL)columns[pair % of_columns] - (REAL)(pixel % s.out_w * s.stride);
            }
            REQUIRE(call_forward(&a) == 0);
            compare(&a);
            REQUIRE(call_backward(&a) == 0);
        }
        free_buffers();
    }
    return cases;
}

/* The neighbours of every float, or of doubles with every exponent and the ends of every octave. */
static ptrdiff_t all_positions(void) {
    enum { COUNT = 1 << 12 };
    const int32_t sizes[] = {1, 3, (1 << 24) + 3, MAX_SIDE};
    ptrdiff_t cases = 0;
    REAL real[6][COUNT];
    int32_t integer[3][COUNT];
    const Axis axis = {real[0], integer[0], integer[1], real[1], real[2], real[3], real[4], integer[2], real[5]};
    for (size_t k = 0; k < 2 * COUNT_OF(sizes); k++) {
        const int32_t size = sizes[k / 2], last = size - 1;
        for (int64_t first = 0; first < INT64_C(1) << (BITS == 32 ? 32 : 24); first += COUNT) {
            for (int32_t at = 0; at < COUNT; at++) {
#if BITS == 32
                const uint32_t bits = (uint32_t)(first + at);
#else /* the highest 18 bits, then the lowest 6 of the mantissa with all between equal to one of them */
                const uint64_t number = (uint64_t)(first + at);
                const uint64_t bits =
                    number >> 6 << 46 | (number >> 5 & 1 ? UINT64_C(0x3fffffffffc0) : 0) | (number & 63);
#endif
                memcpy(axis.position + at, &bits, sizeof bits);
            }
            locate(&axis, COUNT, size, k % 2, 1);
            int wrong = 0;
#pragma omp simd reduction(+ : wrong)
            for (int32_t at = 0; at < COUNT; at++) {
                const REAL p = axis.position[at], low = axis.low_weight[at], high = axis.high_weight[at];
                const int32_t from = axis.low[at], to = axis.high[at], before = axis.previous[at];
                const int finite = p - p == 0, between = (p >= 0) & (p <= (REAL)last) & (from < last);
                const int in_map = (from >= 0) & (to >= from) & (to <= last) & (to - from <= 1);
                const int weights = (low >= 0) & (low <= 1) & (high >= 0) & (high <= 1),
                          none = (low != low) & (high != high);
                const int nearest = ((REAL)from <= p) & (p - (REAL)from < 1) & (low + high == 1);
                wrong += !(in_map & (before >= 0) & (before <= from) & (from - before <= 2) &
                           (finite ? weights : none) & (between ? nearest : 1));
            }
            snprintf(described, sizeof described, "size %d, from %llx", (int)size, (unsigned long long)first);
            REQUIRE(!wrong);
            cases += COUNT;
        }
    }
    return cases;
}

/* A map of more than 2^31 elements, whose corners are read, and written by the backward pass. Every `period` bytes of
 * its gradient are the same memory, so that its zeros cost none; the four corners are at different places of it. */
static ptrdiff_t huge(void) {
    const ptrdiff_t height = 70001, width = 32770, area = height * width, period = 3 << 24;
    const ptrdiff_t corner[4] = {area - 1, width - 1, area - width, 0};
    Case a = make_case(
        (Shape){
            .batch = 1, .height = 1, .width = 1, .points = 4, .channels = 1, .stride = 1, .threads = 1, .chunks = 1},
        0, 0, 0);
    a.shape.height = height, a.shape.width = width, a.shape.stride = 70001;
    a.map = sparse((size_t)area * sizeof(REAL));
    a.grad_map = repeated((size_t)area * sizeof(REAL), (size_t)period);
    REAL *weight = buffer(8 * TAPS * (ptrdiff_t)sizeof(REAL)), *parts = numbers(a.weights, 0);
    memset(weight, 0, 8 * TAPS * sizeof(REAL));
    memset(a.points, 0, 8 * sizeof(REAL));
    for (int k = 0; k < 4; k++) {
        a.offset[k] = k % 2 ? -1e9f : 1e9f, a.offset[4 + k] = k / 2 ? -1e9f : 1e9f;
        a.map[corner[k]] = (REAL)(10 + k), a.grad[k] = (REAL)(k + 1);
    }
    for (int predicted = 0; predicted < 2; predicted++) {
        if (predicted) {
            a.offset_weight = weight, a.parts = parts, a.offset_bias = buffer(8 * (ptrdiff_t)sizeof(REAL));
            memcpy(a.offset_bias, a.offset, 8 * sizeof(REAL));
        }
        REQUIRE(call_forward(&a) == 0);
        for (int k = 0; k < 4; k++) REQUIRE(a.out[k] == (REAL)(10 + k));
    }
    a.offset_weight = NULL;
    REQUIRE(call_backward(&a) == 0);
    for (int k = 0; k < 4; k++) REQUIRE(a.grad[k] == (REAL)(10 + k) && a.grad_map[corner[k]] == (REAL)(k + 1));
    munmap(a.map, (size_t)area * sizeof(REAL));
    munmap(a.grad_map, (size_t)area * sizeof(REAL));
    free_buffers();
    return 1;
}
