#include "ggml.h"

#include <stdio.h>
#include <stdlib.h>

void ggml_abort(const char * file, int line) {
    fprintf(stderr, "%s:%d: failed\n", file, line);
    abort();
}

void ggml_log_set(void * callback, void * data) {
    (void) callback;
    (void) data;
}
