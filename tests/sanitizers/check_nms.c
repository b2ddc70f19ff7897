/* Checks of utils/inference/nms.c. */
#include "common.h"
#include "utils/inference/nms.c"

typedef struct {
    Settings settings;
    float *prediction, *boxes, *scores;
    unsigned char *allowed;
    int64_t *classes;
} Case;

static Case make_case(Settings s, int masked) {
    const ptrdiff_t columns = 5 + s.classes;
    Case a = {s,
              buffer(s.rows * columns * (ptrdiff_t)sizeof(float)),
              buffer(s.limit * 4 * (ptrdiff_t)sizeof(float)),
              buffer(s.limit * (ptrdiff_t)sizeof(float)),
              masked ? buffer(s.classes) : NULL,
              buffer(s.limit * (ptrdiff_t)sizeof(int64_t))};
    for (ptrdiff_t c = 0; masked && c < s.classes; c++) a.allowed[c] = one_in(2);
    return a;
}

static ptrdiff_t call(const Case *a) {
    return suppress(&a->settings, a->prediction, a->allowed, a->boxes, a->scores, a->classes);
}

static double overlap(const float *a, const float *b) {
    const double w = fmin(a[2], b[2]) - fmax(a[0], b[0]), h = fmin(a[3], b[3]) - fmax(a[1], b[1]);
    const double shared = w > 0 && h > 0 ? w * h : 0;
    return shared /
           (((double)a[2] - a[0]) * ((double)a[3] - a[1]) + ((double)b[2] - b[0]) * ((double)b[3] - b[1]) - shared);
}

/* What is kept: finite boxes, the best first, above the threshold, of allowed classes, without overlap; and each kept
 * box and score stands in some row. */
static void inspect(const Case *a, ptrdiff_t kept) {
    const Settings *s = &a->settings;
    REQUIRE(kept >= 0 && kept <= s->limit);
    for (ptrdiff_t k = 0; k < kept; k++) {
        const int64_t c = a->classes[k];
        const float *box = a->boxes + 4 * k;
        REQUIRE(c >= 0 && c < s->classes && (!a->allowed || a->allowed[c]));
        REQUIRE(a->scores[k] > (float)s->conf_threshold && (!k || a->scores[k] <= a->scores[k - 1]));
        for (int side = 0; side < 4; side++) REQUIRE(isfinite(box[side]));
        int found = 0;
        for (ptrdiff_t r = 0; r < s->rows && !found; r++) {
            const float *row = a->prediction + r * (5 + s->classes);
            found = row[4] * row[5 + c] == a->scores[k] && (float)(row[0] - (double)row[2] / 2) == box[0] &&
                    (float)(row[1] + (double)row[3] / 2) == box[3];
        }
        REQUIRE(found);
        for (ptrdiff_t other = 0; other < k; other++)
            if (s->agnostic || a->classes[other] == c)
                REQUIRE(!(overlap(box, a->boxes + 4 * other) > s->iou_threshold + 1e-3));
    }
}

static void random_shape(void) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3.4e38f, -3.4e38f, 1e-45f, -0.0f, 1e30f};
    const int many = one_in(100), regular = !one_in(4);
    const Settings s = {.rows = many ? between(2000, 6000) : between(0, 60),
                        .classes = between(1, one_in(8) ? 90 : 6),
                        .limit = one_in(3) ? between(0, 5) : between(0, 40),
                        .candidates = between(1, many ? 3000 : 80),
                        .agnostic = one_in(2),
                        .multi_label = one_in(2),
                        .conf_threshold = one_in(3) ? 0 : uniform(0, 0.9),
                        .iou_threshold = uniform(0.1, 1)};
    const Case a = make_case(s, one_in(3));
    snprintf(described, sizeof described,
             "rows %td classes %td limit %td candidates %td agnostic %td multi %td conf %g iou %g", s.rows, s.classes,
             s.limit, s.candidates, s.agnostic, s.multi_label, s.conf_threshold, s.iou_threshold);
    const int equal = one_in(4); /* scores that are often the same */
    for (ptrdiff_t r = 0; r < s.rows; r++) {
        float *row = a.prediction + r * (5 + s.classes);
        for (int k = 0; k < 4; k++) row[k] = (float)uniform(k < 2 ? 0 : 1, 64);
        for (ptrdiff_t k = 4; k < 5 + s.classes; k++) row[k] = equal ? (float)between(0, 4) / 4 : (float)uniform(0, 1);
        if (!regular && one_in(3)) row[between(0, 4 + s.classes)] = odd[between(0, COUNT_OF(odd) - 1)];
    }
    const ptrdiff_t kept = call(&a);
    if (regular)
        inspect(&a, kept);
    else
        REQUIRE(kept >= 0 && kept <= s.limit);
    if (one_in(16)) {
        refused_at = (int)between(0, 2);
        const ptrdiff_t failed = call(&a);
        refused_at = -1;
        REQUIRE(failed == -1);
    }
    free_buffers();
}

/* A row of one or two classes: each combination of some values at the places that decide, with each setting; of those of
 * two rows every 7th, of three rows every 997th. */
static ptrdiff_t all_small(void) {
    static const float confidences[] = {0, 0.25f, 1, NAN}, sizes[] = {0, 2, -1, INFINITY, 3.4e38f};
    ptrdiff_t cases = 0;
    for (int rows = 0; rows <= 3; rows++)
        for (int flags = 0; flags < 64; flags++) {
            const Settings s = {.rows = rows,
                                .classes = 1 + flags % 2,
                                .agnostic = flags / 2 % 2,
                                .multi_label = flags / 4 % 2,
                                .limit = flags / 8 % 2 ? 1 : 3,
                                .candidates = flags / 16 % 2 ? 1 : 3,
                                .conf_threshold = flags / 32 ? 0.2 : 0,
                                .iou_threshold = 0.5};
            const Case a = make_case(s, flags % 3 == 0);
            const int columns = 5 + (int)s.classes;
            int total = 1; /* per row: 4 objectness, 4 probabilities, 5 sizes */
            for (int r = 0; r < rows; r++) total *= 80;
            for (int number = 0; number < total; number += rows == 3 ? 997 : rows == 2 ? 7 : 1, cases++) {
                for (int r = 0, rest = number; r < rows; r++, rest /= 80) {
                    float *row = a.prediction + r * columns;
                    row[0] = row[1] = (float)r, row[2] = row[3] = sizes[rest / 16 % 5];
                    for (int c = 4; c < columns; c++) row[c] = confidences[rest / (c == 4 ? 1 : 4) % 4];
                }
                const ptrdiff_t kept = call(&a);
                REQUIRE(kept >= 0 && kept <= s.limit && kept <= rows * s.classes);
            }
            free_buffers();
        }
    return cases;
}

static ptrdiff_t all_positions(void) { return 0; }

/* More than 2^31 numbers, of which the last row is a box. */
static ptrdiff_t huge(void) {
    const Settings s = {.rows = 540000,
                        .classes = 4000,
                        .limit = 3,
                        .candidates = 30000,
                        .multi_label = 1,
                        .conf_threshold = 0.2,
                        .iou_threshold = 0.5};
    const size_t bytes = (size_t)(s.rows * (5 + s.classes)) * sizeof(float);
    Case a = make_case((Settings){.rows = 1, .classes = s.classes, .limit = s.limit}, 0);
    a.settings = s;
    a.prediction = sparse(bytes);
    float *row = a.prediction + (s.rows - 1) * (5 + s.classes);
    row[0] = row[1] = 8, row[2] = row[3] = 4, row[4] = 1, row[4 + s.classes] = 0.5f;
    REQUIRE(call(&a) == 1 && a.boxes[3] == 10 && a.scores[0] == 0.5f && a.classes[0] == s.classes - 1);
    munmap(a.prediction, bytes);
    free_buffers();
    return 1;
}
