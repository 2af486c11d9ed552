#include "mtmd.h"

int main() {
    return mtmd_answer() == 42 ? 0 : 1;
}
