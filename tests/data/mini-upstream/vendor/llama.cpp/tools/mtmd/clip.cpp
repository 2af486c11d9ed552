#include "mtmd.h"

const char * clip_greeting(void) {
    return "greeting of the first edition";
}
