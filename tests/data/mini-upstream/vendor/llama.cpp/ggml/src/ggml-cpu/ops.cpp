#include "ggml.h"

int ggml_cpu_ops(void) {
    char name[8] = {};
    return ggml_backend_name(name, sizeof(name)) == 0 && ggml_checked(ggml_alloc(1)) == 32;
}
