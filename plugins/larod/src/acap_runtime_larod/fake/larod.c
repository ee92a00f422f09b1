/* A stand-in for liblarod.so.1, API version 3: see README.md beside this file for what it does and does not do.
 *
 * larod.h is written by build_fake from the declarations that the binding calls by, so that signatures cannot differ.
 */
#define _GNU_SOURCE
#include "larod.h"
#include "pictures.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MOST_TENSORS = 40, MOST_ENTRIES = 12, MOST_TRACKED = 32, LONGEST = 128, LONGEST_MODEL = 65536 };

struct larodDevice {
    char name[LONGEST];
    uint32_t instance;
};

struct larodConnection {
    int lost;
    int in_use; /* by a thread */
    size_t tracked;
    const larodDevice **listed;
};

typedef struct {
    char name[LONGEST]; /* "?" for a tensor of which the library cannot tell the name */
    larodTensorDataType type;
    larodTensorLayout layout;
    larodTensorDims dims;
    larodTensorPitches pitches;
    size_t bytes;
} Description;

typedef struct {
    Description tensors[MOST_TENSORS];
    size_t count;
} Side;

struct larodModel {
    const larodDevice *device;
    Side inputs, outputs;
    int converts;
    Image from, to;
    int in_service;
};

struct larodTensor {
    Description is;
    int fd;
    uint32_t properties;
    int allotted;
};

typedef struct {
    char key[LONGEST];
    char text[LONGEST];
    int64_t numbers[4];
    int count; /* of numbers; 0 for a text */
} Entry;

struct larodMap {
    Entry entries[MOST_ENTRIES];
    size_t count;
};

struct larodJobRequest {
    larodModel model;
    struct larodTensor inputs[MOST_TENSORS], outputs[MOST_TENSORS];
    size_t input_count, output_count;
    larodMap parameters;
};

/* ---- what tests see and set: files in the folder that FAKE_LAROD_STATE names ---- */

typedef enum { CONNECTIONS, MODELS, SERVICE_MODELS, TENSORS, MAPS, JOBS, ERRORS, COUNTED } Counted;

static const char *const COUNTED_NAMES[COUNTED] = {
    "connections", "models", "models-in-service", "tensors", "maps", "jobs", "errors",
};
static long counts[COUNTED];
static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;

static int state_path(char *path, size_t size, const char *name) {
    const char *folder = getenv("FAKE_LAROD_STATE");
    return folder && *folder && snprintf(path, size, "%s/%s", folder, name) < (int)size;
}

static void count(Counted what, long change) {
    char name[64], path[4096], temporary[4160];
    pthread_mutex_lock(&state_lock);
    counts[what] += change;
    snprintf(name, sizeof name, "counts.%d", (int)getpid());
    if (state_path(path, sizeof path, name)) {
        snprintf(temporary, sizeof temporary, "%s.new", path);
        FILE *file = fopen(temporary, "we");
        if (file) {
            for (int each = 0; each < COUNTED; each++)
                fprintf(file, "%s %ld\n", COUNTED_NAMES[each], counts[each]);
            fclose(file);
            rename(temporary, path);
        }
    }
    pthread_mutex_unlock(&state_lock);
}

static size_t read_state(const char *name, char *content, size_t size) {
    char path[4096];
    content[0] = 0;
    if (!state_path(path, sizeof path, name))
        return 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    size_t length = fread(content, 1, size - 1, file);
    fclose(file);
    content[length] = 0;
    return length;
}

/* The next error code in a file of them, taken out of it; 0 where there is none. */
static int planned_error(const char *name) {
    char content[4096], path[4096];
    int code = 0;
    pthread_mutex_lock(&state_lock);
    if (read_state(name, content, sizeof content) && state_path(path, sizeof path, name)) {
        if (!strncmp(content, "always", 6)) {
            code = atoi(content + 6);
        } else {
            char *rest = strchr(content, '\n');
            code = atoi(content);
            if (!rest || !rest[1]) {
                unlink(path);
            } else {
                FILE *file = fopen(path, "we");
                if (file) {
                    fputs(rest + 1, file);
                    fclose(file);
                }
            }
        }
    }
    pthread_mutex_unlock(&state_lock);
    return code;
}

/* ---- errors ---- */

static int fail(larodError **error, int code, const char *format, ...) {
    if (error) {
        char *text = malloc(512);
        larodError *made = malloc(sizeof *made);
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, 512, format, arguments);
        va_end(arguments);
        made->code = (larodErrorCode)code;
        made->msg = text;
        *error = made;
        count(ERRORS, 1);
    }
    return 0;
}

void larodClearError(larodError **error) {
    if (!error || !*error)
        return;
    free((void *)(*error)->msg);
    free(*error);
    *error = NULL;
    count(ERRORS, -1);
}

/* Every call with a connection goes through here: one thread at a time, and none once the service is gone. */
static int enter(larodConnection *conn, larodError **error) {
    if (!conn)
        return fail(error, LAROD_ERROR_CONNECTION, "No connection");
    if (__atomic_exchange_n(&conn->in_use, 1, __ATOMIC_ACQ_REL))
        return fail(error, LAROD_ERROR_JOB, "Two threads call with one connection: the library is not thread safe");
    if (conn->lost) {
        __atomic_store_n(&conn->in_use, 0, __ATOMIC_RELEASE);
        return fail(error, LAROD_ERROR_CONNECTION, "Connection to the service is closed");
    }
    return 1;
}

static void leave(larodConnection *conn) { __atomic_store_n(&conn->in_use, 0, __ATOMIC_RELEASE); }

/* ---- connections and devices ---- */

static const larodDevice *const ALL_DEVICES[] = {
    &(larodDevice){"cpu-tflite", 0},
    &(larodDevice){"google-edge-tpu-tflite", 0},
    &(larodDevice){"ambarella-cvflow", 0},
    &(larodDevice){"ambarella-cvflow-proc", 0},
    &(larodDevice){"gpu-tflite", 0},
    &(larodDevice){"axis-a8-ace-proc", 0},
    &(larodDevice){"axis-ace-proc", 0},
    &(larodDevice){"cpu-proc", 0},
    &(larodDevice){"axis-a8-dlpu-tflite", 0},
    &(larodDevice){"axis-a8-dlpu-tflite", 1},
    &(larodDevice){"a9-dlpu-tflite", 0},
    &(larodDevice){"axis-a8-gpu-proc", 0},
    &(larodDevice){"axis-a8-dlpu-proc", 0},
    &(larodDevice){"a9-gpu-proc", 0},
    &(larodDevice){"axis-a7-gpu-proc", 0},
};
enum { DEVICES = sizeof ALL_DEVICES / sizeof *ALL_DEVICES };

bool larodConnect(larodConnection **conn, larodError **error) {
    int code = planned_error("connect-errors");
    if (code)
        return fail(error, code, "Could not connect to the service (asked for by the test)");
    *conn = calloc(1, sizeof **conn);
    count(CONNECTIONS, 1);
    return true;
}

bool larodDisconnect(larodConnection **conn, larodError **error) {
    int lost = (*conn)->lost;
    free((*conn)->listed);
    free(*conn);
    *conn = NULL;
    count(CONNECTIONS, -1);
    return lost ? fail(error, LAROD_ERROR_KILL_SESSION, "The session is gone already") : true;
}

#ifndef FAKE_LAROD_OLD

/* Whether the file `devices`, if there is one, has a line with the device's name. */
static int is_here(const larodDevice *device) {
    char content[4096];
    if (!read_state("devices", content, sizeof content))
        return 1;
    char *rest = content;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (!strcmp(line, device->name))
            return 1;
    return 0;
}

const larodDevice **larodListDevices(larodConnection *conn, size_t *numDevices, larodError **error) {
    if (!enter(conn, error))
        return NULL;
    if (!conn->listed)
        conn->listed = calloc(DEVICES, sizeof *conn->listed);
    *numDevices = 0;
    for (size_t each = 0; each < DEVICES; each++)
        if (is_here(ALL_DEVICES[each]))
            conn->listed[(*numDevices)++] = ALL_DEVICES[each];
    leave(conn);
    return conn->listed;
}

const larodDevice *larodGetDevice(const larodConnection *conn, const char *name, const uint32_t instance,
                                  larodError **error) {
    (void)conn;
    for (size_t each = 0; each < DEVICES; each++)
        if (!strcmp(ALL_DEVICES[each]->name, name) && ALL_DEVICES[each]->instance == instance &&
            is_here(ALL_DEVICES[each]))
            return ALL_DEVICES[each];
    fail(error, LAROD_ERROR_INVALID_CHIP_ID, "No device %s", name);
    return NULL;
}

const char *larodGetDeviceName(const larodDevice *dev, larodError **error) {
    (void)error;
    return dev->name;
}

bool larodGetDeviceInstance(const larodDevice *dev, uint32_t *instance, larodError **error) {
    (void)error;
    *instance = dev->instance;
    return true;
}

#endif

/* ---- maps ---- */

larodMap *larodCreateMap(larodError **error) {
    (void)error;
    count(MAPS, 1);
    return calloc(1, sizeof(larodMap));
}

void larodDestroyMap(larodMap **map) {
    if (!map || !*map)
        return;
    free(*map);
    *map = NULL;
    count(MAPS, -1);
}

static Entry *entry(larodMap *map, const char *key, larodError **error) {
    if (strlen(key) >= LONGEST || map->count == MOST_ENTRIES) {
        fail(error, EINVAL, "Key %s is too long, or the map is full", key);
        return NULL;
    }
    Entry *made = &map->entries[map->count++];
    strcpy(made->key, key);
    return made;
}

bool larodMapSetStr(larodMap *map, const char *key, const char *value, larodError **error) {
    if (strlen(value) >= LONGEST)
        return fail(error, EINVAL, "Value of %s is too long", key);
    Entry *made = entry(map, key, error);
    if (made)
        strcpy(made->text, value);
    return made != NULL;
}

static bool set_numbers(larodMap *map, const char *key, int count_, const int64_t *values, larodError **error) {
    Entry *made = entry(map, key, error);
    if (!made)
        return false;
    made->count = count_;
    memcpy(made->numbers, values, (size_t)count_ * sizeof *values);
    return true;
}

bool larodMapSetInt(larodMap *map, const char *key, const int64_t value, larodError **error) {
    return set_numbers(map, key, 1, &value, error);
}

bool larodMapSetIntArr2(larodMap *map, const char *key, const int64_t value0, const int64_t value1,
                        larodError **error) {
    return set_numbers(map, key, 2, (int64_t[]){value0, value1}, error);
}

bool larodMapSetIntArr4(larodMap *map, const char *key, const int64_t value0, const int64_t value1,
                        const int64_t value2, const int64_t value3, larodError **error) {
    return set_numbers(map, key, 4, (int64_t[]){value0, value1, value2, value3}, error);
}

static const Entry *found(const larodMap *map, const char *key, int count_) {
    for (size_t each = 0; map && each < map->count; each++)
        if (!strcmp(map->entries[each].key, key) && map->entries[each].count == count_)
            return &map->entries[each];
    return NULL;
}

/* ---- models from files: lines of text, as README.md says ---- */

static const struct {
    const char *name;
    larodTensorDataType type;
    size_t size;
} TYPES[] = {
    {"unspecified", LAROD_TENSOR_DATA_TYPE_UNSPECIFIED, 1}, {"bool", LAROD_TENSOR_DATA_TYPE_BOOL, 1},
    {"uint8", LAROD_TENSOR_DATA_TYPE_UINT8, 1},             {"int8", LAROD_TENSOR_DATA_TYPE_INT8, 1},
    {"uint16", LAROD_TENSOR_DATA_TYPE_UINT16, 2},           {"int16", LAROD_TENSOR_DATA_TYPE_INT16, 2},
    {"uint32", LAROD_TENSOR_DATA_TYPE_UINT32, 4},           {"int32", LAROD_TENSOR_DATA_TYPE_INT32, 4},
    {"uint64", LAROD_TENSOR_DATA_TYPE_UINT64, 8},           {"int64", LAROD_TENSOR_DATA_TYPE_INT64, 8},
    {"float16", LAROD_TENSOR_DATA_TYPE_FLOAT16, 2},         {"float32", LAROD_TENSOR_DATA_TYPE_FLOAT32, 4},
    {"float64", LAROD_TENSOR_DATA_TYPE_FLOAT64, 8},         {"invalid", LAROD_TENSOR_DATA_TYPE_INVALID, 1},
};

static size_t type_size(larodTensorDataType type) {
    for (size_t each = 0; each < sizeof TYPES / sizeof *TYPES; each++)
        if (TYPES[each].type == type)
            return TYPES[each].size;
    return 1;
}

static size_t padded(size_t bytes, size_t multiple) { return (bytes + multiple - 1) / multiple * multiple; }

/* Pitches as larod.h's examples have them: rows, the dimension of width, are padded to a multiple. */
static void set_pitches(Description *is, size_t multiple) {
    size_t length = is->dims.len, size = type_size(is->type);
    is->pitches.len = length;
    if (is->layout == LAROD_TENSOR_LAYOUT_420SP) {
        is->pitches.pitches[2] = padded(is->dims.dims[2], multiple);
        is->pitches.pitches[1] = is->pitches.pitches[2] * is->dims.dims[1];
        is->pitches.pitches[0] = is->pitches.pitches[1] * 3 / 2;
    } else {
        size_t row = is->layout == LAROD_TENSOR_LAYOUT_NHWC ? 2 : length - 1, step = size;
        for (size_t each = length; each-- > 0;) {
            step *= is->dims.dims[each];
            if (each == row)
                step = padded(step, multiple);
            is->pitches.pitches[each] = step;
        }
    }
    is->bytes = length ? is->pitches.pitches[0] : 0;
}

static int read_tensor(char *line, Description *is) {
    char type[LONGEST], layout[LONGEST], dims[LONGEST];
    int multiple = 1;
    memset(is, 0, sizeof *is);
    if (sscanf(line, "%127s %127s %127s %127s %d", is->name, type, layout, dims, &multiple) < 4 || multiple < 1)
        return 0;
    if (!strcmp(is->name, "-"))
        is->name[0] = 0;
    int known = 0;
    for (size_t each = 0; each < sizeof TYPES / sizeof *TYPES; each++)
        if (!strcmp(TYPES[each].name, type)) {
            is->type = TYPES[each].type;
            known = 1;
        }
    is->layout = !strcmp(layout, "nhwc")    ? LAROD_TENSOR_LAYOUT_NHWC
                 : !strcmp(layout, "nchw")  ? LAROD_TENSOR_LAYOUT_NCHW
                 : !strcmp(layout, "420sp") ? LAROD_TENSOR_LAYOUT_420SP
                                            : LAROD_TENSOR_LAYOUT_UNSPECIFIED;
    if (!strncmp(dims, "bytes:", 6)) { /* a tensor of which only the size is known */
        is->bytes = (size_t)atol(dims + 6);
        return known;
    }
    char *rest = dims;
    for (char *number; (number = strsep(&rest, ",")) && is->dims.len < LAROD_TENSOR_MAX_LEN;)
        is->dims.dims[is->dims.len++] = (size_t)atol(number);
    set_pitches(is, (size_t)multiple);
    return known;
}

static const char *read_model(larodModel *model, int fd) {
    static const char FIRST[] = "fake larod model\n";
    char *content = calloc(1, LONGEST_MODEL);
    const char *complaint = "Model does not begin as one of the fake does";
    ssize_t length = read(fd, content, LONGEST_MODEL - 1);
    if (length > 0 && !strncmp(content, FIRST, sizeof FIRST - 1)) {
        complaint = "Model ends too early";
        char *rest = content + sizeof FIRST - 1;
        for (char *line; (line = strsep(&rest, "\n"));) {
            if (!strcmp(line, "end")) {
                complaint = NULL;
                break;
            }
            Side *side = !strncmp(line, "input ", 6) ? &model->inputs : &model->outputs;
            size_t word = side == &model->inputs ? 6 : 7;
            if ((side == &model->outputs && strncmp(line, "output ", 7)) || side->count == MOST_TENSORS ||
                !read_tensor(line + word, &side->tensors[side->count++])) {
                complaint = "Model has a line that is no tensor";
                break;
            }
        }
    }
    free(content);
    return complaint;
}

/* ---- models from parameters: image conversions, with each device's constraints ---- */

static int read_image(const larodMap *map, const char *side, Image *image) {
    static const char *const FORMATS[] = {"nv12", "rgb-interleaved", "rgb-planar"};
    char key[LONGEST];
    snprintf(key, sizeof key, "image.%s.format", side);
    const Entry *format = found(map, key, 0);
    snprintf(key, sizeof key, "image.%s.size", side);
    const Entry *size = found(map, key, 2);
    snprintf(key, sizeof key, "image.%s.row-pitch", side);
    const Entry *row = found(map, key, 1);
    if (!format || !size || size->numbers[0] < 1 || size->numbers[1] < 1)
        return 0;
    for (int each = 0; each < 3; each++)
        if (!strcmp(format->text, FORMATS[each])) {
            size_t tight = (size_t)size->numbers[0] * (each == RGB_INTERLEAVED ? 3 : 1);
            *image = (Image){(Format)each, (size_t)size->numbers[0], (size_t)size->numbers[1],
                             row ? (size_t)row->numbers[0] : tight};
            return image->row >= tight;
        }
    return 0;
}

static int ends_with(const char *name, const char *end) {
    size_t length = strlen(name), wanted = strlen(end);
    return length >= wanted && !strcmp(name + length - wanted, end);
}

static const char *conversion_complaint(const larodModel *model) {
    const char *device = model->device->name;
    const Image *from = &model->from, *to = &model->to;
    int same = from->format == to->format, odd = from->width % 2 || from->height % 2 || to->width % 2 || to->height % 2;
    int scales = from->width != to->width || from->height != to->height;
    int nv12_odd = (from->format == NV12 && (from->width % 2 || from->height % 2)) ||
                   (to->format == NV12 && (to->width % 2 || to->height % 2));
    if (ends_with(device, "ace-proc")) {
        if (from->format != NV12 || to->format != RGB_INTERLEAVED)
            return "Format is not supported";
        if (scales)
            return "Scaling is not supported";
        if (from->width % 8 || from->height < 4 || from->width * from->height >= 4194304 || nv12_odd)
            return "Input size is not supported";
        if (from->row != from->width || to->row != to->width * 3)
            return "Row pitch is not supported";
    } else if (!strcmp(device, "ambarella-cvflow-proc")) {
        if (same ? from->format == RGB_INTERLEAVED : from->format != NV12 || to->format != RGB_PLANAR)
            return "Format is not supported";
        if (from->row % 32 || to->row % 32)
            return "Row pitch is not a multiple of 32";
        if (nv12_odd)
            return "Size is not supported";
    } else if (!strcmp(device, "cpu-proc")) {
        if (odd || from->row % 2 || to->row % 2)
            return "Size or row pitch is odd";
        if (from->format == RGB_PLANAR && to->format == RGB_INTERLEAVED && scales)
            return "Scaling is not supported";
    } else if (ends_with(device, "-proc")) {
        if (same ? from->format == RGB_INTERLEAVED : from->format != NV12 || to->format != RGB_INTERLEAVED)
            return "Format is not supported";
    } else {
        return "Device does not convert images";
    }
    return NULL;
}

static const char *region_complaint(const larodModel *model, Region region) {
    const Image *from = &model->from, *to = &model->to;
    const char *device = model->device->name;
    int crops = region.width != from->width || region.height != from->height;
    if (region.x + region.width > from->width || region.y + region.height > from->height || !region.width ||
        !region.height)
        return "Crop is outside of the image";
    if (crops && (ends_with(device, "ace-proc") || (!strcmp(device, "cpu-proc") && from->format == RGB_PLANAR &&
                                                    to->format == RGB_INTERLEAVED)))
        return "Crop is not supported";
    if (!strcmp(device, "ambarella-cvflow-proc") &&
        (region.width > 256 * to->width || to->width > 256 * region.width || region.height > 256 * to->height ||
         to->height > 256 * region.height))
        return "Scale is more than 256";
    return NULL;
}

static void describe_image(Side *side, const char *name, const Image *image) {
    Description *is = &side->tensors[side->count++];
    strcpy(is->name, name);
    is->type = LAROD_TENSOR_DATA_TYPE_UINT8;
    is->dims.len = is->pitches.len = image->format == NV12 ? 3 : 4;
    is->bytes = image_bytes(image);
    size_t *dims = is->dims.dims, *pitches = is->pitches.pitches;
    pitches[0] = is->bytes;
    if (image->format == NV12) {
        is->layout = LAROD_TENSOR_LAYOUT_420SP;
        dims[0] = 3, dims[1] = image->height, dims[2] = image->width;
        pitches[1] = image->row * image->height, pitches[2] = image->row;
        return;
    }
    dims[0] = 1;
    pitches[1] = is->bytes;
    if (image->format == RGB_PLANAR) {
        is->layout = LAROD_TENSOR_LAYOUT_NCHW;
        dims[1] = 3, dims[2] = image->height, dims[3] = image->width;
        pitches[2] = image->row * image->height, pitches[3] = image->row;
    } else {
        is->layout = LAROD_TENSOR_LAYOUT_NHWC;
        dims[1] = image->height, dims[2] = image->width, dims[3] = 3;
        pitches[2] = image->row, pitches[3] = 3;
    }
}

static const char *read_parameters(larodModel *model, const larodMap *params) {
    if (!read_image(params, "input", &model->from) || !read_image(params, "output", &model->to))
        return "Mandatory parameters are missing or wrong";
    const char *complaint = conversion_complaint(model);
    if (complaint)
        return complaint;
    model->converts = 1;
    describe_image(&model->inputs, "input", &model->from);
    describe_image(&model->outputs, "output", &model->to);
    return NULL;
}

larodModel *larodLoadModel(larodConnection *conn, const int fd, const larodDevice *dev, const larodAccess access,
                           const char *name, const larodMap *params, larodError **error) {
    if (!enter(conn, error))
        return NULL;
    int code = planned_error("load-errors");
    const char *complaint = NULL;
    larodModel *model = calloc(1, sizeof *model);
    model->device = dev;
    if (code) {
        complaint = "The load fails (asked for by the test)";
        conn->lost |= code == LAROD_ERROR_CONNECTION;
    } else if (access != LAROD_ACCESS_PRIVATE || !name || strlen(name) >= LONGEST) {
        code = LAROD_ERROR_INVALID_ACCESS;
        complaint = "Access or name is not as the fake wants it";
    } else {
        code = LAROD_ERROR_LOAD_MODEL;
        if (ends_with(dev->name, "-proc"))
            complaint = fd >= 0 ? "Device takes no model file" : read_parameters(model, params);
        else if (params && !(strcmp(dev->name, "a9-dlpu-tflite") == 0 && found(params, "disable-winograd", 1)))
            complaint = "Unknown parameter";
        else
            complaint = fd < 0 ? "Device needs a model file" : read_model(model, fd);
    }
    if (complaint) {
        fail(error, code, "%s", complaint);
        free(model);
        model = NULL;
    } else {
        model->in_service = 1;
        count(MODELS, 1);
        count(SERVICE_MODELS, 1);
    }
    leave(conn);
    return model;
}

bool larodDeleteModel(larodConnection *conn, larodModel *model, larodError **error) {
    if (conn && conn->lost && model->in_service) { /* private models end with their session */
        model->in_service = 0;
        count(SERVICE_MODELS, -1);
    }
    if (!enter(conn, error))
        return false;
    if (model->in_service) {
        model->in_service = 0;
        count(SERVICE_MODELS, -1);
    }
    leave(conn);
    return true;
}

void larodDestroyModel(larodModel **model) {
    if (!model || !*model)
        return;
    free(*model);
    *model = NULL;
    count(MODELS, -1);
}

/* ---- tensors ---- */

static larodTensor **make_tensors(const Side *side, size_t *numTensors) {
    larodTensor **made = calloc(side->count + 1, sizeof *made);
    for (size_t each = 0; each < side->count; each++) {
        made[each] = calloc(1, sizeof **made);
        made[each]->is = side->tensors[each];
        made[each]->fd = -1;
        made[each]->properties = LAROD_FD_PROP_READWRITE;
    }
    if (numTensors)
        *numTensors = side->count;
    count(TENSORS, (long)side->count);
    return made;
}

larodTensor **larodCreateModelInputs(const larodModel *model, size_t *numTensors, larodError **error) {
    (void)error;
    return make_tensors(&model->inputs, numTensors);
}

larodTensor **larodCreateModelOutputs(const larodModel *model, size_t *numTensors, larodError **error) {
    (void)error;
    return make_tensors(&model->outputs, numTensors);
}

static larodTensor **allot_tensors(larodConnection *conn, const Side *side, uint32_t flags, size_t *numTensors,
                                   larodError **error) {
    if (!enter(conn, error))
        return NULL;
    larodTensor **made = NULL;
    int code = planned_error("alloc-errors");
    if (code)
        fail(error, code, "No memory for tensors (asked for by the test)");
    else if (flags & LAROD_FD_PROP_DMABUF || conn->tracked + side->count > MOST_TRACKED)
        fail(error, LAROD_ERROR_ALLOC, "No such memory, or more than %d tensors are tracked", MOST_TRACKED);
    else {
        made = make_tensors(side, numTensors);
        for (size_t each = 0; each < side->count; each++) {
            made[each]->fd = memfd_create("fake larod", MFD_CLOEXEC);
            if (ftruncate(made[each]->fd, (off_t)made[each]->is.bytes))
                abort();
            made[each]->properties = LAROD_FD_PROP_READWRITE | LAROD_FD_PROP_MAP;
            made[each]->allotted = 1;
        }
        conn->tracked += side->count;
    }
    leave(conn);
    return made;
}

larodTensor **larodAllocModelInputs(larodConnection *conn, const larodModel *model, const uint32_t fdPropFlags,
                                    size_t *numTensors, larodMap *params, larodError **error) {
    (void)params;
    return allot_tensors(conn, &model->inputs, fdPropFlags, numTensors, error);
}

larodTensor **larodAllocModelOutputs(larodConnection *conn, const larodModel *model, const uint32_t fdPropFlags,
                                     size_t *numTensors, larodMap *params, larodError **error) {
    (void)params;
    return allot_tensors(conn, &model->outputs, fdPropFlags, numTensors, error);
}

bool larodDestroyTensors(larodConnection *conn, larodTensor ***tensors, size_t numTensors, larodError **error) {
    int allotted = 0;
    for (size_t each = 0; each < numTensors; each++) {
        larodTensor *tensor = (*tensors)[each];
        if (tensor->allotted) {
            allotted = 1;
            close(tensor->fd);
            conn->tracked--;
        }
        free(tensor);
    }
    free(*tensors);
    *tensors = NULL;
    count(TENSORS, -(long)numTensors);
    if (!allotted)
        return true;
    if (!enter(conn, error))
        return false;
    leave(conn);
    return true;
}

const larodTensorDims *larodGetTensorDims(const larodTensor *tensor, larodError **error) {
    (void)error;
    return &tensor->is.dims;
}

const larodTensorPitches *larodGetTensorPitches(const larodTensor *tensor, larodError **error) {
    (void)error;
    return &tensor->is.pitches;
}

larodTensorDataType larodGetTensorDataType(const larodTensor *tensor, larodError **error) {
    (void)error;
    return tensor->is.type;
}

larodTensorLayout larodGetTensorLayout(const larodTensor *tensor, larodError **error) {
    (void)error;
    return tensor->is.layout;
}

const char *larodGetTensorName(const larodTensor *tensor, larodError **error) {
    if (strcmp(tensor->is.name, "?"))
        return tensor->is.name;
    fail(error, EINVAL, "Tensor has no name");
    return NULL;
}

bool larodGetTensorByteSize(const larodTensor *tensor, size_t *byteSize, larodError **error) {
    (void)error;
    *byteSize = tensor->is.bytes;
    return true;
}

bool larodSetTensorFd(larodTensor *tensor, const int fd, larodError **error) {
    if (tensor->allotted)
        return fail(error, EINVAL, "The fd of a tracked tensor cannot be replaced");
    tensor->fd = fd;
    return true;
}

int larodGetTensorFd(const larodTensor *tensor, larodError **error) {
    (void)error;
    return tensor->fd;
}

int64_t larodGetTensorFdOffset(const larodTensor *tensor, larodError **error) {
    (void)tensor, (void)error;
    return 0;
}

bool larodSetTensorFdProps(larodTensor *tensor, const uint32_t fdPropFlags, larodError **error) {
    if (tensor->allotted)
        return fail(error, EINVAL, "The fd properties of a tracked tensor cannot be replaced");
    tensor->properties = fdPropFlags;
    return true;
}

/* ---- jobs ---- */

static size_t copy_tensors(larodTensor *to, larodTensor **from, size_t number) {
    for (size_t each = 0; each < number; each++)
        to[each] = *from[each];
    return number;
}

larodJobRequest *larodCreateJobRequest(const larodModel *model, larodTensor **inputTensors, size_t numInputs,
                                       larodTensor **outputTensors, size_t numOutputs, larodMap *params,
                                       larodError **error) {
    if (numInputs != model->inputs.count || numOutputs != model->outputs.count) {
        fail(error, LAROD_ERROR_TENSOR_MISMATCH, "Got %zu inputs and %zu outputs", numInputs, numOutputs);
        return NULL;
    }
    larodJobRequest *job = calloc(1, sizeof *job);
    job->model = *model;
    job->input_count = copy_tensors(job->inputs, inputTensors, numInputs);
    job->output_count = copy_tensors(job->outputs, outputTensors, numOutputs);
    if (params)
        job->parameters = *params;
    count(JOBS, 1);
    return job;
}

void larodDestroyJobRequest(larodJobRequest **jobReq) {
    if (!jobReq || !*jobReq)
        return;
    free(*jobReq);
    *jobReq = NULL;
    count(JOBS, -1);
}

/* Inputs are rewound and read. */
static uint8_t *take_input(const larodTensor *tensor) {
    uint8_t *bytes = malloc(tensor->is.bytes + 1);
    size_t done = 0;
    if (lseek(tensor->fd, 0, SEEK_SET))
        done = SIZE_MAX;
    while (done < tensor->is.bytes) {
        ssize_t got = read(tensor->fd, bytes + done, tensor->is.bytes - done);
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    if (done == tensor->is.bytes)
        return bytes;
    free(bytes);
    return NULL;
}

/* Outputs are written at the file's current offset, which stays at the end; or, where a file `mapped` exists, as a
 * service writes that has the memory mapped. */
static int give_output(const larodTensor *tensor, const uint8_t *bytes) {
    char path[4096];
    int mapped = state_path(path, sizeof path, "mapped") && !access(path, F_OK);
    for (size_t done = 0; done < tensor->is.bytes;) {
        size_t left = tensor->is.bytes - done;
        ssize_t wrote = mapped ? pwrite(tensor->fd, bytes + done, left, (off_t)done)
                               : write(tensor->fd, bytes + done, left);
        if (wrote <= 0)
            return 0;
        done += (size_t)wrote;
    }
    return 1;
}

static void put_number(uint8_t *place, larodTensorDataType type, unsigned value) {
    switch (type) {
    case LAROD_TENSOR_DATA_TYPE_BOOL: *place = value & 1; break;
    case LAROD_TENSOR_DATA_TYPE_UINT16:
    case LAROD_TENSOR_DATA_TYPE_INT16: memcpy(place, &(uint16_t){(uint16_t)value}, 2); break;
    case LAROD_TENSOR_DATA_TYPE_UINT32:
    case LAROD_TENSOR_DATA_TYPE_INT32: memcpy(place, &(uint32_t){value}, 4); break;
    case LAROD_TENSOR_DATA_TYPE_UINT64:
    case LAROD_TENSOR_DATA_TYPE_INT64: memcpy(place, &(uint64_t){value}, 8); break;
    case LAROD_TENSOR_DATA_TYPE_FLOAT32: memcpy(place, &(float){(float)value}, 4); break;
    case LAROD_TENSOR_DATA_TYPE_FLOAT64: memcpy(place, &(double){(double)value}, 8); break;
    case LAROD_TENSOR_DATA_TYPE_FLOAT16: { /* 0 to 127: normal numbers and zero */
        unsigned exponent = 0;
        while (value >> (exponent + 1))
            exponent++;
        unsigned half = value ? (exponent + 15) << 10 | ((value << (10 - exponent)) & 0x3ff) : 0;
        memcpy(place, &(uint16_t){(uint16_t)half}, 2);
        break;
    }
    default: *place = (uint8_t)value;
    }
}

/* The place of a tensor's element among its bytes, by its pitches. */
static size_t element_place(const Description *is, size_t element) {
    size_t place = 0, size = type_size(is->type), length = is->dims.len;
    const size_t *dims = is->dims.dims, *pitches = is->pitches.pitches;
    if (!length)
        return element * size;
    if (is->layout == LAROD_TENSOR_LAYOUT_420SP) {
        size_t x = element % dims[2], y = element / dims[2];
        return y < dims[1] ? y * pitches[2] + x : pitches[1] + (y - dims[1]) * pitches[2] + x;
    }
    for (size_t each = length; each-- > 0;) {
        place += element % dims[each] * (each + 1 < length ? pitches[each + 1] : size);
        element /= dims[each];
    }
    return place;
}

static size_t element_count(const Description *is) {
    size_t number = 1;
    if (!is->dims.len)
        return is->bytes / type_size(is->type);
    if (is->layout == LAROD_TENSOR_LAYOUT_420SP)
        return is->dims.dims[1] * is->dims.dims[2] * 3 / 2;
    for (size_t each = 0; each < is->dims.len; each++)
        number *= is->dims.dims[each];
    return number;
}

/* Element e of output o is (sum of all bytes of all inputs, padding left out, + o + e) modulo 127. */
static int infer(const larodJobRequest *job) {
    unsigned long sum = 0;
    for (size_t each = 0; each < job->input_count; each++) {
        const Description *is = &job->inputs[each].is;
        uint8_t *bytes = take_input(&job->inputs[each]);
        if (!bytes)
            return 0;
        for (size_t element = 0; element < element_count(is); element++)
            for (size_t byte = 0; byte < type_size(is->type); byte++)
                sum += bytes[element_place(is, element) + byte];
        free(bytes);
    }
    for (size_t each = 0; each < job->output_count; each++) {
        const Description *is = &job->outputs[each].is;
        uint8_t *bytes = malloc(is->bytes + 1);
        memset(bytes, 0xee, is->bytes); /* what padding may hold */
        for (size_t element = 0; element < element_count(is); element++)
            put_number(bytes + element_place(is, element), is->type, (unsigned)((sum + each + element) % 127));
        int written = give_output(&job->outputs[each], bytes);
        free(bytes);
        if (!written)
            return 0;
    }
    return 1;
}

static const char *convert(const larodJobRequest *job) {
    const larodModel *model = &job->model;
    Region region = {0, 0, model->from.width, model->from.height};
    const Entry *crop = found(&job->parameters, "image.input.crop", 4);
    if (crop)
        region = (Region){(size_t)crop->numbers[0], (size_t)crop->numbers[1], (size_t)crop->numbers[2],
                          (size_t)crop->numbers[3]};
    const char *complaint = region_complaint(model, region);
    if (complaint)
        return complaint;
    uint8_t *source = take_input(&job->inputs[0]), *target = malloc(image_bytes(&model->to));
    memset(target, 0xee, image_bytes(&model->to));
    if (!source || !convert_picture(source, &model->from, region, target, &model->to) ||
        !give_output(&job->outputs[0], target))
        complaint = "Could not read an input or write an output";
    free(source);
    free(target);
    return complaint;
}

bool larodRunJob(larodConnection *conn, const larodJobRequest *jobReq, larodError **error) {
    char text[32];
    if (!enter(conn, error))
        return false;
    int code = planned_error("job-errors");
    if (read_state("delay-ms", text, sizeof text)) {
        long delay = atol(text);
        nanosleep(&(struct timespec){delay / 1000, delay % 1000 * 1000000}, NULL);
    }
    const char *complaint = NULL;
    if (code) {
        complaint = "The job fails (asked for by the test)";
        conn->lost |= code == LAROD_ERROR_CONNECTION;
    } else {
        code = LAROD_ERROR_JOB;
        if (jobReq->model.converts)
            complaint = convert(jobReq);
        else if (!infer(jobReq))
            complaint = "Could not read an input or write an output";
    }
    if (complaint)
        fail(error, code, "%s", complaint);
    leave(conn);
    return complaint == NULL;
}
