"""The parts of larod that this plugin uses, in C for cffi: API version 3, from liblarod 3.2.254's published larod.h.

The fake library is compiled against this text too, so its functions cannot differ from those that are called.
"""

from __future__ import annotations

from typing import Final

DECLARATIONS: Final = """
#define LAROD_TENSOR_MAX_LEN 12

#define LAROD_FD_PROP_READWRITE 1
#define LAROD_FD_PROP_MAP 2
#define LAROD_FD_PROP_DMABUF 4

typedef enum {
    LAROD_ACCESS_INVALID = 0,
    LAROD_ACCESS_PRIVATE = 1,
    LAROD_ACCESS_PUBLIC = 2
} larodAccess;

typedef enum {
    LAROD_ERROR_NONE = 0,
    LAROD_ERROR_JOB = -1,
    LAROD_ERROR_LOAD_MODEL = -2,
    LAROD_ERROR_FD = -3,
    LAROD_ERROR_MODEL_NOT_FOUND = -4,
    LAROD_ERROR_PERMISSION = -5,
    LAROD_ERROR_CONNECTION = -6,
    LAROD_ERROR_CREATE_SESSION = -7,
    LAROD_ERROR_KILL_SESSION = -8,
    LAROD_ERROR_INVALID_CHIP_ID = -9,
    LAROD_ERROR_INVALID_ACCESS = -10,
    LAROD_ERROR_DELETE_MODEL = -11,
    LAROD_ERROR_TENSOR_MISMATCH = -12,
    LAROD_ERROR_VERSION_MISMATCH = -13,
    LAROD_ERROR_ALLOC = -14,
    LAROD_ERROR_POWER_NOT_AVAILABLE = -15,
    LAROD_ERROR_MAX_ERRNO = 1024
} larodErrorCode;

typedef enum {
    LAROD_TENSOR_DATA_TYPE_INVALID = 0,
    LAROD_TENSOR_DATA_TYPE_UNSPECIFIED = 1,
    LAROD_TENSOR_DATA_TYPE_BOOL = 2,
    LAROD_TENSOR_DATA_TYPE_UINT8 = 3,
    LAROD_TENSOR_DATA_TYPE_INT8 = 4,
    LAROD_TENSOR_DATA_TYPE_UINT16 = 5,
    LAROD_TENSOR_DATA_TYPE_INT16 = 6,
    LAROD_TENSOR_DATA_TYPE_UINT32 = 7,
    LAROD_TENSOR_DATA_TYPE_INT32 = 8,
    LAROD_TENSOR_DATA_TYPE_UINT64 = 9,
    LAROD_TENSOR_DATA_TYPE_INT64 = 10,
    LAROD_TENSOR_DATA_TYPE_FLOAT16 = 11,
    LAROD_TENSOR_DATA_TYPE_FLOAT32 = 12,
    LAROD_TENSOR_DATA_TYPE_FLOAT64 = 13,
    LAROD_TENSOR_DATA_TYPE_MAX = 14
} larodTensorDataType;

typedef enum {
    LAROD_TENSOR_LAYOUT_INVALID = 0,
    LAROD_TENSOR_LAYOUT_UNSPECIFIED = 1,
    LAROD_TENSOR_LAYOUT_NHWC = 2,
    LAROD_TENSOR_LAYOUT_NCHW = 3,
    LAROD_TENSOR_LAYOUT_420SP = 4,
    LAROD_TENSOR_LAYOUT_MAX = 5
} larodTensorLayout;

typedef struct { larodErrorCode code; const char *msg; } larodError;
typedef struct { size_t dims[LAROD_TENSOR_MAX_LEN]; size_t len; } larodTensorDims;
typedef struct { size_t pitches[LAROD_TENSOR_MAX_LEN]; size_t len; } larodTensorPitches;

typedef struct larodConnection larodConnection;
typedef struct larodDevice larodDevice;
typedef struct larodModel larodModel;
typedef struct larodTensor larodTensor;
typedef struct larodMap larodMap;
typedef struct larodJobRequest larodJobRequest;

void larodClearError(larodError **error);

bool larodConnect(larodConnection **conn, larodError **error);
bool larodDisconnect(larodConnection **conn, larodError **error);

const larodDevice *larodGetDevice(const larodConnection *conn, const char *name, const uint32_t instance,
                                  larodError **error);
const char *larodGetDeviceName(const larodDevice *dev, larodError **error);
bool larodGetDeviceInstance(const larodDevice *dev, uint32_t *instance, larodError **error);
const larodDevice **larodListDevices(larodConnection *conn, size_t *numDevices, larodError **error);

larodModel *larodLoadModel(larodConnection *conn, const int fd, const larodDevice *dev, const larodAccess access,
                           const char *name, const larodMap *params, larodError **error);
void larodDestroyModel(larodModel **model);
bool larodDeleteModel(larodConnection *conn, larodModel *model, larodError **error);

larodTensor **larodCreateModelInputs(const larodModel *model, size_t *numTensors, larodError **error);
larodTensor **larodCreateModelOutputs(const larodModel *model, size_t *numTensors, larodError **error);
larodTensor **larodAllocModelInputs(larodConnection *conn, const larodModel *model, const uint32_t fdPropFlags,
                                    size_t *numTensors, larodMap *params, larodError **error);
larodTensor **larodAllocModelOutputs(larodConnection *conn, const larodModel *model, const uint32_t fdPropFlags,
                                     size_t *numTensors, larodMap *params, larodError **error);
bool larodDestroyTensors(larodConnection *conn, larodTensor ***tensors, size_t numTensors, larodError **error);

const larodTensorDims *larodGetTensorDims(const larodTensor *tensor, larodError **error);
const larodTensorPitches *larodGetTensorPitches(const larodTensor *tensor, larodError **error);
larodTensorDataType larodGetTensorDataType(const larodTensor *tensor, larodError **error);
larodTensorLayout larodGetTensorLayout(const larodTensor *tensor, larodError **error);
const char *larodGetTensorName(const larodTensor *tensor, larodError **error);
bool larodGetTensorByteSize(const larodTensor *tensor, size_t *byteSize, larodError **error);
bool larodSetTensorFd(larodTensor *tensor, const int fd, larodError **error);
int larodGetTensorFd(const larodTensor *tensor, larodError **error);
int64_t larodGetTensorFdOffset(const larodTensor *tensor, larodError **error);
bool larodSetTensorFdProps(larodTensor *tensor, const uint32_t fdPropFlags, larodError **error);

larodMap *larodCreateMap(larodError **error);
void larodDestroyMap(larodMap **map);
bool larodMapSetStr(larodMap *map, const char *key, const char *value, larodError **error);
bool larodMapSetInt(larodMap *map, const char *key, const int64_t value, larodError **error);
bool larodMapSetIntArr2(larodMap *map, const char *key, const int64_t value0, const int64_t value1,
                        larodError **error);
bool larodMapSetIntArr4(larodMap *map, const char *key, const int64_t value0, const int64_t value1,
                        const int64_t value2, const int64_t value3, larodError **error);

larodJobRequest *larodCreateJobRequest(const larodModel *model, larodTensor **inputTensors, size_t numInputs,
                                       larodTensor **outputTensors, size_t numOutputs, larodMap *params,
                                       larodError **error);
void larodDestroyJobRequest(larodJobRequest **jobReq);
bool larodRunJob(larodConnection *conn, const larodJobRequest *jobReq, larodError **error);
"""
