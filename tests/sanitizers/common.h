/* What the programs of this folder share: seeded random numbers, buffers without a spare byte, memory that runs out on
 * request, OpenMP by POSIX threads, and huge maps that occupy little memory. Each program includes one kernel's source,
 * so that its inner functions can be called too. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_BUFFERS 32
#define COUNT_OF(ARRAY) (sizeof(ARRAY) / sizeof *(ARRAY))

/* Report a fault with the parameters of the case, and end. */
static char described[512];
#define REQUIRE(CONDITION)                                                                     \
    do {                                                                                       \
        if (!(CONDITION)) {                                                                    \
            fprintf(stderr, "%s:%d: not %s: %s\n", __FILE__, __LINE__, #CONDITION, described); \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* splitmix64: the same shapes on every machine. */
static uint64_t state;
static uint64_t next(void) {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static ptrdiff_t between(ptrdiff_t low, ptrdiff_t high) {
    return low + (ptrdiff_t)(next() % (uint64_t)(high - low + 1));
}
static int one_in(int n) { return next() % (uint64_t)n == 0; }
static double uniform(double low, double high) {
    return low + (high - low) * (double)(next() >> 11) / 9007199254740992.0;
}

/* A size near a multiple of the vectors' lanes, where loops over whole vectors and the rest meet. */
static __attribute__((unused)) ptrdiff_t near_multiple(ptrdiff_t lanes, ptrdiff_t most) {
    const ptrdiff_t size = one_in(3) ? between(1, most) : lanes * between(0, 3) + between(-1, 1);
    return size < 1 ? 1 : size < most ? size : most;
}

/* Memory that ends exactly where the array ends, so that the address sanitizer sees a single number too far. */
static void *buffers[MAX_BUFFERS];
static int used_buffers;
static void *buffer(ptrdiff_t bytes) {
    REQUIRE(used_buffers < MAX_BUFFERS);
    return buffers[used_buffers++] = malloc((size_t)bytes);
}
static void free_buffers(void) {
    while (used_buffers) free(buffers[--used_buffers]);
}

/* Allocations of the kernel: the one at which `refused_at` reaches 0 fails, and all after it. Negative: none fails. */
static int refused_at = -1;
static int refuse(void) {
    return __atomic_load_n(&refused_at, __ATOMIC_RELAXED) >= 0 &&
           __atomic_fetch_sub(&refused_at, 1, __ATOMIC_RELAXED) <= 0 &&
           (__atomic_store_n(&refused_at, 0, __ATOMIC_RELAXED), 1);
}
#define malloc(SIZE) (refuse() ? NULL : malloc(SIZE))
#define calloc(COUNT, SIZE) (refuse() ? NULL : calloc(COUNT, SIZE))
#define realloc(OLD, SIZE) (refuse() ? NULL : realloc(OLD, SIZE))

/* The functions of libgomp that gcc calls, by POSIX threads: the thread sanitizer knows these, but not libgomp's. */
typedef struct {
    void (*function)(void *);
    void *data;
    pthread_barrier_t *barrier;
    int number, size;
} Member;
static _Thread_local const Member *member;
static __attribute__((unused)) void *run_member(void *argument) {
    member = argument;
    member->function(member->data);
    member = NULL;
    return NULL;
}
void GOMP_parallel(void (*function)(void *), void *data, unsigned size, unsigned flags);
void GOMP_parallel(void (*function)(void *), void *data, unsigned size, unsigned flags) {
    (void)flags;
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, size);
    pthread_t threads[64];
    Member members[64];
    REQUIRE(size >= 1 && size <= COUNT_OF(members));
    for (unsigned k = 0; k < size; k++) {
        members[k] = (Member){function, data, &barrier, (int)k, (int)size};
        if (k) REQUIRE(pthread_create(&threads[k], NULL, run_member, &members[k]) == 0);
    }
    const Member *before = member;
    run_member(&members[0]);
    member = before;
    for (unsigned k = 1; k < size; k++) pthread_join(threads[k], NULL);
    pthread_barrier_destroy(&barrier);
}
void GOMP_barrier(void);
void GOMP_barrier(void) { pthread_barrier_wait(member->barrier); }
int omp_get_thread_num(void);
int omp_get_thread_num(void) { return member ? member->number : 0; }
int omp_get_num_threads(void);
int omp_get_num_threads(void) { return member ? member->size : 1; }

/* Return `bytes` of address space that read as zeros and cost memory only where written. */
static __attribute__((unused)) void *sparse(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        printf("skipped: no %zu bytes of address space\n", bytes);
        exit(0);
    }
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

/* Return `bytes` of address space, every `period` bytes of which are the same memory. */
static __attribute__((unused)) void *repeated(size_t bytes, size_t period) {
    const int file = memfd_create("map", 0);
    char *memory = sparse(bytes);
    REQUIRE(file >= 0 && ftruncate(file, (off_t)period) == 0);
    for (size_t at = 0; at < bytes; at += period) {
        const size_t length = bytes - at < period ? bytes - at : period;
        REQUIRE(mmap(memory + at, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != MAP_FAILED);
    }
    close(file);
    return memory;
}

/* Every position that decides differently on an axis of `size` pixels, and those that no map reaches; their number. */
enum { MAX_POSITIONS = 64 };
static __attribute__((unused)) int list_positions(ptrdiff_t size, double *to) {
    int count = 0;
    for (ptrdiff_t k = -4; k <= 2 * size + 3; k++) to[count++] = (double)k / 2;
    for (ptrdiff_t k = -1; k <= size; k++) {
        to[count++] = nextafterf((float)k, INFINITY);
        to[count++] = nextafterf((float)k, -INFINITY);
    }
    const double others[] = {NAN,
                             -NAN,
                             INFINITY,
                             -INFINITY,
                             -0.0,
                             1e9,
                             -1e9,
                             2147483648.0,
                             -2147483648.0,
                             4294967296.0,
                             3.4028234663852886e38,
                             -3.4028234663852886e38,
                             1e-45,
                             -1e-45};
    for (size_t k = 0; k < COUNT_OF(others); k++) to[count++] = others[k];
    REQUIRE(count <= MAX_POSITIONS);
    return count;
}

/* Return the sample of a channel at a position, from the definition: sampling_grid.py, in double precision. */
#define DEFINE_REFERENCE(REAL)                                                                                     \
    static double reference(const REAL *image, ptrdiff_t height, ptrdiff_t width, ptrdiff_t channels, ptrdiff_t c, \
                            int zeros, double row, double column) {                                                \
        if (!isfinite(row) || !isfinite(column)) return NAN;                                                       \
        const double beyond = zeros ? 1 : 0;                                                                       \
        row = fmin(fmax(row, -beyond), (double)(height - 1) + beyond);                                             \
        column = fmin(fmax(column, -beyond), (double)(width - 1) + beyond);                                        \
        double sum = 0;                                                                                            \
        for (int corner = 0; corner < 4; corner++) {                                                               \
            const double y = floor(row) + corner / 2, x = floor(column) + corner % 2;                              \
            const double weight = (1 - fabs(row - y)) * (1 - fabs(column - x));                                    \
            if (weight > 0 && y >= 0 && x >= 0 && y < (double)height && x < (double)width)                         \
                sum += weight * (double)image[((ptrdiff_t)y * width + (ptrdiff_t)x) * channels + c];               \
        }                                                                                                          \
        return sum;                                                                                                \
    }

static __attribute__((unused)) int is_close(double a, double b, double tolerance) {
    return (isnan(a) && isnan(b)) || a == b || fabs(a - b) <= tolerance;
}
static __attribute__((unused)) int same_bits(const void *a, const void *b, size_t bytes) {
    return !memcmp(a, b, bytes);
}
/* The same bits, or both NaN: which NaN is left of several depends on the order of operands, which C leaves open. */
static __attribute__((unused)) int same_floats(const float *a, const float *b, ptrdiff_t count) {
    int same = 1;
    for (ptrdiff_t k = 0; k < count; k++) same &= (a[k] != a[k] && b[k] != b[k]) || same_bits(a + k, b + k, sizeof *a);
    return same;
}

/* A program's checks: `random_shape` one case, `all_small` every small case, `all_positions`, `huge`. */
static void random_shape(void);
static ptrdiff_t all_small(void);
static ptrdiff_t all_positions(void);
static ptrdiff_t huge(void);

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    ptrdiff_t cases = 0;
    if (!strcmp(name, "random") && argc == 4) {
        for (; cases < atol(argv[3]); cases++) {
            state = (uint64_t)atol(argv[2]) << 32 | (uint64_t)cases; /* each case by its own number */
            next();
            random_shape();
        }
    } else if (!strcmp(name, "small")) {
        cases = all_small();
    } else if (!strcmp(name, "positions")) {
        cases = all_positions();
    } else if (!strcmp(name, "huge")) {
        cases = huge();
    } else {
        fprintf(stderr, "usage: %s random SEED COUNT | small | positions | huge\n", argv[0]);
        return 2;
    }
    printf("%td\n", cases);
    return 0;
}
