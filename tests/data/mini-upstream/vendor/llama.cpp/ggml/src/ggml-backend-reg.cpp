#include "ggml.h"

int ggml_answer(void) {
    GGML_ASSERT(ggml_cpu_ops() == 1);
    return ggml_cpu_sum(8);
}
