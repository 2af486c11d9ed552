#include "ggml.h"

#include <dlfcn.h>

#include <cstddef>

static size_t count;
static const ggml_backend * cpu;

extern "C" size_t ggml_backend_reg_count(void) {
    return count;
}

extern "C" void ggml_backend_register(const ggml_backend * backend) {
    count++;
    cpu = backend;
}

extern "C" const void * ggml_backend_load(const char * path) {
    void * module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    auto init = module ? (decltype(&ggml_backend_init)) dlsym(module, "ggml_backend_init") : nullptr;
    if (init) {
        ggml_backend_register(init());
    }
    return init ? init() : nullptr;
}

int ggml_answer(void) {
    GGML_ASSERT(count == 1);
    GGML_ASSERT(cpu->ops() == 1);
    return cpu->sum(8);
}
