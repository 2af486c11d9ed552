#include "llama.h"

#include <vector>

int llama_model_layers(void) {
    return static_cast<int>(std::vector<int>(2).size());
}
