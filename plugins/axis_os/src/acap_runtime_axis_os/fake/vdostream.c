/* A fake libvdostream.so.1.
 *
 * Frames come at the asked rate, on the monotonic clock, as a timer that can be polled. The byte at row r and place p in
 * the row of frame n is (3 r + p + 7 n) mod 256, with all planes' rows counted through; rows are padded with 0xEE up to
 * a pitch that is a multiple of 64, and wider than the row. Encoded frames are made up: H.26x has parameter sets before
 * each keyframe, every tenth frame or when one is asked for, and slices whose bytes tell the frame's number; JPEG has a
 * header with the size. No decoder would show them.
 *
 * A settings map must have every entry in the documented type.
 *
 * FAKE_VDO=NAME=NUMBER,... knows:
 *   new=CODE, info=CODE, fd=CODE, start=CODE, force=CODE, unref=CODE
 *                   this function fails with this error
 *   get=CODE        getting a buffer fails with this error, with at=N only for the Nth frame and after
 *   transient=CODE  every other try to get a buffer fails with this error
 *   hang=N          no frame comes after N of them
 *   foreign=1       errors are of another domain
 *   silent=1        vdo_stream_new fails without an error
 *   channels=N      channels from 0 to N - 1 exist; without it 3
 *   lacks=FORMAT    vdo_stream_new refuses this VdoFormat
 *   width=W         every stream is this wide
 *   rate=N          every stream has this frame rate
 *   pitch=BYTES     the pitch
 *   y800=1          YUV is grey
 *   capacity=BYTES  of buffers
 *   nodata=1        buffers have no memory
 *   clock=1         timestamps are of another clock; =2 the custom ones, too; =3 both stand still
 *   pframe=N        the stream begins with N frames that are no keyframes
 *   heedless=1      asking for a keyframe has no effect
 */
#include "fake_glib.h"

#include <errno.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define VARIABLE "FAKE_VDO"
#define ENTRIES 32
#define PARAMETER_SET_EVERY 10
#define NS 1000000000ull

enum { H264, H265, JPEG, YUV, RGB = 8, PLANAR_RGB = 9 };
enum { NOT_FOUND = 1, INVALID_ARGUMENT = 3, NOT_SUPPORTED = 5, NO_DATA = 13, BUFFER_FAILURE = 15, INTERFACE_DOWN = 16 };

typedef enum { MAP, STREAM } Kind;

/* GObjects begin with what g_object_unref needs to know. */
struct VdoMap {
    Kind kind;
    int count;
    struct {
        char name[32];
        char type; /* b: boolean, i: int32, h: uint16, u: uint32, s: string */
        long number;
        char text[32];
    } entries[ENTRIES];
};

struct VdoStream {
    Kind kind;
    long format, width, height, framerate, pitch, rows, row_bytes, buffers;
    bool blocking;
    long timeout_ms;
    int timer;
    bool started, key_wanted;
    uint64_t start_ns, next, taken, tries;
    VdoBuffer *lent;
};

struct VdoFrame {
    guint type;
    guint64 timestamp;
    gint64 custom_timestamp;
    gsize size;
};

struct VdoBuffer {
    struct VdoFrame frame;
    gsize capacity;
    uint8_t *data;
    VdoBuffer *next;
};

static atomic_int live_maps, live_streams, live_started, live_buffers, forced, tries;

/* Read by tests: what is alive, and how often a keyframe or a buffer was asked for. */
EXPORT int fake_vdo_live(const char *kind) {
    if (!strcmp(kind, "maps")) return live_maps;
    if (!strcmp(kind, "streams")) return live_streams;
    if (!strcmp(kind, "started streams")) return live_started;
    if (!strcmp(kind, "buffers")) return live_buffers;
    if (!strcmp(kind, "errors")) return live_errors;
    if (!strcmp(kind, "forced keyframes")) return forced;
    if (!strcmp(kind, "tries")) return tries;
    return -1;
}

EXPORT GQuark vdo_error_quark(void) {
    return 42;
}

EXPORT gboolean vdo_error_is_expected(GError **error) {
    return *error && (*error)->domain == vdo_error_quark() && (*error)->code == INTERFACE_DOWN;
}

static bool told_to_fail(const char *function, GError **error) {
    long code = knob(VARIABLE, function, 0);
    if (code) {
        GQuark domain = knob(VARIABLE, "foreign", 0) ? 1234 : vdo_error_quark();
        fail(error, domain, code, "the fake was told to fail in %s", function);
    }
    return code;
}

/* Maps */

EXPORT VdoMap *vdo_map_new(void) {
    VdoMap *map = calloc(1, sizeof *map);
    map->kind = MAP;
    live_maps++;
    return map;
}

static void put(VdoMap *map, const char *name, char type, long number, const char *text) {
    if (map->count == ENTRIES) abort();
    snprintf(map->entries[map->count].name, sizeof map->entries->name, "%s", name);
    snprintf(map->entries[map->count].text, sizeof map->entries->text, "%s", text);
    map->entries[map->count].type = type;
    map->entries[map->count].number = number;
    map->count++;
}

static int find(const VdoMap *map, const char *name, char type) {
    for (int each = 0; each < map->count; each++)
        if (!strcmp(map->entries[each].name, name) && map->entries[each].type == type) return each;
    return -1;
}

static long number_of(const VdoMap *map, const char *name, char type, long otherwise) {
    int place = find(map, name, type);
    return place < 0 ? otherwise : map->entries[place].number;
}

EXPORT void vdo_map_set_boolean(VdoMap *self, const gchar *name, gboolean value) {
    put(self, name, 'b', value, "");
}

EXPORT void vdo_map_set_int32(VdoMap *self, const gchar *name, gint32 value) {
    put(self, name, 'i', value, "");
}

EXPORT void vdo_map_set_uint16(VdoMap *self, const gchar *name, guint16 value) {
    put(self, name, 'h', value, "");
}

EXPORT void vdo_map_set_uint32(VdoMap *self, const gchar *name, guint32 value) {
    put(self, name, 'u', value, "");
}

EXPORT void vdo_map_set_string(VdoMap *self, const gchar *name, const gchar *value) {
    put(self, name, 's', 0, value);
}

EXPORT guint32 vdo_map_get_uint32(const VdoMap *self, const gchar *name, guint32 def) {
    return number_of(self, name, 'u', def);
}

EXPORT const gchar *vdo_map_get_string(const VdoMap *self, const gchar *name, gsize *size, const gchar *def) {
    int place = find(self, name, 's');
    const char *text = place < 0 ? def : self->entries[place].text;
    if (size) *size = strlen(text);
    return text;
}

/* Streams */

static const struct {
    const char *name;
    char type;
} KNOWN[] = {
    {"format", 'u'},          {"width", 'u'},           {"height", 'u'},         {"framerate", 'u'},
    {"channel", 'u'},         {"buffer.strategy", 'u'}, {"buffer.count", 'u'},   {"timestamp.type", 'h'},
    {"socket.blocking", 'b'}, {"subformat", 's'},       {"socket.timeout_ms", 'i'},
};

static const char *wrong_entry(const VdoMap *map) {
    for (int each = 0; each < map->count; each++) {
        bool known = false;
        for (size_t place = 0; place < sizeof KNOWN / sizeof *KNOWN; place++)
            known |= !strcmp(KNOWN[place].name, map->entries[each].name) && KNOWN[place].type == map->entries[each].type;
        if (!known) return map->entries[each].name;
    }
    return NULL;
}

EXPORT VdoStream *vdo_stream_new(VdoMap *settings, VdoBufferFinalizer fin, GError **error) {
    (void)fin;
    if (told_to_fail("new", error) || knob(VARIABLE, "silent", 0)) return NULL;
    const char *wrong = wrong_entry(settings);
    long format = number_of(settings, "format", 'u', H264);
    long channel = number_of(settings, "channel", 'u', 0);
    if (wrong) {
        fail(error, vdo_error_quark(), INVALID_ARGUMENT, "%s is unknown, or of another type", wrong);
        return NULL;
    }
    if (format == knob(VARIABLE, "lacks", -1)) {
        fail(error, vdo_error_quark(), NOT_SUPPORTED, "format %ld is not supported", format);
        return NULL;
    }
    if (channel >= knob(VARIABLE, "channels", 3)) {
        fail(error, vdo_error_quark(), NOT_FOUND, "channel %ld does not exist", channel);
        return NULL;
    }
    VdoStream *self = calloc(1, sizeof *self);
    self->kind = STREAM;
    self->format = format;
    self->width = knob(VARIABLE, "width", number_of(settings, "width", 'u', 640));
    self->height = number_of(settings, "height", 'u', 480);
    self->framerate = knob(VARIABLE, "rate", number_of(settings, "framerate", 'u', 30));
    self->buffers = number_of(settings, "buffer.count", 'u', 2);
    self->blocking = number_of(settings, "socket.blocking", 'b', true);
    self->timeout_ms = number_of(settings, "socket.timeout_ms", 'i', -1);
    self->row_bytes = self->width * (format == RGB ? 3 : 1);
    self->rows = format == YUV ? self->height * 3 / 2 : self->height * (format == PLANAR_RGB ? 3 : 1);
    self->pitch = knob(VARIABLE, "pitch", (self->row_bytes / 64 + 1) * 64);
    self->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    self->key_wanted = true;
    live_streams++;
    return self;
}

EXPORT VdoMap *vdo_stream_get_info(VdoStream *self, GError **error) {
    if (told_to_fail("info", error)) return NULL;
    VdoMap *info = vdo_map_new();
    put(info, "width", 'u', self->width, "");
    put(info, "height", 'u', self->height, "");
    put(info, "framerate", 'u', self->framerate, "");
    if (self->format >= YUV) put(info, "pitch", 'u', self->pitch, "");
    if (self->format == YUV) put(info, "subformat", 's', 0, knob(VARIABLE, "y800", 0) ? "Y800" : "NV12");
    return info;
}

EXPORT gint vdo_stream_get_fd(VdoStream *self, GError **error) {
    return told_to_fail("fd", error) ? -1 : self->timer;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS + now.tv_nsec;
}

static uint64_t due_ns(const VdoStream *self, uint64_t number) {
    return self->start_ns + number * NS / self->framerate;
}

/* The timer can be read from the moment when the next frame is due. */
static void await(VdoStream *self) {
    uint64_t due = due_ns(self, self->next);
    struct itimerspec when = {.it_value = {.tv_sec = due / NS, .tv_nsec = due % NS}};
    long hang = knob(VARIABLE, "hang", -1);
    if (hang >= 0 && self->taken >= (uint64_t)hang) when.it_value.tv_sec += 1000000;
    timerfd_settime(self->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

EXPORT gboolean vdo_stream_start(VdoStream *self, GError **error) {
    if (told_to_fail("start", error)) return 0;
    self->started = true;
    self->start_ns = now_ns() + 1000000;
    live_started++;
    await(self);
    return 1;
}

EXPORT void vdo_stream_stop(VdoStream *self) {
    if (self->started) live_started--;
    self->started = false;
}

EXPORT gboolean vdo_stream_force_key_frame(VdoStream *self, GError **error) {
    if (told_to_fail("force", error)) return 0;
    forced++;
    self->key_wanted = !knob(VARIABLE, "heedless", 0);
    return 1;
}

/* Frames */

static uint8_t *unit(uint8_t *place, int type, bool h265, uint64_t number) {
    static const uint8_t START[] = {0, 0, 0, 1};
    memcpy(place, START, 4);
    place += 4;
    *place++ = h265 ? type << 1 : type | 0x60;
    if (h265) *place++ = 1;
    *place++ = 0x80; /* first slice of a picture */
    for (int digit = 0; digit < 8; digit++) *place++ = 0x10 | (number >> (28 - 4 * digit) & 15);
    return place;
}

static void encode(VdoStream *self, VdoBuffer *buffer, uint64_t number) {
    uint8_t *place = buffer->data;
    bool h265 = self->format == H265, key = false;
    if (self->format == JPEG) {
        const uint8_t picture[] = {0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, self->height >> 8, self->height & 255,
                                   self->width >> 8, self->width & 255, 1, 1, 0x11, 0, number & 127, 0xff, 0xd9};
        memcpy(place, picture, sizeof picture);
        place += sizeof picture;
        buffer->frame.type = 16;
    } else {
        bool late = self->taken < (uint64_t)knob(VARIABLE, "pframe", 0);
        key = !late && (self->key_wanted || number % PARAMETER_SET_EVERY == 0);
        if (key) {
            self->key_wanted = false;
            if (h265) place = unit(place, 32, true, 0);
            place = unit(place, h265 ? 33 : 7, h265, 0);
            place = unit(place, h265 ? 34 : 8, h265, 0);
        }
        place = unit(place, key ? (h265 ? 19 : 5) : 1, h265, number);
        buffer->frame.type = h265 ? (key ? 12 : 14) : (key ? 4 : 6);
    }
    buffer->frame.size = place - buffer->data;
}

static void draw(const VdoStream *self, VdoBuffer *buffer, uint64_t number) {
    for (long row = 0; row < self->rows; row++) {
        uint8_t *place = buffer->data + row * self->pitch;
        for (long each = 0; each < self->row_bytes; each++) place[each] = 3 * row + each + 7 * number;
        if (self->pitch > self->row_bytes) memset(place + self->row_bytes, 0xee, self->pitch - self->row_bytes);
    }
    buffer->frame.type = self->format == YUV ? 17 : self->format == RGB ? 20 : 21;
    buffer->frame.size = self->rows * self->pitch;
}

EXPORT VdoBuffer *vdo_stream_get_buffer(VdoStream *self, GError **error) {
    tries++;
    if (self->taken >= (uint64_t)knob(VARIABLE, "at", 0) && told_to_fail("get", error)) return NULL;
    if (knob(VARIABLE, "transient", 0) && self->tries++ % 2 == 0 && told_to_fail("transient", error)) return NULL;
    if (self->blocking) {
        struct pollfd timer = {.fd = self->timer, .events = POLLIN};
        poll(&timer, 1, self->timeout_ms);
    }
    uint64_t expired;
    if (!self->started || read(self->timer, &expired, sizeof expired) < 0) {
        fail(error, vdo_error_quark(), NO_DATA, "no data");
        return NULL;
    }
    uint64_t number = self->next;
    uint64_t newest = (now_ns() - self->start_ns) * self->framerate / NS;
    /* Raw frames that have no buffer are lost; an encoder's are kept. */
    if (self->format >= YUV && newest > number + self->buffers) number = newest;

    VdoBuffer *buffer = calloc(1, sizeof *buffer);
    gsize size = self->format >= YUV ? self->rows * self->pitch : 256;
    buffer->capacity = knob(VARIABLE, "capacity", size);
    buffer->data = malloc(size);
    buffer->next = self->lent;
    self->lent = buffer;
    live_buffers++;
    if (self->format >= YUV) draw(self, buffer, number);
    else encode(self, buffer, number);
    long clock = knob(VARIABLE, "clock", 0);
    uint64_t captured = due_ns(self, number) / 1000;
    buffer->frame.timestamp = clock == 3 ? 1 : clock ? captured + 3600000000ull : captured;
    buffer->frame.custom_timestamp = clock == 3 ? 1 : clock == 2 ? captured / 2 : now_ns() / 1000;
    self->next = number + 1;
    self->taken++;
    await(self);
    return buffer;
}

static void free_buffer(VdoBuffer *buffer) {
    free(buffer->data);
    free(buffer);
    live_buffers--;
}

EXPORT gboolean vdo_stream_buffer_unref(VdoStream *self, VdoBuffer **buffer, GError **error) {
    if (told_to_fail("unref", error)) return 0;
    for (VdoBuffer **place = &self->lent; *place; place = &(*place)->next) {
        if (*place != *buffer) continue;
        *place = (*buffer)->next;
        free_buffer(*buffer);
        *buffer = NULL;
        return 1;
    }
    fail(error, vdo_error_quark(), BUFFER_FAILURE, "the buffer is not of this stream");
    return 0;
}

EXPORT gsize vdo_buffer_get_capacity(VdoBuffer *self) {
    return self->capacity;
}

EXPORT gpointer vdo_buffer_get_data(VdoBuffer *self) {
    return knob(VARIABLE, "nodata", 0) ? NULL : self->data;
}

EXPORT VdoFrame *vdo_buffer_get_frame(VdoBuffer *self) {
    return &self->frame;
}

EXPORT guint vdo_frame_get_frame_type(VdoFrame *self) {
    return self->type;
}

EXPORT guint64 vdo_frame_get_timestamp(VdoFrame *self) {
    return self->timestamp;
}

EXPORT gint64 vdo_frame_get_custom_timestamp(VdoFrame *self) {
    return self->custom_timestamp;
}

EXPORT gsize vdo_frame_get_size(VdoFrame *self) {
    return self->size;
}

/* A stream takes the buffers with it that were not given back; one that was not stopped is counted for ever. */
EXPORT void g_object_unref(gpointer object) {
    if (*(Kind *)object == MAP) {
        live_maps--;
    } else {
        VdoStream *stream = object;
        while (stream->lent) {
            VdoBuffer *buffer = stream->lent;
            stream->lent = buffer->next;
            free_buffer(buffer);
        }
        close(stream->timer);
        live_streams--;
    }
    free(object);
}
