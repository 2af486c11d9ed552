#include "mtmd.h"

#include "ggml.h"
#include "llama.h"

int mtmd_answer(void) {
    GGML_ASSERT(clip_greeting()[0] != 0);
    return llama_answer() + 4;
}
