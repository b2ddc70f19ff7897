/* Preloaded by fail_every_call.py: lets the n-th call that changes files fail, or kills the process instead. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int countdown = -1, error_code, calls;

/* Arm: call `n`, from 1, fails with errno `code`, or by SIGKILL if that is 0; n = 0 only counts. */
void arm(int n, int code) { countdown = n, error_code = code, calls = 0; }
int counted(void) { return calls; }

static int fails(void) {
    if (countdown < 0) return 0;
    calls++;
    if (calls != countdown) return 0;
    if (!error_code) kill(getpid(), SIGKILL);
    errno = error_code;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAILING(type, name, words, names) \
    type name words { return fails() ? -1 : REAL(name) names; }

FAILING(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
FAILING(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
FAILING(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
FAILING(int, fsync, (int file), (file))
FAILING(int, fdatasync, (int file), (file))
FAILING(int, ftruncate, (int file, off_t size), (file, size))
FAILING(int, ftruncate64, (int file, off64_t size), (file, size))
FAILING(int, truncate, (const char *path, off_t size), (path, size))
FAILING(int, rename, (const char *from, const char *to), (from, to))
FAILING(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
FAILING(int, link, (const char *from, const char *to), (from, to))
FAILING(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
FAILING(int, symlink, (const char *from, const char *to), (from, to))
FAILING(int, unlink, (const char *path), (path))
FAILING(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
FAILING(int, mkdir, (const char *path, mode_t mode), (path, mode))
FAILING(int, rmdir, (const char *path), (path))

/* Opening a file for reading changes nothing. */
#define OPENS(name)                                               \
    int name(const char *path, int flags, ...) {                  \
        va_list more;                                             \
        va_start(more, flags);                                    \
        int mode = flags & O_CREAT ? va_arg(more, int) : 0;       \
        va_end(more);                                             \
        if ((flags & (O_CREAT | O_TRUNC)) && fails()) return -1;  \
        return REAL(name)(path, flags, mode);                     \
    }
OPENS(open)
OPENS(open64)
