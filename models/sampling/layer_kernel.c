/* A whole AKConv layer on the CPU without gradients: offsets, samples, matrix product and activation, for one block of
 * output pixels at a time, which stays in the cache.
 *
 * utils/compiled.py compiles this once for each set of vector instructions; the exported name says which. Maps are
 * channels-last. Letters: B batch, (H, W) map, (h, w) output, N points, C channels, O outputs, M offsets and factors.
 * The library is not linked against libgomp: it uses the OpenMP runtime, and the threads, that torch has loaded.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define NAME layer_avx512
#define LANES 16
#define TILE 12         /* pixels of the matrix product: 12 x 2 sums in 32 registers */
#define OFFSET_PIXELS 4 /* of the offsets: 4 x 6 sums */
#elif defined(__AVX2__)
#define NAME layer_avx2
#define LANES 8
#define TILE 6
#define OFFSET_PIXELS 2
#else
#define NAME layer_portable
#define LANES 4
#define TILE 6
#define OFFSET_PIXELS 2
#endif
#define OFFSET_OUTPUTS 6
#define PANEL 16 /* outputs of a panel of packed weights; `PANEL` of layer_kernel.py */
#define BLOCK_FLOATS (1 << 15) /* samples of a block: 128 KB */
#define AHEAD 32               /* output pixels, by which the map is fetched into the cache in advance */
#define CACHE_LINE 16          /* floats */
#define PROBES 32              /* of each array of parameters; `PROBES` of layer_kernel.py */
#define ALIGNMENT 64           /* bytes */
#define REAL float

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
#define LANE ((Integers){INDICES})
#include "vectors.c"

/* The constants of a layer; `Layer` of layer_kernel.py. */
typedef struct {
    ptrdiff_t channels, outputs, points, stride;
    ptrdiff_t zeros;               /* padding: 0 is border, 1 is zeros */
    ptrdiff_t modulated;           /* whether there are factors: M is 3N, otherwise 2N */
    ptrdiff_t silu;                /* whether the output passes through SiLU */
    const float *depthwise;        /* (3, 3, C), or NULL for an ordinary 3x3 convolution */
    const float *offset_weight;    /* (M, 3, 3, C), or after a depthwise convolution (M, C) */
    const float *offset_bias;      /* (M), or NULL */
    const float *initial;          /* (N, 2) */
    const float *weight;           /* (panels, N C, PANEL): PANEL outputs each, padded with zeros */
    const float *bias;             /* (O), padded with zeros like the weights */
} Layer;

/* A batch of maps, (B, H, W, C), and of output maps, (B, h, w, O). */
typedef struct {
    const float *map;
    ptrdiff_t batch, height, width, out_h, out_w;
    float *out;
} Maps;

/* One output pixel: its image, and the input pixel at (i, j) times the stride. */
typedef struct {
    const float *image;
    int32_t row, column;
} Pixel;

/* An output of the offset convolution: where those of all pixels go, N floats apart, and what is added to them. */
typedef struct {
    float *to, bias, initial;
    int kind; /* row, column or factor */
} Move;

/* The memory of one thread, for a block of pixels. */
typedef struct {
    Pixel *pixels;
    Move *moves;
    float *row, *column, *factor; /* positions and factors, (pixels, N) each */
    float *weight[4];             /* of the four neighbours of each sample */
    int32_t *place[4];            /* and where they are in the image */
    float *samples;               /* (pixels, `length`) */
    ptrdiff_t length;
} Block;

INLINE Vector load(const float *from) { return *(const Vector *)from; }

INLINE Vector splat(float value) { return value - (Vector){0}; }

INLINE Vector load_part(const float *from, ptrdiff_t count) {
    Vector part = {0};
    memcpy(&part, from, (size_t)count * sizeof(float));
    return part;
}

INLINE Vector choose(Integers condition, Vector yes, Vector no) {
    return (Vector)((condition & (Integers)yes) | (~condition & (Integers)no));
}

/* exp(x) within 1 ulp for -87.3 < x < 88.3, 0 below, infinity above; NaN stays NaN. Coefficients: Cephes, expf. */
INLINE Vector exponential(Vector x) {
    const Vector magic = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer in the lowest bits */
    const Vector shifted = x * splat(1.44269504f) + magic, power = shifted - magic;
    const Vector r = (x - power * splat(0.693359375f)) + power * splat(2.12194440e-4f);
    Vector p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    p = p * (r * r) + r + splat(1);
    const Vector result = (Vector)((Bits)p + ((Bits)shifted << 23));
    return choose(x > splat(88.3f), splat(INFINITY), choose(x < splat(-87.3f), splat(0), result));
}

/* Within 2.5 ulp for x > -87, as torch's own; below -88.3 it is 0, where the true value is above -1e-36. */
INLINE Vector silu(Vector x) { return x / (splat(1) + exponential(-x)); }

/* Write the products (pixels, outputs) of rows in `taps` parts of C with weights (outputs, taps, C). A vector holds
 * channels, since there are too few outputs to fill one. `pixels` and `outputs` are constants after inlining, so that
 * the loops over them are unrolled and the sums stay in registers. */
INLINE void offset_tile(const float *const (*from)[OFFSET_PIXELS], ptrdiff_t taps, ptrdiff_t channels,
                        const float *weight, const int outputs, float *to) {
    Vector sums[OFFSET_PIXELS * OFFSET_OUTPUTS];
#pragma GCC unroll 24
    for (int k = 0; k < OFFSET_PIXELS * outputs; k++) sums[k] = (Vector){0};
    const ptrdiff_t whole = channels - channels % LANES;
    for (ptrdiff_t tap = 0; tap < taps; tap++, weight += channels) {
        for (ptrdiff_t c = 0; c < whole; c += LANES)
#pragma GCC unroll 8
            for (int o = 0; o < outputs; o++) {
                const Vector factor = load(weight + o * taps * channels + c);
#pragma GCC unroll 8
                for (int p = 0; p < OFFSET_PIXELS; p++) sums[p * outputs + o] += load(from[tap][p] + c) * factor;
            }
        if (whole < channels)
#pragma GCC unroll 8
            for (int o = 0; o < outputs; o++) {
                const Vector factor = load_part(weight + o * taps * channels + whole, channels - whole);
#pragma GCC unroll 8
                for (int p = 0; p < OFFSET_PIXELS; p++)
                    sums[p * outputs + o] += load_part(from[tap][p] + whole, channels - whole) * factor;
            }
    }
    sum_lanes(sums, OFFSET_PIXELS * outputs, to);
}

/* Convolve each channel of a pixel by itself: `from` points to its neighbours, `weight` is (TAPS, C). */
static void convolve_depthwise(const float *const *from, ptrdiff_t channels, const float *weight, float *to) {
    ptrdiff_t c = 0;
    for (; c + LANES <= channels; c += LANES) {
        Vector sum = {0};
        for (ptrdiff_t tap = 0; tap < TAPS; tap++) sum += load(from[tap] + c) * load(weight + tap * channels + c);
        *(Vector *)(to + c) = sum;
    }
    for (; c < channels; c++) {
        to[c] = 0;
        for (ptrdiff_t tap = 0; tap < TAPS; tap++) to[c] += from[tap][c] * weight[tap * channels + c];
    }
}

/* Point to the TAPS neighbours of OFFSET_PIXELS pixels; `nothing` stands for those outside the map. */
static void find_neighbours(const Layer *l, const Maps *maps, const Pixel *pixels, const float *nothing,
                            const float *(*from)[OFFSET_PIXELS]) {
    const float *first[OFFSET_PIXELS];
    int inside = 1;
    for (int p = 0; p < OFFSET_PIXELS; p++) {
        const ptrdiff_t row = pixels[p].row, column = pixels[p].column;
        inside &= row > 0 && column > 0 && row + 1 < maps->height && column + 1 < maps->width;
        first[p] = pixels[p].image + (row * maps->width + column) * l->channels;
        const float *next = first[p] + AHEAD * l->stride * l->channels;
        for (ptrdiff_t c = 0; c < l->stride * l->channels; c += CACHE_LINE) {
            __builtin_prefetch(next + c);
            __builtin_prefetch(next + maps->width * l->channels + c);
        }
    }
    for (ptrdiff_t tap = 0; tap < TAPS; tap++) {
        const ptrdiff_t down = tap / 3 - 1, right = tap % 3 - 1, distance = (down * maps->width + right) * l->channels;
        for (int p = 0; p < OFFSET_PIXELS; p++) {
            const ptrdiff_t row = pixels[p].row + down, column = pixels[p].column + right;
            const int exists = inside || (row >= 0 && row < maps->height && column >= 0 && column < maps->width);
            from[tap][p] = exists ? first[p] + distance : nothing;
        }
    }
}

/* Write positions, and factors before their sigmoid, of the samples of `count` pixels. The array of pixels continues
 * with copies of its last one up to a multiple of OFFSET_PIXELS. */
static void find_positions(const Layer *l, const Maps *maps, const Block *block, ptrdiff_t count,
                           const float *nothing, float *depthwise) {
    const ptrdiff_t moves = (2 + l->modulated) * l->points, channels = l->channels;
    for (ptrdiff_t first = 0; first < count; first += OFFSET_PIXELS) {
        const Pixel *pixels = block->pixels + first;
        const float *from[TAPS][OFFSET_PIXELS];
        find_neighbours(l, maps, pixels, nothing, from);
        if (l->depthwise)
            for (int p = 0; p < OFFSET_PIXELS; p++) {
                const float *of_pixel[TAPS];
                for (int tap = 0; tap < TAPS; tap++) of_pixel[tap] = from[tap][p];
                convolve_depthwise(of_pixel, channels, l->depthwise, depthwise + p * channels);
                from[0][p] = depthwise + p * channels;
            }
        float base[3][OFFSET_PIXELS] = {0};
        for (int p = 0; p < OFFSET_PIXELS; p++) base[0][p] = (float)pixels[p].row, base[1][p] = (float)pixels[p].column;
        const ptrdiff_t taps = l->depthwise ? 1 : TAPS;
        const ptrdiff_t used = count - first < OFFSET_PIXELS ? count - first : OFFSET_PIXELS;
        for (ptrdiff_t move = 0; move < moves; move += OFFSET_OUTPUTS) {
            const float *weight = l->offset_weight + move * taps * channels;
            const ptrdiff_t outputs = moves - move < OFFSET_OUTPUTS ? moves - move : OFFSET_OUTPUTS;
            float products[OFFSET_PIXELS * OFFSET_OUTPUTS];
            switch (outputs) {
                case 1: offset_tile(from, taps, channels, weight, 1, products); break;
                case 2: offset_tile(from, taps, channels, weight, 2, products); break;
                case 3: offset_tile(from, taps, channels, weight, 3, products); break;
                case 4: offset_tile(from, taps, channels, weight, 4, products); break;
                case 5: offset_tile(from, taps, channels, weight, 5, products); break;
                default: offset_tile(from, taps, channels, weight, OFFSET_OUTPUTS, products);
            }
            for (ptrdiff_t o = 0; o < outputs; o++) {
                const Move *m = block->moves + move + o;
                for (ptrdiff_t p = 0; p < used; p++)
                    m->to[(first + p) * l->points] =
                        (products[p * outputs + o] + m->bias) + (base[m->kind][p] + m->initial);
            }
        }
    }
}

typedef struct {
    int32_t low, high;            /* neighbouring pixels, always inside the map */
    float low_weight, high_weight; /* NaN for a non-finite position */
} Axis;

INLINE Axis locate(float position, int32_t size, const int zeros) {
    const float lowest = zeros ? -1 : 0, highest = (float)(zeros ? size : size - 1);
    /* NaN fails every comparison and becomes `lowest`, so that an index is never out of range. */
    float bounded = position > lowest ? position : lowest;
    bounded = bounded < highest ? bounded : highest;
    int32_t low = (int32_t)bounded; /* rounded towards zero; fits, since |bounded| <= MAX_SIDE */
    low -= (float)low > bounded;
    Axis axis;
    axis.high_weight = bounded - (float)low + 0 * position; /* NaN for a non-finite position */
    axis.low_weight = 1 - axis.high_weight;
    int32_t high = low + 1;
    if (zeros) {
        axis.low_weight *= (float)(low >= 0 && low < size);
        axis.high_weight *= (float)(high < size);
    }
    /* Beyond 2^24 pixels `highest` may be rounded up to a pixel outside the map. */
    const int32_t last = size - 1;
    low = low > 0 ? low : 0;
    axis.low = low < last ? low : last;
    axis.high = high < last ? high : last;
    return axis;
}

/* Places are 32-bit: the last is H W C - 1, and the callers send no image of more than INT32_MAX elements. Images begin
 * at pointers, so that a batch may have more. */
INLINE void find_places(const Layer *l, const Maps *maps, const Block *block, ptrdiff_t samples, const int zeros) {
    const int32_t height = (int32_t)maps->height, width = (int32_t)maps->width, channels = (int32_t)l->channels;
    const float *rows = block->row, *columns = block->column;
    float *w0 = block->weight[0], *w1 = block->weight[1], *w2 = block->weight[2], *w3 = block->weight[3];
    int32_t *p0 = block->place[0], *p1 = block->place[1], *p2 = block->place[2], *p3 = block->place[3];
#pragma omp simd
    for (ptrdiff_t q = 0; q < samples; q++) {
        const Axis row = locate(rows[q], height, zeros), column = locate(columns[q], width, zeros);
        p0[q] = (row.low * width + column.low) * channels;
        p1[q] = (row.low * width + column.high) * channels;
        p2[q] = (row.high * width + column.low) * channels;
        p3[q] = (row.high * width + column.high) * channels;
        w0[q] = row.low_weight * column.low_weight;
        w1[q] = row.low_weight * column.high_weight;
        w2[q] = row.high_weight * column.low_weight;
        w3[q] = row.high_weight * column.high_weight;
    }
}

static void sample(const Layer *l, const Maps *maps, const Block *block, ptrdiff_t count) {
    const ptrdiff_t samples = count * l->points, channels = l->channels;
    if (l->zeros)
        find_places(l, maps, block, samples, 1);
    else
        find_places(l, maps, block, samples, 0);
    for (ptrdiff_t q = 0; l->modulated && q < samples; q += LANES) {
        const ptrdiff_t used = samples - q < LANES ? samples - q : LANES;
        const Vector x = load_part(block->factor + q, used);
        const Vector factor = splat(2) / (splat(1) + exponential(-x));
        for (int k = 0; k < 4; k++) {
            const Vector weight = load_part(block->weight[k] + q, used) * factor;
            memcpy(block->weight[k] + q, &weight, (size_t)used * sizeof(float));
        }
    }
    for (ptrdiff_t p = 0, q = 0; p < count; p++)
        for (ptrdiff_t n = 0; n < l->points; n++, q++) {
            const float *image = block->pixels[p].image;
            const float *r0 = image + block->place[0][q], *r1 = image + block->place[1][q];
            const float *r2 = image + block->place[2][q], *r3 = image + block->place[3][q];
            const float w0 = block->weight[0][q], w1 = block->weight[1][q];
            const float w2 = block->weight[2][q], w3 = block->weight[3][q];
            float *to = block->samples + p * block->length + n * channels;
            ptrdiff_t c = 0;
            for (; c + LANES <= channels; c += LANES)
                *(Vector *)(to + c) = w0 * load(r0 + c) + w1 * load(r1 + c) + w2 * load(r2 + c) + w3 * load(r3 + c);
            for (; c < channels; c++) to[c] = w0 * r0[c] + w1 * r1[c] + w2 * r2[c] + w3 * r3[c];
        }
}

/* Multiply a tile of `pixels` rows of samples by `vectors` vectors of the outputs of packed weights, and apply the
 * activation. `pixels` and `vectors` are constants after inlining. */
INLINE void multiply_tile(const Layer *l, const float *from, ptrdiff_t length, const float *weight, const float *bias,
                          float *to, ptrdiff_t used, const int pixels, const int vectors) {
    const ptrdiff_t inputs = l->points * l->channels;
    const float *next = weight + (LANES == PANEL ? inputs * PANEL : LANES); /* the second vector of outputs */
    Vector sums[TILE * 2];
#pragma GCC unroll 12
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sums[p * vectors + v] = load(bias + v * LANES);
    for (ptrdiff_t k = 0; k < inputs; k++) {
        const Vector left = load(weight + k * PANEL), right = vectors == 2 ? load(next + k * PANEL) : left;
#pragma GCC unroll 12
        for (int p = 0; p < pixels; p++) {
            const Vector value = splat(from[p * length + k]);
            sums[p * vectors] += value * left;
            if (vectors == 2) sums[p * vectors + 1] += value * right;
        }
    }
    if (l->silu)
#pragma GCC unroll 24
        for (int k = 0; k < pixels * vectors; k++) sums[k] = silu(sums[k]);
#pragma GCC unroll 12
    for (int p = 0; p < pixels; p++, to += l->outputs)
        if (used == vectors * LANES)
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) ((Vector *)to)[v] = sums[p * vectors + v];
        else
            memcpy(to, sums + p * vectors, (size_t)used * sizeof(float));
}

/* Multiply the samples of `count` pixels by the weights, in tiles of nearly equal height. */
static void multiply(const Layer *l, const Block *block, ptrdiff_t count, float *out) {
    const ptrdiff_t inputs = l->points * l->channels, tiles = (count + TILE - 1) / TILE, length = block->length;
    for (ptrdiff_t first = 0, used; first < l->outputs; first += used) {
        used = l->outputs - first < 2 * LANES ? l->outputs - first : 2 * LANES;
        const float *weight = l->weight + first / PANEL * PANEL * inputs + first % PANEL, *bias = l->bias + first;
        const float *from = block->samples;
        float *to = out + first;
        for (ptrdiff_t tile = 0, start = 0, pixels; tile < tiles; tile++, start += pixels) {
            pixels = (count - start + tiles - tile - 1) / (tiles - tile);
            switch (2 * pixels + (used > LANES)) {
#define TILES(PIXELS)                                                                                        \
    case 2 * PIXELS: multiply_tile(l, from, length, weight, bias, to, used, PIXELS, 1); break;               \
    case 2 * PIXELS + 1: multiply_tile(l, from, length, weight, bias, to, used, PIXELS, 2); break;
                TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6)
#if TILE == 12
                TILES(7) TILES(8) TILES(9) TILES(10) TILES(11) TILES(12)
#endif
            }
            from += pixels * length;
            to += pixels * l->outputs;
        }
    }
}

/* Compute the output pixels from `first` to `end`, counted over the batch. Returns 1 if out of memory, otherwise 0. */
static int compute(const Layer *l, const Maps *maps, ptrdiff_t first, ptrdiff_t end) {
    const ptrdiff_t inputs = l->points * l->channels;
    const ptrdiff_t length = (inputs + LANES - 1) / LANES * LANES + LANES; /* not a multiple of a page */
    if (first == end) return 0;
    ptrdiff_t size = BLOCK_FLOATS / length / TILE * TILE;
    if (size < TILE) size = TILE;
    if (size > end - first) size = end - first;
    const ptrdiff_t padded = size + OFFSET_PIXELS, samples = padded * l->points + LANES, zeros = l->channels;
    const ptrdiff_t moves = (2 + l->modulated) * l->points;
    const ptrdiff_t floats = 11 * samples + size * length + (1 + OFFSET_PIXELS) * zeros;
    const size_t bytes = (size_t)floats * 4 + (size_t)padded * sizeof(Pixel) + (size_t)moves * sizeof(Move);
    char *memory = malloc(bytes + ALIGNMENT); /* aligned by hand, since Windows has no aligned_alloc */
    if (!memory) return 1;
    Block block = {.length = length, .samples = (float *)(memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT))};
    block.pixels = (Pixel *)(block.samples + size * length);
    block.moves = (Move *)(block.pixels + padded);
    float *next = (float *)(block.moves + moves);
    float **parts[] = {&block.row, &block.column, &block.factor};
    for (int k = 0; k < 3; k++, next += samples) *parts[k] = next;
    for (int k = 0; k < 4; k++, next += samples) block.weight[k] = next;
    for (int k = 0; k < 4; k++, next += samples) block.place[k] = (int32_t *)next;
    float *nothing = next, *depthwise = next + zeros;
    memset(nothing, 0, (size_t)zeros * sizeof(float));
    for (ptrdiff_t kind = 0, move = 0; move < moves; kind++)
        for (ptrdiff_t n = 0; n < l->points; n++, move++)
            block.moves[move] = (Move){*parts[kind] + n, l->offset_bias ? l->offset_bias[move] : 0,
                                       kind < 2 ? l->initial[2 * n + kind] : 0, (int)kind};
    const ptrdiff_t h = maps->out_h, w = maps->out_w;
    ptrdiff_t j = first % w, i = first / w % h, b = first / w / h;
    for (ptrdiff_t count; first < end; first += count) {
        count = end - first < size ? end - first : size;
        for (ptrdiff_t p = 0; p < count; p++) {
            const float *image = maps->map + b * maps->height * maps->width * l->channels;
            block.pixels[p] = (Pixel){image, (int32_t)(i * l->stride), (int32_t)(j * l->stride)};
            if (++j == w) {
                j = 0;
                if (++i == h) i = 0, b++;
            }
        }
        for (ptrdiff_t p = count; p % OFFSET_PIXELS; p++) block.pixels[p] = block.pixels[count - 1];
        find_positions(l, maps, &block, count, nothing, depthwise);
        sample(l, maps, &block, count);
        multiply(l, &block, count, maps->out + first * l->outputs);
    }
    free(memory);
    return 0;
}

/* Compute `out` (B, h, w, O) from `map` (B, H, W, C), with H and W at most MAX_SIDE and H W C at most INT32_MAX. Returns 1
 * if out of memory, otherwise 0. */
int NAME(const Layer *l, const float *map, ptrdiff_t batch, ptrdiff_t height, ptrdiff_t width, ptrdiff_t threads,
         float *out) {
    const Maps maps = {map, batch, height, width, (height + l->stride - 1) / l->stride,
                       (width + l->stride - 1) / l->stride, out};
    const ptrdiff_t pixels = batch * maps.out_h * maps.out_w;
    if (threads < 2) return compute(l, &maps, 0, pixels);
    int failed = 0;
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (ptrdiff_t thread = 0; thread < threads; thread++)
        if (compute(l, &maps, thread * pixels / threads, (thread + 1) * pixels / threads)) {
#pragma omp atomic write
            failed = 1;
        }
    return failed;
}

#if !defined(__AVX2__)
/* Compare PROBES evenly spaced values of each of `count` arrays with those in `kept`, or keep them. Returns whether they
 * are the same bits. */
int probe(ptrdiff_t count, const float *const *arrays, const ptrdiff_t *sizes, float *kept, int keep) {
    int same = 1;
    for (ptrdiff_t k = 0; k < count; k++, kept += PROBES) {
        float values[PROBES];
        for (ptrdiff_t n = 0; n < PROBES; n++) values[n] = arrays[k][(sizes[k] - 1) * n / (PROBES - 1)];
        if (keep) memcpy(kept, values, sizeof values);
        same &= memcmp(values, kept, sizeof values) == 0;
    }
    return same;
}

/* Return the best set of instructions that this processor has: 0 for portable, 1 for avx2, 2 for avx512. */
int best_level(void) {
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    return __builtin_cpu_supports("avx512f") ? 2 : 1;
#else
    return 0;
#endif
}
#endif
