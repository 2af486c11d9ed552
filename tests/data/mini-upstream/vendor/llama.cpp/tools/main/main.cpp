#include "llama.h"

int main() {
    return llama_answer() == 38 ? 0 : 1;
}
