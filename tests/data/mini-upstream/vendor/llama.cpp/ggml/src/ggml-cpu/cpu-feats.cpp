// How well this module suits the CPU; 0 where the CPU cannot run it.
extern "C" int ggml_backend_score(void) {
#ifdef VARIANT_haswell
    return __builtin_cpu_supports("avx2") ? 2 : 0;
#else
    return 1;
#endif
}
