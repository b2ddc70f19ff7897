/* Candidates and non-maximum suppression of one image, bitwise equal to nms.py with torch.
 *
 * Sums and products keep the order of nms.py; the file is compiled without contracting them to fused operations.
 * Suppression is in double precision: the IoU of small boxes far from the origin is inexact in single precision.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 2048    /* of the radix sort: 11 bits per digit */
#define FIRST_POOL 2048 /* candidates tried first, which usually suffice */
#define BLOCK 16        /* kept boxes compared at a time */

typedef struct {
    ptrdiff_t rows, classes, limit, candidates;
    ptrdiff_t agnostic, multi_label;
    double conf_threshold, iou_threshold;
} Settings;

typedef struct {
    uint32_t key; /* the score's inverted bits: ascending keys are descending scores */
    uint32_t column;
    ptrdiff_t row;
} Candidate;

typedef struct {
    double *left, *top, *right, *bottom, *area, *column; /* room for one block more than the limit */
    ptrdiff_t count;
} Kept;

static uint32_t key_of(float score) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return ~bits;
}

static float score_of(uint32_t key) {
    float score;
    key = ~key;
    memcpy(&score, &key, sizeof score);
    return score;
}

/* Write a row's candidates; a row with NaN has none. */
static ptrdiff_t from_row(const Settings *s, const float *row, ptrdiff_t index, const unsigned char *allowed,
                          Candidate *to) {
    const float confidence = (float)s->conf_threshold, objectness = row[4], *probabilities = row + 5;
    if (!(objectness > confidence)) return 0;
    ptrdiff_t best = 0, count = 0;
    for (ptrdiff_t c = 0; c < s->classes; c++) {
        if (s->multi_label && allowed && !allowed[c]) continue;
        if (probabilities[c] != probabilities[c]) return 0;
        if (probabilities[c] > probabilities[best]) best = c;
    }
    const ptrdiff_t first = s->multi_label ? 0 : best, end = s->multi_label ? s->classes : best + 1;
    for (ptrdiff_t c = first; c < end; c++) {
        const float score = probabilities[c] * objectness;
        if (score > confidence && (!allowed || allowed[c]))
            to[count++] = (Candidate){key_of(score), (uint32_t)c, index};
    }
    return count;
}

/* Keep the best `pool` candidates and all others in the bucket of the last one, in their original order. */
static ptrdiff_t select_best(const Candidate *all, ptrdiff_t count, ptrdiff_t pool, Candidate *to) {
    ptrdiff_t histogram[BUCKETS] = {0}, reached = 0, written = 0;
    for (ptrdiff_t i = 0; i < count; i++) histogram[all[i].key >> 21]++;
    uint32_t last = 0;
    while (last < BUCKETS - 1 && (reached += histogram[last]) < pool) last++;
    for (ptrdiff_t i = 0; i < count; i++)
        if (all[i].key >> 21 <= last) to[written++] = all[i];
    return written;
}

/* Stable radix sort by key: three digits, the lowest first. Returns the array that holds the result. */
static Candidate *radix_sort(Candidate *from, Candidate *to, ptrdiff_t count) {
    for (int shift = 0; shift < 32; shift += 11) {
        ptrdiff_t starts[BUCKETS + 1] = {0};
        for (ptrdiff_t i = 0; i < count; i++) starts[(from[i].key >> shift & (BUCKETS - 1)) + 1]++;
        for (int d = 0; d < BUCKETS; d++) starts[d + 1] += starts[d];
        for (ptrdiff_t i = 0; i < count; i++) to[starts[from[i].key >> shift & (BUCKETS - 1)]++] = from[i];
        Candidate *other = from;
        from = to;
        to = other;
    }
    return from;
}

static int is_finite(float value) { return value - value == 0; }

/* Greedy NMS: keep candidates in order until `limit` boxes are kept. */
static void run_nms(const Settings *s, const float *prediction, const Candidate *ordered, ptrdiff_t count, Kept *kept,
                    float *boxes, float *scores, int64_t *classes) {
    kept->count = 0;
    for (ptrdiff_t i = 0; i < count && kept->count < s->limit; i++) {
        const float *row = prediction + ordered[i].row * (5 + s->classes);
        const double half_width = (double)row[2] / 2, half_height = (double)row[3] / 2;
        const double left = row[0] - half_width, top = row[1] - half_height;
        const double right = row[0] + half_width, bottom = row[1] + half_height;
        const float box[4] = {(float)left, (float)top, (float)right, (float)bottom};
        if (!is_finite(box[0]) || !is_finite(box[1]) || !is_finite(box[2]) || !is_finite(box[3])) continue;
        const double area = (right - left) * (bottom - top), column = s->agnostic ? 0 : ordered[i].column;
        int overlaps = 0;
        for (ptrdiff_t start = 0; start < kept->count && !overlaps; start += BLOCK)
#pragma omp simd reduction(| : overlaps)
            for (ptrdiff_t k = start; k < start + BLOCK; k++) {
                const double x1 = kept->left[k] > left ? kept->left[k] : left;
                const double y1 = kept->top[k] > top ? kept->top[k] : top;
                const double x2 = kept->right[k] < right ? kept->right[k] : right;
                const double y2 = kept->bottom[k] < bottom ? kept->bottom[k] : bottom;
                const double width = x2 - x1 > 0 ? x2 - x1 : 0, height = y2 - y1 > 0 ? y2 - y1 : 0;
                const double shared = width * height;
                /* false for 0 / 0 */
                overlaps |= (shared / (kept->area[k] + area - shared) > s->iou_threshold) & (kept->column[k] == column);
            }
        if (overlaps) continue;
        const ptrdiff_t k = kept->count++;
        kept->left[k] = left;
        kept->top[k] = top;
        kept->right[k] = right;
        kept->bottom[k] = bottom;
        kept->area[k] = area;
        kept->column[k] = column;
        memcpy(boxes + 4 * k, box, sizeof box);
        scores[k] = score_of(ordered[i].key);
        classes[k] = ordered[i].column;
    }
}

/* NMS of a prediction (rows, 5 + classes): cx, cy, w, h, objectness, probabilities. `allowed` (classes) is a mask of
 * the classes to keep, NULL for all. Writes boxes (limit, 4), scores and classes (limit), best first; returns their
 * number, or -1 if out of memory. */
ptrdiff_t suppress(const Settings *s, const float *prediction, const unsigned char *allowed, float *boxes,
                   float *scores, int64_t *classes) {
    ptrdiff_t count = 0, capacity = 0, result = -1;
    Candidate *all = NULL, *first = NULL, *second = NULL;
    Kept kept = {0};
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        if (capacity - count < s->classes) {
            capacity = 2 * capacity + s->classes + 4096;
            Candidate *larger = realloc(all, (size_t)capacity * sizeof *all);
            if (!larger) goto end;
            all = larger;
        }
        count += from_row(s, prediction + r * (5 + s->classes), r, allowed, all + count);
    }
    first = malloc((size_t)(count + 1) * sizeof *first);
    second = malloc((size_t)(count + 1) * sizeof *second);
    /* Zeros after the last kept box have no overlap with anything. */
    kept.left = calloc((size_t)(6 * (s->limit + BLOCK)), sizeof(double));
    if (!first || !second || !kept.left) goto end;
    kept.top = kept.left + (s->limit + BLOCK);
    kept.right = kept.top + (s->limit + BLOCK);
    kept.bottom = kept.right + (s->limit + BLOCK);
    kept.area = kept.bottom + (s->limit + BLOCK);
    kept.column = kept.area + (s->limit + BLOCK);
    const ptrdiff_t pools[2] = {FIRST_POOL, s->candidates};
    for (int t = 0; t < 2; t++) {
        ptrdiff_t selected = select_best(all, count, pools[t], first);
        const Candidate *ordered = radix_sort(first, second, selected);
        if (selected > s->candidates) selected = s->candidates;
        memset(kept.left, 0, (size_t)(6 * (s->limit + BLOCK)) * sizeof(double));
        run_nms(s, prediction, ordered, selected, &kept, boxes, scores, classes);
        if (kept.count == s->limit || selected == count) break;
    }
    result = kept.count;
end:
    free(all);
    free(first);
    free(second);
    free(kept.left);
    return result;
}
