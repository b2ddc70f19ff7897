/* Preloaded by every_call.py: lets the n-th call that changes files fail, or ends the process in its place. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int countdown = -1, broken_with, calls;

/* Arm: call number `n`, from 1, breaks with errno `code`, or by SIGKILL if that is 0; n = 0 only counts. */
void arm(int n, int code) { countdown = n, broken_with = code, calls = 0; }
int counted(void) { return calls; }

static int breaks(void) {
    if (countdown < 0) return 0;
    calls++;
    if (calls != countdown) return 0;
    if (!broken_with) kill(getpid(), SIGKILL);
    errno = broken_with;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define BREAKABLE(type, name, words, names) \
    type name words { return breaks() ? -1 : REAL(name) names; }

BREAKABLE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
BREAKABLE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
BREAKABLE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
BREAKABLE(int, fsync, (int file), (file))
BREAKABLE(int, fdatasync, (int file), (file))
BREAKABLE(int, ftruncate, (int file, off_t size), (file, size))
BREAKABLE(int, ftruncate64, (int file, off64_t size), (file, size))
BREAKABLE(int, truncate, (const char *path, off_t size), (path, size))
BREAKABLE(int, rename, (const char *from, const char *to), (from, to))
BREAKABLE(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
BREAKABLE(int, link, (const char *from, const char *to), (from, to))
BREAKABLE(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
BREAKABLE(int, symlink, (const char *from, const char *to), (from, to))
BREAKABLE(int, unlink, (const char *path), (path))
BREAKABLE(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
BREAKABLE(int, mkdir, (const char *path, mode_t mode), (path, mode))
BREAKABLE(int, rmdir, (const char *path), (path))

/* A file that is opened to be read changes nothing. */
#define OPENS(name)                                               \
    int name(const char *path, int flags, ...) {                  \
        va_list more;                                             \
        va_start(more, flags);                                    \
        int mode = flags & O_CREAT ? va_arg(more, int) : 0;       \
        va_end(more);                                             \
        if ((flags & (O_CREAT | O_TRUNC)) && breaks()) return -1; \
        return REAL(name)(path, flags, mode);                     \
    }
OPENS(open)
OPENS(open64)
