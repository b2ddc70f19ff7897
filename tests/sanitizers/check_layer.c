/* Checks of models/sampling/layer_kernel.c at the level of vector instructions that it is compiled for. */
#include "common.h"
#include "models/sampling/layer_kernel.c"

DEFINE_REFERENCE(float)

/* A call of the kernel. */
typedef struct {
    Layer layer;
    ptrdiff_t batch, height, width, pixels; /* `pixels` of all outputs */
    float *map, *out;
} Case;

static float *numbers(ptrdiff_t count, double scale) {
    float *values = buffer(count * (ptrdiff_t)sizeof(float));
    for (ptrdiff_t k = 0; k < count; k++) values[k] = (float)uniform(-scale, scale);
    return values;
}

/* Return the weight's element of output o, channel c and point n, where layer_kernel.py packs it. */
static float *packed(const Layer *l, float *weight, ptrdiff_t o, ptrdiff_t n, ptrdiff_t c) {
    return weight + (o / PANEL * l->points * l->channels + n * l->channels + c) * PANEL + o % PANEL;
}

/* Allocate parameters and maps; `weight_of` outputs are padded to whole panels, as layer_kernel.py does. */
static Case make_case(Layer l, ptrdiff_t batch, ptrdiff_t height, ptrdiff_t width, double offset_scale,
                      double bias_scale) {
    const ptrdiff_t moves = (2 + l.modulated) * l.points, padded = (l.outputs + PANEL - 1) / PANEL * PANEL;
    const int depthwise = l.depthwise != NULL, biased = l.offset_bias != NULL;
    l.depthwise = depthwise ? numbers(TAPS * l.channels, 0.5) : NULL;
    l.offset_weight = numbers(moves * l.channels * (depthwise ? 1 : TAPS), offset_scale);
    l.offset_bias = biased ? numbers(moves, bias_scale) : NULL;
    l.initial = numbers(2 * l.points, 2);
    float *weight = numbers(padded * l.points * l.channels, 1 / sqrt((double)(l.points * l.channels)));
    float *bias = numbers(padded, 1);
    for (ptrdiff_t o = l.outputs; o < padded; o++) {
        bias[o] = 0;
        for (ptrdiff_t k = 0; k < l.points * l.channels; k++) *packed(&l, weight, o, 0, k) = 0;
    }
    l.weight = weight;
    l.bias = bias;
    const ptrdiff_t pixels = batch * ((height - 1) / l.stride + 1) * ((width - 1) / l.stride + 1);
    return (Case){l,
                  batch,
                  height,
                  width,
                  pixels,
                  numbers(batch * height * width * l.channels, 1),
                  numbers(pixels * l.outputs, 1)};
}

static int call(const Case *a, ptrdiff_t threads, float *out) {
    return NAME(&a->layer, a->map, a->batch, a->height, a->width, threads, out);
}

/* Compare a call with the definition in double precision. */
static void compare(const Case *a) {
    const Layer *l = &a->layer;
    const ptrdiff_t w = (a->width - 1) / l->stride + 1, h = (a->height - 1) / l->stride + 1;
    const ptrdiff_t moves = (2 + l->modulated) * l->points, inputs = l->points * l->channels;
    double *move = buffer(moves * (ptrdiff_t)sizeof(double)), *samples = buffer(inputs * (ptrdiff_t)sizeof(double));
    for (ptrdiff_t q = 0; q < a->pixels; q++) {
        const ptrdiff_t j = q % w * l->stride, i = q / w % h * l->stride;
        const float *image = a->map + q / w / h * a->height * a->width * l->channels;
        for (ptrdiff_t m = 0; m < moves; m++) {
            move[m] = l->offset_bias ? l->offset_bias[m] : 0;
            for (ptrdiff_t tap = 0; tap < TAPS; tap++) {
                const ptrdiff_t y = i + tap / 3 - 1, x = j + tap % 3 - 1;
                if (y < 0 || x < 0 || y >= a->height || x >= a->width) continue;
                const float *pixel = image + (y * a->width + x) * l->channels;
                for (ptrdiff_t c = 0; c < l->channels; c++)
                    move[m] += l->depthwise ? (double)pixel[c] * l->depthwise[tap * l->channels + c] *
                                                  l->offset_weight[m * l->channels + c]
                                            : (double)pixel[c] * l->offset_weight[(m * TAPS + tap) * l->channels + c];
            }
        }
        for (ptrdiff_t k = 0; k < inputs; k++) {
            const ptrdiff_t n = k / l->channels, c = k % l->channels;
            samples[k] = reference(image, a->height, a->width, l->channels, c, (int)l->zeros,
                                   (double)i + l->initial[2 * n] + move[n],
                                   (double)j + l->initial[2 * n + 1] + move[l->points + n]);
            if (l->modulated) samples[k] *= 2 / (1 + exp(-move[2 * l->points + n]));
        }
        for (ptrdiff_t o = 0; o < l->outputs; o++) {
            double sum = l->bias[o];
            for (ptrdiff_t k = 0; k < inputs; k++) sum += samples[k] * *packed(l, (float *)l->weight, o, 0, k);
            if (l->silu) sum /= 1 + exp(-sum);
            REQUIRE(is_close(a->out[q * l->outputs + o], sum, 2e-3));
        }
    }
}

static void random_shape(void) {
    static const float present = 0;
    static const double scales[] = {0.01, 1, 10, 1e6, 1e38};
    Layer l;
    ptrdiff_t batch, height, width;
    do {
        l = (Layer){.channels = near_multiple(LANES, 70),
                    .outputs = near_multiple(PANEL, 70),
                    .points = between(1, 11),
                    .stride = between(1, 4),
                    .zeros = one_in(2),
                    .modulated = one_in(2),
                    .silu = one_in(2),
                    .depthwise = one_in(3) ? &present : NULL,
                    .offset_bias = one_in(4) ? NULL : &present};
        const int wide = one_in(8);
        batch = between(1, 3), height = between(1, wide ? 2 : 14), width = between(1, wide ? 150 : 14);
        if (wide && one_in(2)) height = width, width = 1;
    } while (batch * height * width / l.stride / l.stride * l.points * l.channels * (l.outputs + 27) > 300000);
    const double scale = scales[between(0, COUNT_OF(scales) - 1)];
    Case a = make_case(l, batch, height, width, 0.1, scale);
    snprintf(
        described, sizeof described,
        "batch %td height %td width %td channels %td outputs %td points %td stride %td zeros %td modulated %td silu "
        "%td depthwise %d bias %d scale %g",
        batch, height, width, l.channels, l.outputs, l.points, l.stride, l.zeros, l.modulated, l.silu,
        l.depthwise != NULL, l.offset_bias != NULL, scale);
    const int regular = scale <= 10 && !one_in(4);
    if (!regular) { /* numbers that no model has, wherever they may come from */
        const float odd[] = {NAN, INFINITY, -INFINITY, 3.4e38f, -3.4e38f, 1e-45f};
        for (int k = 0; k < 4; k++) a.map[between(0, batch * height * width * l.channels - 1)] = odd[between(0, 5)];
        if (a.layer.offset_bias) ((float *)a.layer.offset_bias)[between(0, 2 * l.points - 1)] = odd[between(0, 5)];
    }
    const ptrdiff_t bytes = a.pixels * l.outputs * (ptrdiff_t)sizeof(float);
    float *other = buffer(bytes);
    REQUIRE(call(&a, 1, a.out) == 0);
    REQUIRE(call(&a, between(2, 6), other) == 0);
    REQUIRE(same_floats(a.out, other, a.pixels * l.outputs));
    if (regular && one_in(4)) compare(&a);
    if (one_in(16)) { /* out of memory in some thread, or in all */
        const int threads = (int)between(1, 4);
        refused_at = (int)between(0, threads - 1);
        const int failed = call(&a, threads, other);
        refused_at = -1;
        REQUIRE(failed || threads > a.pixels);
    }
    free_buffers();
}

/* Sample `pairs` pairs of positions at each point of every output pixel, by `sample` alone: the offsets come in between
 * only. `a` has as many outputs as points. */
static ptrdiff_t sample_all(const Case *a, const double *rows, int of_rows, const double *columns, int of_columns) {
    const Layer *l = &a->layer;
    const Maps maps = {a->map, 1, a->height, a->width, 0, 0, NULL};
    const ptrdiff_t count = of_rows * of_columns, samples = count * l->points, length = l->points * l->channels;
    Block block = {.length = length};
    float **parts[] = {&block.row,   &block.column,    &block.factor,    &block.samples,
                       block.weight, block.weight + 1, block.weight + 2, block.weight + 3};
    for (size_t k = 0; k < COUNT_OF(parts); k++)
        *parts[k] = buffer((k == 3 ? count * length : samples) * (ptrdiff_t)sizeof(float));
    for (int k = 0; k < 4; k++) block.place[k] = buffer(samples * (ptrdiff_t)sizeof(int32_t));
    block.pixels = buffer(count * (ptrdiff_t)sizeof(Pixel));
    for (ptrdiff_t q = 0; q < samples; q++) {
        const ptrdiff_t pair = (q / l->points + q % l->points) % count;
        block.row[q] = (float)rows[pair / of_columns], block.column[q] = (float)columns[pair % of_columns];
        block.factor[q] = 0, block.pixels[q / l->points] = (Pixel){a->map, 0, 0};
    }
    sample(l, &maps, &block, count);
    for (ptrdiff_t q = 0; q < samples; q++)
        for (ptrdiff_t c = 0; c < l->channels; c += LANES)
            REQUIRE(is_close(
                block.samples[q * l->channels + c],
                reference(a->map, a->height, a->width, l->channels, c, (int)l->zeros, block.row[q], block.column[q]),
                1e-5));
    return samples;
}

/* All maps of at most 4 x 4 pixels, points up to 4, strides up to 3: each pair of `list_positions` at each point, and
 * whole calls with some of them, where the offsets are the bias and the outputs the samples. */
static ptrdiff_t all_small(void) {
    static const float present = 0;
    ptrdiff_t cases = 0;
    for (int shape = 0; shape < 4 * 4 * 4 * 3 * 2 * 2 * 2; shape++) {
        const ptrdiff_t height = shape % 4 + 1, width = shape / 4 % 4 + 1, channels = shape / 384 % 2 ? LANES + 1 : 1;
        Layer l = {.channels = channels,
                   .points = shape / 16 % 4 + 1,
                   .stride = shape / 64 % 3 + 1,
                   .silu = 0,
                   .zeros = shape / 192 % 2,
                   .modulated = shape / 768 % 2,
                   .offset_bias = &present};
        l.outputs = l.points; /* the first channel of each sample */
        const Case a = make_case(l, 1, height, width, 0, 0);
        float *bias = (float *)a.layer.offset_bias, *weight = (float *)a.layer.weight;
        memset((float *)a.layer.initial, 0, (size_t)(2 * l.points) * sizeof(float));
        memset((float *)a.layer.bias, 0, (size_t)l.outputs * sizeof(float));
        for (ptrdiff_t o = 0; o < l.outputs; o++)
            for (ptrdiff_t n = 0; n < l.points; n++)
                for (ptrdiff_t c = 0; c < channels; c++) *packed(&l, weight, o, n, c) = o == n && c == 0;
        double rows[MAX_POSITIONS], columns[MAX_POSITIONS];
        const int of_rows = list_positions(height, rows), of_columns = list_positions(width, columns);
        snprintf(described, sizeof described, "height %td width %td channels %td points %td stride %td zeros %td",
                 height, width, channels, l.points, l.stride, l.zeros);
        cases += sample_all(&a, rows, of_rows, columns, of_columns);
        for (int pair = shape % 29; pair < of_rows * of_columns; pair += 29, cases++) {
            int finite = 1; /* an output is a sum over all samples: NaN if one is */
            for (ptrdiff_t n = 0; n < l.points; n++) {
                const int place = (pair + (int)n * 7) % (of_rows * of_columns);
                bias[n] = (float)rows[place / of_columns];
                bias[l.points + n] = (float)columns[place % of_columns];
                finite &= isfinite(bias[n]) && isfinite(bias[l.points + n]);
                if (l.modulated) bias[2 * l.points + n] = 0;
            }
            REQUIRE(call(&a, 1, a.out) == 0);
            const ptrdiff_t w = (width - 1) / l.stride + 1;
            for (ptrdiff_t k = 0; k < a.pixels * l.points; k++) {
                const ptrdiff_t n = k % l.points, i = k / l.points / w * l.stride, j = k / l.points % w * l.stride;
                const float row = bias[n] + (float)i, column = bias[l.points + n] + (float)j;
                const double expected = reference(a.map, height, width, channels, 0, (int)l.zeros, row, column);
                REQUIRE(finite ? is_close(a.out[k], expected, 1e-5) : isnan(a.out[k]));
            }
        }
        free_buffers();
    }
    return cases;
}

/* Return how many of 2^16 positions, floats whose bits begin with `first`, have wrong neighbours or weights. Without
 * branches, so that this vectorizes as in the kernel. */
INLINE int count_wrong(uint32_t first, int32_t size, const int zeros) {
    const int32_t last = size - 1;
    int wrong = 0;
#pragma omp simd reduction(+ : wrong)
    for (int32_t low_bits = 0; low_bits < 1 << 16; low_bits++) {
        const union {
            uint32_t bits;
            float value;
        } position = {first | (uint32_t)low_bits};
        const float p = position.value;
        const Axis axis = locate(p, size, zeros);
        const float low = axis.low_weight, high = axis.high_weight;
        const int finite = p - p == 0, between = (p >= 0) & (p <= (float)last) & (axis.low < last);
        const int in_map =
            (axis.low >= 0) & (axis.high >= axis.low) & (axis.high <= last) & (axis.high - axis.low <= 1);
        const int weights = (low >= 0) & (low <= 1) & (high >= 0) & (high <= 1), none = (low != low) & (high != high);
        const int nearest = ((float)axis.low <= p) & (p - (float)axis.low < 1) & (low + high == 1);
        wrong += !(in_map & (finite ? weights : none) & (between ? nearest : 1));
    }
    return wrong;
}

/* The neighbours of every float on axes of several sizes. */
static ptrdiff_t all_positions(void) {
    const int32_t sizes[] = {1, 3, (1 << 24) + 3, MAX_SIDE};
    ptrdiff_t cases = 0;
    for (size_t k = 0; k < 2 * COUNT_OF(sizes); k++)
        for (int64_t first = 0; first < INT64_C(1) << 32; first += 1 << 16, cases += 1 << 16) {
            snprintf(described, sizeof described, "size %d zeros %d", (int)sizes[k / 2], (int)k % 2);
            REQUIRE(!(k % 2 ? count_wrong((uint32_t)first, sizes[k / 2], 1)
                            : count_wrong((uint32_t)first, sizes[k / 2], 0)));
        }
    return cases;
}

/* Two images of nearly 2^31 elements each, where the last pixel of the second is read. */
static ptrdiff_t huge(void) {
    const ptrdiff_t height = 65535, width = 32768;
    static const float present = 0;
    Case a = make_case((Layer){.channels = 1, .outputs = 3, .points = 3, .stride = 32767, .offset_bias = &present}, 1,
                       1, 1, 0, 0);
    a.batch = 2, a.height = height, a.width = width, a.pixels = 2 * 3 * 2;
    a.map = sparse((size_t)(2 * height * width) * sizeof(float));
    a.out = buffer(a.pixels * 3 * (ptrdiff_t)sizeof(float));
    memset((float *)a.layer.initial, 0, 6 * sizeof(float));
    memset((float *)a.layer.bias, 0, 3 * sizeof(float));
    float *bias = (float *)a.layer.offset_bias, *weight = (float *)a.layer.weight;
    for (int o = 0; o < 3; o++)
        for (int n = 0; n < 3; n++) *packed(&a.layer, weight, o, n, 0) = o == n;
    bias[0] = 1e9f, bias[3] = 1e9f;   /* the last pixel */
    bias[1] = -1e9f, bias[4] = 1e9f;  /* the top right one */
    bias[2] = -1e9f, bias[5] = -1e9f; /* the first one */
    for (ptrdiff_t b = 0; b < 2; b++) {
        float *image = a.map + b * height * width;
        image[0] = (float)(10 + b), image[width - 1] = (float)(20 + b), image[height * width - 1] = (float)(30 + b);
    }
    for (ptrdiff_t threads = 1; threads < 3; threads++) {
        REQUIRE(call(&a, threads, a.out) == 0);
        for (ptrdiff_t k = 0; k < a.pixels * 3; k++) REQUIRE(a.out[k] == (float)(30 - 10 * (k % 3) + k / 3 / 6));
    }
    munmap(a.map, (size_t)(2 * height * width) * sizeof(float));
    free_buffers();
    return 2;
}
