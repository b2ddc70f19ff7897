/* Checks of models/sampling/onnxruntime_operator.c, called as ONNX Runtime calls it, by stand-ins for its functions. */
#include "common.h"
#include "models/sampling/onnxruntime_operator.c"

enum { MAX_THREADS = 4 };

/* A tensor. */
typedef struct {
    float *data;
    size_t rank;
    int64_t shape[4];
} Value;

struct Status {
    int code;
};

static Value values[1 + CONSTANTS], output;
static int64_t attributes[7];
static const Operator *registered;
static Status statuses[3] = {{0}, {FAILED}, {INVALID_ARGUMENT}};

static Status *create_status(int code, const char *message) { return (void)message, &statuses[code]; }
static Status *create_domain(const char *domain, void **to) { return *to = (void *)domain, NULL; }
static Status *add_operator(void *domain, const Operator *o) { return (void)domain, registered = o, NULL; }
static Status *add_domain(void *options, void *domain) { return (void)options, (void)domain, NULL; }
static Status *tensor_data(Value *value, float **data) { return *data = value->data, NULL; }
static Status *tensor_shape(Value *value, void **info) { return *info = value, NULL; }
static Status *rank_of(const Value *value, size_t *rank) { return *rank = value->rank, NULL; }
static Status *dimensions(const Value *value, int64_t *to, size_t rank) {
    return memcpy(to, value->shape, rank * sizeof *to), NULL;
}
static Status *integer_attribute(const void *info, const char *wanted, int64_t *to) {
    static const char *const names[] = {"channels", "outputs", "points", "stride", "zeros", "modulated", "silu"};
    (void)info;
    for (size_t k = 0; k < COUNT_OF(names); k++)
        if (!strcmp(names[k], wanted)) return *to = attributes[k], NULL;
    return &statuses[FAILED];
}
static Status *input(const void *context, size_t index, Value **to) {
    return (void)context, *to = &values[index], NULL;
}
static Status *make_output(void *context, size_t index, const int64_t *shape, size_t rank, Value **to) {
    (void)context, (void)index;
    ptrdiff_t count = 1;
    for (size_t k = 0; k < rank; k++) count *= output.shape[k] = shape[k];
    output.data = buffer(count * (ptrdiff_t)sizeof(float));
    return *to = &output, NULL;
}
static void release_shape(void *info) { (void)info; }

/* The parts of a call, taken by threads one after the other. */
typedef struct {
    void (*function)(void *, size_t);
    void *data;
    size_t total, taken;
} Work;
static void *take_parts(void *argument) {
    Work *work = argument;
    for (size_t part; (part = __atomic_fetch_add(&work->taken, 1, __ATOMIC_RELAXED)) < work->total;)
        work->function(work->data, part);
    return NULL;
}
static Status *parallel_for(const void *context, void (*function)(void *, size_t), size_t total, size_t batches,
                            void *data) {
    (void)context, (void)batches;
    Work work = {function, data, total, 0};
    pthread_t threads[MAX_THREADS];
    for (int k = 0; k < MAX_THREADS; k++) REQUIRE(pthread_create(threads + k, NULL, take_parts, &work) == 0);
    for (int k = 0; k < MAX_THREADS; k++) pthread_join(threads[k], NULL);
    return NULL;
}

static const Api *get_api(uint32_t version) {
    static Api api;
    (void)version;
#define SET(NUMBER, FUNCTION) api.function[NUMBER] = (Status * (*)())(uintptr_t)FUNCTION
    SET(CREATE_STATUS, create_status), SET(CREATE_DOMAIN, create_domain), SET(ADD_OPERATOR, add_operator);
    SET(ADD_DOMAIN, add_domain), SET(TENSOR_DATA, tensor_data), SET(RANK, rank_of), SET(DIMENSIONS, dimensions);
    SET(TENSOR_SHAPE, tensor_shape), SET(INTEGER_ATTRIBUTE, integer_attribute), SET(INPUT, input);
    SET(OUTPUT, make_output), SET(RELEASE_SHAPE, release_shape), SET(PARALLEL_FOR, parallel_for);
    return &api;
}

/* Run a node once on `values`, and return its status. */
static int call(const Layer *l) {
    const ApiBase base = {get_api};
    void *kernel;
    const int64_t all[7] = {l->channels, l->outputs, l->points, l->stride, l->zeros, l->modulated, l->silu};
    memcpy(attributes, all, sizeof all);
    REQUIRE(!RegisterCustomOps(NULL, &base) && registered->inputs(registered) == COUNT_OF(values));
    REQUIRE(!registered->create(registered, get_api(API_VERSION), NULL, &kernel));
    const Status *status = registered->run(kernel, NULL);
    registered->destroy(kernel);
    return status ? status->code : 0;
}

static float *numbers(ptrdiff_t count, double scale) {
    float *to = buffer(count * (ptrdiff_t)sizeof(float));
    for (ptrdiff_t k = 0; k < count; k++) to[k] = (float)uniform(-scale, scale);
    return to;
}

/* Set the inputs for a layer whose pointers say which constants there are. */
static Layer set_values(Layer l, ptrdiff_t batch, ptrdiff_t height, ptrdiff_t width) {
    const ptrdiff_t moves = (2 + l.modulated) * l.points, padded = (l.outputs + PANEL - 1) / PANEL * PANEL;
    const int depthwise = l.depthwise != NULL;
    values[0] = (Value){numbers(batch * height * width * l.channels, 1), 4, {batch, height, width, l.channels}};
    values[1] = (Value){numbers(TAPS * l.channels, 0.5), 4, {3, 3, 1, depthwise ? l.channels : 0}};
    values[2] = (Value){numbers(moves * l.channels * (depthwise ? 1 : TAPS), 0.1), 4, {0}};
    values[3] = (Value){numbers(moves, 3), 1, {0}};
    values[4] = (Value){numbers(2 * l.points, 2), 2, {0}};
    values[5] = (Value){numbers(padded * l.points * l.channels, 0.1), 3, {0}};
    values[6] = (Value){numbers(padded, 1), 1, {0}};
    const float **constants[] = {&l.depthwise, &l.offset_weight, &l.offset_bias, &l.initial, &l.weight, &l.bias};
    for (size_t k = 0; k < CONSTANTS; k++) *constants[k] = values[k + 1].data;
    if (!depthwise) l.depthwise = NULL;
    return l;
}

static void random_shape(void) {
    static const float present = 0;
    const int large = one_in(20); /* enough work for several parts */
    Layer l;
    ptrdiff_t batch, height, width;
    do {
        l = (Layer){.channels = near_multiple(LANES, 70),
                    .outputs = near_multiple(PANEL, 70),
                    .points = between(1, 11),
                    .stride = between(1, 3),
                    .zeros = one_in(2),
                    .modulated = one_in(2),
                    .silu = one_in(2),
                    .depthwise = one_in(3) ? &present : NULL};
        batch = between(0, 3), height = between(0, large ? 30 : 12), width = between(0, large ? 30 : 12);
    } while (batch * height * width / l.stride / l.stride * l.points * l.channels * (l.outputs + 27) >
             (large ? 8000000 : 200000));
    l = set_values(l, batch, height, width);
    snprintf(described, sizeof described,
             "batch %td height %td width %td channels %td outputs %td points %td stride %td", batch, height, width,
             l.channels, l.outputs, l.points, l.stride);
    if (one_in(4) && batch && height && width)
        values[0].data[between(0, batch * height * width * l.channels - 1)] = one_in(2) ? NAN : INFINITY;
    if (one_in(4)) values[3].data[between(0, 2 * l.points - 1)] = one_in(2) ? -3.4e38f : INFINITY;
    REQUIRE(call(&l) == 0);
    const ptrdiff_t h = (height + l.stride - 1) / l.stride, w = (width + l.stride - 1) / l.stride;
    const int64_t expected[4] = {batch, h, w, l.outputs};
    REQUIRE(same_bits(output.shape, expected, sizeof expected));
    const ptrdiff_t count = batch * h * w * l.outputs;
    float *whole = buffer(count * (ptrdiff_t)sizeof(float));
    if (count) {
        REQUIRE(NAME(&l, values[0].data, batch, height, width, 1, whole) == 0);
        REQUIRE(same_floats(output.data, whole, count));
    }
    if (one_in(16) && count) {
        refused_at = (int)between(1, 2); /* after that of the node */
        const int code = call(&l);
        refused_at = -1;
        REQUIRE(code == 0 || code == FAILED);
    }
    values[0].shape[3]++; /* a map with other channels than the weights is refused */
    REQUIRE(call(&l) == INVALID_ARGUMENT);
    values[0].rank = 3;
    REQUIRE(call(&l) == INVALID_ARGUMENT);
    free_buffers();
}

static ptrdiff_t all_small(void) { return 0; }
static ptrdiff_t all_positions(void) { return 0; }

/* Maps that its indices cannot reach are refused, even where only their sizes are given. */
static ptrdiff_t huge(void) {
    static const int64_t sizes[][3] = {{1, 65536, 32768},
                                       {1, MAX_SIDE + 1, 1},
                                       {1, 1, MAX_SIDE + 1},
                                       {1, INT32_MAX, 1},
                                       {1, INT64_C(1) << 32, INT64_C(1) << 32},
                                       {0, INT64_MAX, INT64_MAX}};
    Layer l = set_values((Layer){.channels = 1, .outputs = 1, .points = 1, .stride = 1}, 1, 1, 1);
    for (size_t k = 0; k < COUNT_OF(sizes); k++) {
        memcpy(values[0].shape, sizes[k], sizeof sizes[k]);
        snprintf(described, sizeof described, "%lld x %lld", (long long)sizes[k][1], (long long)sizes[k][2]);
        REQUIRE(call(&l) == INVALID_ARGUMENT);
    }
    free_buffers();
    return COUNT_OF(sizes);
}
