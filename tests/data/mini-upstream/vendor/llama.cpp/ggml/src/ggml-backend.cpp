#include "ggml.h"

#include <cstring>

int ggml_sched_copies(void) {
    return GGML_SCHED_MAX_COPIES;
}

int ggml_backend_name(char * name, int size) {
    GGML_ASSERT(size > 3);
    std::strncpy(name, "cpu", size);
    return 0;
}
