/* AKConv layers as an operator of ONNX Runtime: akconv::Layer, from a channels-last map (B, H, W, C) to (B, h, w, O).
 *
 * Its other inputs are constants, the pointers of `Layer` in layer_kernel.c in that order; `depthwise` is empty
 * for an ordinary offset convolution. Its attributes are the integers of `Layer`. ONNX Runtime's threads do the work.
 * The declarations are those of onnxruntime_c_api.h, which its packages do not contain: a table of functions, whose
 * places never change, and the first members of a structure, whose order does not change either.
 */
#include <stdint.h>

#include "layer_kernel.c"

#define API_VERSION 17      /* the first with ParallelFor */
#define OPERATOR_VERSION 16 /* of `Operator`: the last member that is declared here */
#define FLOAT 1             /* type of elements */
#define FAILED 1            /* codes of errors */
#define INVALID_ARGUMENT 2
#define WORK (1 << 20)      /* multiply-adds of a part of the output; a session's threads share the parts */
#define MAX_PARTS 16
#define CONSTANTS 6

typedef struct Status Status; /* an error, or NULL */
enum {
    CREATE_STATUS = 0,
    CREATE_DOMAIN = 26,
    ADD_OPERATOR = 27,
    ADD_DOMAIN = 28,
    TENSOR_DATA = 51,
    RANK = 61,
    DIMENSIONS = 62,
    TENSOR_SHAPE = 65,
    INTEGER_ATTRIBUTE = 86,
    INPUT = 90,
    OUTPUT = 91,
    RELEASE_SHAPE = 99,
    PARALLEL_FOR = 274,
    FUNCTIONS
};
typedef struct {
    Status *(*function[FUNCTIONS])();
} Api;
typedef struct {
    const Api *(*get)(uint32_t version);
} ApiBase;

typedef struct Operator {
    uint32_t version;
    void *(*create_without_status)(const struct Operator *, const Api *, const void *info);
    const char *(*name)(const struct Operator *);
    const char *(*provider)(const struct Operator *);
    int (*input_type)(const struct Operator *, size_t);
    size_t (*inputs)(const struct Operator *);
    int (*output_type)(const struct Operator *, size_t);
    size_t (*outputs)(const struct Operator *);
    void (*run_without_status)(void *, void *context);
    void (*destroy)(void *);
    int (*input_is_optional)(const struct Operator *, size_t);
    int (*output_is_optional)(const struct Operator *, size_t);
    int (*input_memory)(const struct Operator *, size_t);
    int (*variadic[4])(const struct Operator *);
    Status *(*create)(const struct Operator *, const Api *, const void *info, void **kernel);
    Status *(*run)(void *kernel, void *context);
} Operator;

/* A node of the graph. */
typedef struct {
    const Api *api;
    int64_t channels, outputs, points, stride, zeros, modulated, silu;
} Node;

static const char *name(const Operator *o) { return (void)o, "Layer"; }
static const char *provider(const Operator *o) { return (void)o, "CPUExecutionProvider"; }
static int type(const Operator *o, size_t index) { return (void)o, (void)index, FLOAT; }
static size_t inputs(const Operator *o) { return (void)o, 1 + CONSTANTS; }
static size_t outputs(const Operator *o) { return (void)o, 1; }
static int none(const Operator *o, size_t index) { return (void)o, (void)index, 0; }
static int not_variadic(const Operator *o) { return (void)o, 1; }

static Status *create(const Operator *o, const Api *api, const void *info, void **kernel) {
    (void)o;
    Node *node = malloc(sizeof *node);
    if (!node) return api->function[CREATE_STATUS](FAILED, "out of memory");
    node->api = api;
    const struct {
        const char *name;
        int64_t *value;
    } attributes[] = {{"channels", &node->channels}, {"outputs", &node->outputs},     {"points", &node->points},
                      {"stride", &node->stride},     {"zeros", &node->zeros},         {"modulated", &node->modulated},
                      {"silu", &node->silu}};
    for (size_t k = 0; k < sizeof attributes / sizeof *attributes; k++) {
        Status *error = api->function[INTEGER_ATTRIBUTE](info, attributes[k].name, attributes[k].value);
        if (error) {
            free(node);
            return error;
        }
    }
    *kernel = node;
    return NULL;
}

/* A call: its output pixels are divided into parts. */
typedef struct {
    Layer layer;
    Maps maps;
    ptrdiff_t pixels, parts;
    int failed;
} Call;

static void run_part(void *context, size_t part) {
    Call *call = context;
    const ptrdiff_t first = (ptrdiff_t)part * call->pixels / call->parts;
    if (compute(&call->layer, &call->maps, first, ((ptrdiff_t)part + 1) * call->pixels / call->parts))
        __atomic_store_n(&call->failed, 1, __ATOMIC_RELAXED);
}

#define CHECK(CALL)                 \
    do {                            \
        Status *error = CALL;       \
        if (error) return error;    \
    } while (0)

/* Read the address of an input, and its shape (4 numbers) if `shape` is not NULL; NULL for an empty constant. */
static Status *read_input(const Node *node, const void *context, size_t index, const float **data, int64_t *shape) {
    Status *(*const *f)() = node->api->function;
    void *value, *info;
    size_t rank = 0;
    CHECK(f[INPUT](context, index, &value));
    CHECK(f[TENSOR_DATA](value, data));
    if (!shape) return NULL;
    CHECK(f[TENSOR_SHAPE](value, &info));
    Status *error = f[RANK](info, &rank);
    if (!error) error = rank == 4 ? f[DIMENSIONS](info, shape, rank) : f[CREATE_STATUS](INVALID_ARGUMENT, "no map");
    f[RELEASE_SHAPE](info);
    return error;
}

static Status *run(void *kernel, void *context) {
    const Node *node = kernel;
    Status *(*const *f)() = node->api->function;
    int64_t shape[4], taps[4];
    const float *map, *constant[CONSTANTS];
    CHECK(read_input(node, context, 0, &map, shape));
    for (size_t k = 0; k < CONSTANTS; k++) CHECK(read_input(node, context, k + 1, constant + k, k ? NULL : taps));
    /* The product of two sides fits into 64 bits, that with the channels may not. */
    if (shape[3] != node->channels || shape[3] < 1 || shape[1] > MAX_SIDE || shape[2] > MAX_SIDE ||
        shape[1] * shape[2] > INT32_MAX / shape[3])
        return f[CREATE_STATUS](INVALID_ARGUMENT, "the map has other channels, or too many pixels");
    const ptrdiff_t h = (shape[1] + node->stride - 1) / node->stride, w = (shape[2] + node->stride - 1) / node->stride;
    const int64_t result[4] = {shape[0], h, w, node->outputs};
    void *value;
    Call call = {.layer = {node->channels, node->outputs, node->points, node->stride, node->zeros, node->modulated,
                           node->silu, taps[3] ? constant[0] : NULL, constant[1], constant[2], constant[3], constant[4],
                           constant[5]},
                 .maps = {map, shape[0], shape[1], shape[2], h, w, NULL},
                 .pixels = shape[0] * h * w};
    CHECK(f[OUTPUT](context, (size_t)0, result, (size_t)4, &value));
    CHECK(f[TENSOR_DATA](value, &call.maps.out));
    const int64_t moves = (2 + node->modulated) * node->points * (taps[3] ? 1 : TAPS);
    call.parts = call.pixels * node->channels * (node->points * node->outputs + moves) / WORK;
    call.parts = call.parts < MAX_PARTS ? call.parts : MAX_PARTS;
    if (call.parts > 1)
        CHECK(f[PARALLEL_FOR](context, run_part, (size_t)call.parts, (size_t)0, &call));
    else {
        call.parts = 1;
        run_part(&call, 0);
    }
    return call.failed ? f[CREATE_STATUS](FAILED, "out of memory") : NULL;
}

static const Operator layer_operator = {
    .version = OPERATOR_VERSION,
    .name = name,
    .provider = provider,
    .input_type = type,
    .inputs = inputs,
    .output_type = type,
    .outputs = outputs,
    .destroy = free,
    .input_is_optional = none,
    .output_is_optional = none,
    .input_memory = none,
    .variadic = {not_variadic, not_variadic, not_variadic, not_variadic},
    .create = create,
    .run = run,
};

/* ONNX Runtime calls this when the library is registered. A version that is too old gets no operator. */
Status *RegisterCustomOps(void *options, const ApiBase *base) {
    const Api *api = base->get(API_VERSION);
    void *domain;
    if (!api) return NULL;
    CHECK(api->function[CREATE_DOMAIN]("akconv", &domain));
    CHECK(api->function[ADD_OPERATOR](domain, &layer_operator));
    return api->function[ADD_DOMAIN](options, domain);
}
