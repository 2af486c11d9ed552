/* Functions that newer compilers and headers call and that glibc 2.28 lacks. Each library contains a
   hidden copy of those that it uses. No header is included: it might rename these functions. */
typedef unsigned long size;
typedef __builtin_va_list arguments;
struct stat;
struct file;

#define GLIBC __attribute__((visibility("default"))) extern

GLIBC int __xstat(int, const char *, struct stat *);
GLIBC int __fxstat(int, int, struct stat *);
GLIBC int __lxstat(int, const char *, struct stat *);
GLIBC int __fxstatat(int, int, const char *, struct stat *, int);
GLIBC long syscall(long, ...);
GLIBC long getrandom(void *, size, unsigned);
GLIBC void abort(void) __attribute__((noreturn));
GLIBC long strtol(const char *, char **, int);
GLIBC unsigned long strtoul(const char *, char **, int);
GLIBC int __isoc99_vsscanf(const char *, const char *, arguments);
GLIBC int __isoc99_vfscanf(struct file *, const char *, arguments);
GLIBC void *dlsym(void *, const char *);
GLIBC int __cxa_atexit(void (*)(void *), void *, void *);
__attribute__((visibility("hidden"))) extern void *__dso_handle;

/* Functions since 2.33. The 1 is the layout of struct stat on x86-64. */
int stat(const char *path, struct stat *to) { return __xstat(1, path, to); }
int fstat(int file, struct stat *to) { return __fxstat(1, file, to); }
int lstat(const char *path, struct stat *to) { return __lxstat(1, path, to); }
int fstatat(int folder, const char *path, struct stat *to, int flags) {
    return __fxstatat(1, folder, path, to, flags);
}
int stat64(const char *path, struct stat *to) { return __xstat(1, path, to); }
int fstat64(int file, struct stat *to) { return __fxstat(1, file, to); }
int lstat64(const char *path, struct stat *to) { return __lxstat(1, path, to); }
int fstatat64(int folder, const char *path, struct stat *to, int flags) {
    return __fxstatat(1, folder, path, to, flags);
}

/* 2.29; the number of the system call on x86-64. */
int getcpu(unsigned *cpu, unsigned *node) { return (int)syscall(309, cpu, node, (void *)0); }

/* 2.29. Calls the system's function, or returns ENOSYS if it has none. */
int posix_spawn_file_actions_addchdir_np(void *actions, const char *folder) {
    int (*real)(void *, const char *) = (int (*)(void *, const char *))dlsym(
        (void *)0, "posix_spawn_file_actions_addchdir_np");
    return real ? real(actions, folder) : 38;
}

/* 2.32. libstdc++ takes no locks if it is not 0. */
char __libc_single_threaded = 0;

/* 2.36, for std::random_device. */
unsigned arc4random(void) {
    unsigned number;
    if (getrandom(&number, sizeof number, 0) != sizeof number) abort();
    return number;
}

/* 2.38, for C23: they only add the notation 0b101. */
long __isoc23_strtol(const char *text, char **end, int base) { return strtol(text, end, base); }
long long __isoc23_strtoll(const char *text, char **end, int base) {
    return strtol(text, end, base);
}
unsigned long __isoc23_strtoul(const char *text, char **end, int base) {
    return strtoul(text, end, base);
}
unsigned long long __isoc23_strtoull(const char *text, char **end, int base) {
    return strtoul(text, end, base);
}
int __isoc23_sscanf(const char *text, const char *format, ...) {
    arguments more;
    __builtin_va_start(more, format);
    int read = __isoc99_vsscanf(text, format, more);
    __builtin_va_end(more);
    return read;
}
int __isoc23_fscanf(struct file *file, const char *format, ...) {
    arguments more;
    __builtin_va_start(more, format);
    int read = __isoc99_vfscanf(file, format, more);
    __builtin_va_end(more);
    return read;
}

/* It is in libc_nonshared.a, which is not linked here, and not in libc.so.6. */
int atexit(void (*function)(void)) {
    return __cxa_atexit((void (*)(void *))function, (void *)0, &__dso_handle);
}
