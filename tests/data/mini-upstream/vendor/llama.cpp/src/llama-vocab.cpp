#include "llama.h"

#include <string>

int llama_vocab_size(void) {
    return static_cast<int>(std::string("tokens").size());
}
