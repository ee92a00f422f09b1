/* A stand-in for libedgetpu.so.1: a delegate of TensorFlow Lite that claims edgetpu-custom-op.
 *
 * What it does as google-coral/libedgetpu, tflite/edgetpu_delegate_for_custom_op*.cc, does it:
 *   - the entry points, and a refusal that gives no reason;
 *   - how option `device` chooses one of the devices that are plugged in, first come first numbered; other options are
 *     accepted whatever they are;
 *   - one delegate kernel for each node edgetpu-custom-op, dynamic tensors allowed.
 * What it does instead of computing: byte i of an output is byte i * (bytes of input) / (bytes of output) of the first
 * input.
 *
 * Variables of the environment tell it what to be:
 *   FAKE_EDGETPU_DEVICES  what is plugged in, such as "usb,pci,usb"; by default "usb"
 *   FAKE_EDGETPU_LOG      a file to which it appends a line "create KEY=VALUE ..." and "destroy" for each delegate
 *   FAKE_EDGETPU_FAULT    "create", "abi" or "invoke": crashes there. "abi" is a libedgetpu built for a TensorFlow
 *                         older than the runtime: it passes a registration that is too short, by value.
 *                         "model": takes no node; "unplugged": fails when it runs. Or "/FILE" with one of these words
 *                         in it, or none: what a process that runs is told
 *
 * The structs are retyped from TensorFlow Lite's C interface (tensorflow/lite/core/c/common.h, 2.16), as far as used.
 */

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, FAILED = 1 };
enum { ALLOW_DYNAMIC_TENSORS = 1 };

typedef struct {
  int size;
  int data[];
} IntArray;

typedef struct {
  int type;
  char* data;
  IntArray* dims;
  float scale;
  int32_t zero_point;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  void* delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  int quantization_type;
  void* quantization;
  void* sparsity;
  const IntArray* dims_signature;
} Tensor;

typedef struct {
  IntArray* inputs;
  IntArray* outputs;
} Node;

typedef struct Context Context;
typedef struct Delegate Delegate;

/* Up to here it is what it was when the newest libedgetpu of Coral's own was built. */
#define OLD_REGISTRATION                                             \
  void* (*init)(Context*, const char* buffer, size_t length);        \
  void (*free)(Context*, void* buffer);                              \
  int (*prepare)(Context*, Node*);                                   \
  int (*invoke)(Context*, Node*);                                    \
  const char* (*profiling_string)(const Context*, const Node*);      \
  int32_t builtin_code;                                              \
  const char* custom_name;                                           \
  int version;

typedef struct {
  OLD_REGISTRATION
} OldRegistration;

typedef struct {
  OLD_REGISTRATION
  void* registration_external;
  void* (*async_kernel)(Context*, Node*);
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  int (*get_execution_plan)(Context*, IntArray**);
  Tensor* tensors;
  void* impl;
  int (*resize_tensor)(Context*, Tensor*, IntArray*);
  void (*report_error)(Context*, const char* format, ...);
  int (*add_tensors)(Context*, int count, int* first);
  int (*get_node_and_registration)(Context*, int index, Node**, Registration**);
  int (*replace_nodes)(Context*, Registration, const IntArray* nodes, Delegate*);
};

struct Delegate {
  void* data;
  int (*prepare)(Context*, Delegate*);
  int (*copy_from_buffer_handle)(Context*, Delegate*, int, Tensor*);
  int (*copy_to_buffer_handle)(Context*, Delegate*, int, Tensor*);
  void (*free_buffer_handle)(Context*, Delegate*, int*);
  int64_t flags;
  void* opaque_delegate_builder;
};

static bool fault_is(const char* name) {
  const char* fault = getenv("FAKE_EDGETPU_FAULT");
  char word[16] = "";
  if (fault && *fault == '/') {
    FILE* file = fopen(fault, "r");
    if (file && fscanf(file, "%15s", word) != 1) word[0] = 0;
    if (file) fclose(file);
    fault = word;
  }
  return fault && strcmp(fault, name) == 0;
}

/* -- the operator -- */

static void* op_init(Context* context, const char* buffer, size_t length) {
  (void)context, (void)buffer, (void)length;
  return NULL;
}

static void op_free(Context* context, void* buffer) { (void)context, (void)buffer; }

static int op_prepare(Context* context, Node* node) {
  (void)context, (void)node;
  return OK;
}

static int op_invoke(Context* context, Node* node) {
  if (fault_is("invoke")) raise(SIGSEGV);
  if (fault_is("unplugged")) {
    context->report_error(context, "fake: transfer failed: the device is gone");
    return FAILED;
  }
  const Tensor* input = &context->tensors[node->inputs->data[0]];
  for (int i = 0; i < node->outputs->size; ++i) {
    Tensor* output = &context->tensors[node->outputs->data[i]];
    for (size_t byte = 0; byte < output->bytes; ++byte)
      output->data[byte] = input->data[byte * input->bytes / output->bytes];
  }
  return OK;
}

/* -- the delegate -- */

typedef int (*ReplaceNodesOfOld)(Context*, OldRegistration, const IntArray*, Delegate*);

static int replace(Context* context, Delegate* delegate, int index) {
  static const Registration registration = {.init = op_init,
                                            .free = op_free,
                                            .prepare = op_prepare,
                                            .invoke = op_invoke,
                                            .custom_name = "FakeEdgeTpuDelegateForCustomOp",
                                            .version = 1};
  struct {
    int size;
    int data[1];
  } nodes = {1, {index}};
  if (fault_is("abi")) {
    OldRegistration old;
    memcpy(&old, &registration, sizeof old);
    return ((ReplaceNodesOfOld)(void*)context->replace_nodes)(context, old, (const IntArray*)&nodes, delegate);
  }
  return context->replace_nodes(context, registration, (const IntArray*)&nodes, delegate);
}

static int delegate_prepare(Context* context, Delegate* delegate) {
  IntArray* plan;
  if (context->get_execution_plan(context, &plan) != OK) return FAILED;
  int claimed[plan->size + 1];
  int count = 0;
  for (int i = 0; i < plan->size; ++i) {
    Node* node;
    Registration* registration;
    if (context->get_node_and_registration(context, plan->data[i], &node, &registration) != OK) return FAILED;
    if (registration->custom_name && strcmp(registration->custom_name, "edgetpu-custom-op") == 0)
      claimed[count++] = plan->data[i];
  }
  for (int i = 0; i < count && !fault_is("model"); ++i)
    if (replace(context, delegate, claimed[i]) != OK) return FAILED;
  return OK;
}

/* -- the devices -- */

/* Whether `wanted` ("", "usb", ":1", "pci:0", ...) is among those that are plugged in. */
static bool is_there(const char* wanted) {
  const char* plugged = getenv("FAKE_EDGETPU_DEVICES");
  char kinds[256];
  snprintf(kinds, sizeof kinds, "%s", plugged ? plugged : "usb");
  const char* colon = strchr(wanted, ':');
  size_t kind_length = colon ? (size_t)(colon - wanted) : strlen(wanted);
  int left = colon ? atoi(colon + 1) : 0;
  for (char *rest = kinds, *kind; (kind = strsep(&rest, ","));)
    if (*kind && (!kind_length || (strlen(kind) == kind_length && !strncmp(kind, wanted, kind_length))) && left-- == 0)
      return true;
  return false;
}

static void write_log(const char* word, char** keys, char** values, size_t count) {
  const char* path = getenv("FAKE_EDGETPU_LOG");
  FILE* file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file, "%s", word);
  for (size_t i = 0; i < count; ++i) fprintf(file, " %s=%s", keys[i], values[i]);
  fprintf(file, "\n");
  fclose(file);
}

/* -- what the runtime calls -- */

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  (void)report; /* the real one does not call it either */
  if (fault_is("create")) raise(SIGSEGV);
  const char* device = "";
  for (size_t i = 0; i < count; ++i)
    if (strcmp(keys[i], "device") == 0) device = values[i];
  if (!is_there(device)) return NULL;
  Delegate* delegate = calloc(1, sizeof *delegate);
  if (!delegate) return NULL;
  delegate->prepare = delegate_prepare;
  delegate->flags = ALLOW_DYNAMIC_TENSORS;
  write_log("create", keys, values, count);
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) {
  if (!delegate) return;
  write_log("destroy", NULL, NULL, 0);
  free(delegate);
}
