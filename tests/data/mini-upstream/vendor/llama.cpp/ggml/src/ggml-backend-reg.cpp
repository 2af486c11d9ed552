#include "ggml.h"

#include <dlfcn.h>

#include <cstddef>

static struct {
    size_t count;
    int (*sum)(int);
    int (*ops)(void);
} cpu;

extern "C" size_t ggml_backend_reg_count(void) {
    return cpu.count;
}

extern "C" void * ggml_backend_load(const char * path) {
    void * module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (module) {
        cpu = {cpu.count + 1, (int (*)(int)) dlsym(module, "ggml_cpu_sum"), (int (*)(void)) dlsym(module, "ggml_cpu_ops")};
    }
    return module;
}

int ggml_answer(void) {
    GGML_ASSERT(cpu.count == 1);
    GGML_ASSERT(cpu.ops() == 1);
    return cpu.sum(8);
}
