// A device called CUDA0 that supports what upstream's CUDA backend says it supports, and computes
// nothing: SUPPORTS_OP is upstream's own function, with those it calls, taken from ggml-cuda. No
// memory can be had of it, so a case that is supported ends there. DEVICE_SUPPORTS: "none", "all".
#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml.h"
#include "ggml-impl.h"
#include "ggml-backend-impl.h"
#include <cstdlib>
#include <cstring>
#include <string>

// What the functions ask of the GPU: one with tensor cores as from compute capability 7.5 on.
#define FLASH_ATTN_AVAILABLE
#define GGML_CUDA_USE_CUB
#define FATTN_KQ_STRIDE 256
#define GGML_CUDA_CC_ADA_LOVELACE 890
#define WARP_SIZE 32
struct ggml_cuda_device { int cc; size_t smpb; bool integrated; };
struct ggml_cuda_devices { ggml_cuda_device devices[16]; };
static const ggml_cuda_devices & ggml_cuda_info() {
    static ggml_cuda_devices info = {{{900, 49152, false}}};
    return info;
}
struct ggml_backend_cuda_device_context { int device; };
struct ggml_backend_cuda_buffer_type_context { int device; };
struct ggml_backend_cuda_split_buffer_type_context { int tensor_split; };
template <class... A> static void get_row_split(A...) {}
static bool ggml_backend_buft_is_cuda(ggml_backend_buffer_type_t) { return false; }
static bool ggml_backend_buft_is_cuda_split(ggml_backend_buffer_type_t) { return false; }
static bool turing_mma_available(int) { return true; }
static bool fp16_mma_available(int) { return true; }
static bool volta_mma_available(int) { return false; }
static bool amd_mfma_available(int) { return false; }
static bool amd_wmma_available(int) { return false; }
template <class... A> static bool ggml_cuda_flash_attn_ext_mma_f16_may_use_sparse(A...) { return false; }
template <class... A> static bool ggml_cuda_flash_attn_ext_mma_f16_shall_use_sparse(A...) { return false; }

#include SUPPORTS_OP

static ggml_backend_device device;
static ggml_backend_reg registry;
static ggml_backend_cuda_device_context device_context = {0};
static ggml_backend_buffer_type buffer_type;

static bool supports(ggml_backend_dev_t dev, const ggml_tensor * op) {
    const char * told = getenv("DEVICE_SUPPORTS");
    return told ? !strcmp(told, "all") : ggml_backend_cuda_device_supports_op(dev, op);
}
static const char * name(ggml_backend_dev_t) { return "CUDA0"; }
static void memory(ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = 1ull << 34; }
static enum ggml_backend_dev_type type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }
static void properties(ggml_backend_dev_t, struct ggml_backend_dev_props * props) {
    memset((void *) props, 0, sizeof *props);
    props->name = props->description = "CUDA0";
    props->type = GGML_BACKEND_DEVICE_TYPE_GPU;
}
static const char * backend_name(ggml_backend_t) { return "CUDA0"; }
static void backend_free(ggml_backend_t backend) { delete backend; }
static ggml_backend_t start(ggml_backend_dev_t dev, const char *) {
    ggml_backend * backend = new ggml_backend();
    backend->iface.get_name = backend_name;
    backend->iface.free = backend_free;
    backend->device = dev;
    return backend;
}
static const char * buffer_name(ggml_backend_buffer_type_t) { return "CUDA0"; }
static ggml_backend_buffer_t no_buffer(ggml_backend_buffer_type_t, size_t) { return nullptr; }
static size_t alignment(ggml_backend_buffer_type_t) { return 32; }
static ggml_backend_buffer_type_t buffers(ggml_backend_dev_t) { return &buffer_type; }
static bool any_buffer(ggml_backend_dev_t, ggml_backend_buffer_type_t) { return true; }
static const char * registry_name(ggml_backend_reg_t) { return "CUDA"; }
static size_t count(ggml_backend_reg_t) { return 1; }
static ggml_backend_dev_t at(ggml_backend_reg_t, size_t) { return &device; }
static void * no_function(ggml_backend_reg_t, const char *) { return nullptr; }

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
    buffer_type.iface.get_name = buffer_name;
    buffer_type.iface.alloc_buffer = no_buffer;
    buffer_type.iface.get_alignment = alignment;
    buffer_type.device = &device;
    device.iface.get_name = device.iface.get_description = name;
    device.iface.get_memory = memory;
    device.iface.get_type = type;
    device.iface.get_props = properties;
    device.iface.init_backend = start;
    device.iface.get_buffer_type = buffers;
    device.iface.supports_op = supports;
    device.iface.supports_buft = any_buffer;
    device.reg = &registry;
    device.context = &device_context;
    registry.api_version = GGML_BACKEND_API_VERSION;
    registry.iface.get_name = registry_name;
    registry.iface.get_device_count = count;
    registry.iface.get_device = at;
    registry.iface.get_proc_address = no_function;
    return &registry;
}
