#include "llama.h"

#include "ggml.h"

int llama_answer(void) {
    GGML_ASSERT(llama_vocab_size() > 0);
    return ggml_answer() + llama_model_layers();
}
