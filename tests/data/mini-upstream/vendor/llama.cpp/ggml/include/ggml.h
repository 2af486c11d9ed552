#pragma once
#ifdef __cplusplus
extern "C" {
#endif
void ggml_abort(const char * file, int line);
void ggml_log_set(void * callback, void * data);
int ggml_alloc(int size);
int ggml_backend_name(char * name, int size);
int ggml_sched_copies(void);
struct ggml_backend {
    int (*sum)(int last);
    int (*ops)(void);
};
int ggml_cpu_sum(int last);
int ggml_cpu_ops(void);
const struct ggml_backend * ggml_backend_init(void);
int ggml_answer(void);
#ifdef __cplusplus
}
#endif

// As upstream's: __FILE__ would carry the build machine's folders into the library.
#define GGML_ASSERT(x) if (!(x)) ggml_abort(__FILE__, __LINE__)

static inline int ggml_checked(int size) {
    GGML_ASSERT(size > 0);
    return size;
}
