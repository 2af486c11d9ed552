#include "ggml.h"

// With OpenMP where it is asked for, as upstream: then its runtime has to come with the wheel.
int ggml_cpu_sum(int last) {
    int sum = 0;
    GGML_ASSERT(last >= 0);
#pragma omp parallel for reduction(+ : sum)
    for (int i = 0; i <= last; i++) {
        sum += i;
    }
    return sum;
}

const struct ggml_backend * ggml_backend_init(void) {
    static const struct ggml_backend cpu = {ggml_cpu_sum, ggml_cpu_ops};
    return &cpu;
}
