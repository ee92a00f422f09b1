"""The parts of VDO, axparameter and GLib that this plugin uses, in C for cffi and the fakes' compiler, and their enums.

The functions exist since ACAP 3.5. `tests/published_api.toml` lists where they are published.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Format(IntEnum):
    """VdoFormat."""

    H264 = 0
    H265 = 1
    JPEG = 2
    YUV = 3
    RGB = 8
    PLANAR_RGB = 9


class BufferStrategy(IntEnum):
    """VdoBufferStrategy."""

    INFINITE = 4


class Timestamp(IntEnum):
    """VdoStreamTimestamp: the meaning of a frame's custom timestamp."""

    MONO_SERVER = 16


class FrameType(IntEnum):
    """VdoFrameType: the frames of H.26x that decode by themselves."""

    H264_IDR = 4
    H265_IDR = 12


class VdoError(IntEnum):
    """The codes in domain vdo_error_quark()."""

    NOT_FOUND = 1
    INVALID_ARGUMENT = 3
    PERMISSION_DENIED = 4
    NOT_SUPPORTED = 5
    HAL = 9
    NO_DATA = 13
    INTERFACE_DOWN = 16
    FATAL = 18
    NO_VIDEO = 21


class ParameterError(IntEnum):
    """AXParameterErrorCode, the codes in domain ax_parameter_error_quark()."""

    PARAM_GET = 9
    PARAM_PATH = 10
    PARAM_EXIST = 12
    DBUS_SETUP = 16


_GLIB = """
typedef char gchar;
typedef int gint;
typedef int gboolean;
typedef unsigned int guint;
typedef size_t gsize;
typedef uint16_t guint16;
typedef int32_t gint32;
typedef uint32_t guint32;
typedef int64_t gint64;
typedef uint64_t guint64;
typedef void *gpointer;
typedef guint32 GQuark;
typedef struct { GQuark domain; gint code; gchar *message; } GError;

void g_error_free(GError *error);
"""

VDO: Final = f"""{_GLIB}
void g_object_unref(gpointer object);

typedef struct VdoMap VdoMap;
typedef struct VdoStream VdoStream;
typedef struct VdoBuffer VdoBuffer;
typedef struct VdoFrame VdoFrame;
typedef void (*VdoBufferFinalizer)(VdoBuffer *self);

GQuark vdo_error_quark(void);
gboolean vdo_error_is_expected(GError **error);

VdoMap *vdo_map_new(void);
void vdo_map_set_boolean(VdoMap *self, const gchar *name, gboolean value);
void vdo_map_set_int32(VdoMap *self, const gchar *name, gint32 value);
void vdo_map_set_uint16(VdoMap *self, const gchar *name, guint16 value);
void vdo_map_set_uint32(VdoMap *self, const gchar *name, guint32 value);
void vdo_map_set_string(VdoMap *self, const gchar *name, const gchar *value);
guint32 vdo_map_get_uint32(const VdoMap *self, const gchar *name, guint32 def);
const gchar *vdo_map_get_string(const VdoMap *self, const gchar *name, gsize *size, const gchar *def);

VdoStream *vdo_stream_new(VdoMap *settings, VdoBufferFinalizer fin, GError **error);
VdoMap *vdo_stream_get_info(VdoStream *self, GError **error);
gint vdo_stream_get_fd(VdoStream *self, GError **error);
gboolean vdo_stream_start(VdoStream *self, GError **error);
void vdo_stream_stop(VdoStream *self);
gboolean vdo_stream_force_key_frame(VdoStream *self, GError **error);
VdoBuffer *vdo_stream_get_buffer(VdoStream *self, GError **error);
gboolean vdo_stream_buffer_unref(VdoStream *self, VdoBuffer **buffer, GError **error);

gsize vdo_buffer_get_capacity(VdoBuffer *self);
gpointer vdo_buffer_get_data(VdoBuffer *self);
VdoFrame *vdo_buffer_get_frame(VdoBuffer *self);

guint vdo_frame_get_frame_type(VdoFrame *self);
guint64 vdo_frame_get_timestamp(VdoFrame *self);
gint64 vdo_frame_get_custom_timestamp(VdoFrame *self);
gsize vdo_frame_get_size(VdoFrame *self);
"""

AXPARAMETER: Final = f"""{_GLIB}
void g_free(gpointer memory);

typedef struct AXParameter AXParameter;

GQuark ax_parameter_error_quark(void);
AXParameter *ax_parameter_new(const gchar *app_name, GError **error);
void ax_parameter_free(AXParameter *parameter);
gboolean ax_parameter_get(AXParameter *parameter, const gchar *name, gchar **value, GError **error);
"""
