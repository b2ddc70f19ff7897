/* What the kernels of AKConv share. The including file defines REAL, LANES, and the types Vector and Integers, of LANES
 * numbers each. */
#define TAPS 9 /* of the 3x3 convolution that predicts the offsets */
/* Pixels of a map's height or width; `MAX_SIDE` of sampling_grid.py. A position is clamped to [-1, MAX_SIDE], which float
 * represents: so it converts to int32_t, and one pixel more still fits. */
#define MAX_SIDE (1 << 30)
#define INLINE static inline __attribute__((always_inline))
#if LANES == 16
#define INDICES 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#elif LANES == 8
#define INDICES 0, 1, 2, 3, 4, 5, 6, 7
#else
#define INDICES 0, 1, 2, 3
#endif

/* Return a vector whose lane L holds lanes L and L ^ distance, added: of `b` where L has the bit `distance`, else of
 * `a`. */
INLINE Vector fold(Vector a, Vector b, const int distance) {
#ifdef __clang__
    Vector sum;
    for (int lane = 0; lane < LANES; lane++)
        sum[lane] = lane & distance ? b[lane] + b[lane ^ distance] : a[lane] + a[lane ^ distance];
    return sum;
#else
    const Integers lanes = {INDICES}, from_b = ((lanes & distance) != 0) & LANES;
    return __builtin_shuffle(a, b, lanes + from_b) + __builtin_shuffle(a, b, (lanes ^ distance) + from_b);
#endif
}

/* Write the sum of the lanes of each of `count` vectors. */
INLINE void sum_lanes(const Vector *vectors, const int count, REAL *to) {
#pragma GCC unroll 8
    for (int first = 0; first < count; first += LANES) {
        Vector v[LANES];
#pragma GCC unroll 16
        for (int k = 0; k < LANES; k++) v[k] = first + k < count ? vectors[first + k] : (Vector){0};
#pragma GCC unroll 4
        for (int distance = 1; distance < LANES; distance *= 2)
#pragma GCC unroll 16
            for (int k = 0; k < LANES; k += 2 * distance)
                if (first + k < count) v[k] = fold(v[k], v[k + distance], distance);
        const int used = count - first < LANES ? count - first : LANES;
        memcpy(to + first, v, (size_t)used * sizeof(REAL));
    }
}
