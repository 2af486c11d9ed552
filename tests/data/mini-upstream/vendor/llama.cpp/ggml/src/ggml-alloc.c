#include "ggml.h"

int ggml_alloc(int size) {
    GGML_ASSERT(size >= 0);
    return (size + 31) / 32 * 32;
}
