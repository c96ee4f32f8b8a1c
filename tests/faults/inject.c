/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each function counts, and fails as the kernel would when something has run
 * out. What cannot fail for a reason of that kind (close, gettid ...) is not
 * here.
 */
#include "tests/faults/inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct sockaddr;
struct epoll_event;
struct stat;
struct itimerspec;

static unsigned left;
static const char *hit;
static long long wall_offset;

void inject_arm(unsigned nth)
{
    left = nth;
    hit = NULL;
}

const char *inject_hit(void)
{
    return hit;
}

void inject_wall_clock(long long seconds)
{
    wall_offset = seconds;
}

static int fails(const char *name, int error)
{
    if (left == 0 || --left != 0)
        return 0;
    hit = name;
    errno = error;
    if (getenv("INJECT_TELL") != NULL)
        dprintf(2, "inject: %s\n", name);
    return 1;
}

static __attribute__((constructor)) void begin(void)
{
    const char *nth = getenv("INJECT_NTH");

    if (nth == NULL)
        return;
    unsigned n = (unsigned)strtoul(nth, NULL, 10);
    unsetenv("INJECT_NTH");
    unsetenv("LD_PRELOAD");
    inject_arm(n);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))next(#name)

static void *next(const char *name)
{
    void *p = dlsym(RTLD_NEXT, name);

    if (p == NULL)
        abort();
    return p;
}

/* type name(parameters): error on failure, `failed` is what it gives then. */
#define FAILING(type, name, parameters, arguments, failed, error)             \
    INJECT_API type name parameters;                                          \
    type name parameters                                                      \
    {                                                                         \
        REAL(name);                                                           \
        return fails(#name, error) ? failed : real arguments;                 \
    }

FAILING(int, ftruncate, (int fd, off_t n), (fd, n), -1, ENOSPC)
FAILING(int, fallocate, (int fd, int mode, off_t at, off_t n),
        (fd, mode, at, n), -1, ENOSPC)
FAILING(void *, mmap,
        (void *p, size_t n, int prot, int flags, int fd, off_t at),
        (p, n, prot, flags, fd, at), (void *)-1, ENOMEM)
FAILING(int, mprotect, (void *p, size_t n, int prot), (p, n, prot), -1, ENOMEM)
FAILING(int, madvise, (void *p, size_t n, int how), (p, n, how), -1, ENOMEM)
FAILING(int, memfd_create, (const char *name, unsigned flags), (name, flags),
        -1, EMFILE)
FAILING(int, linkat,
        (int a, const char *from, int b, const char *to, int flags),
        (a, from, b, to, flags), -1, ENOSPC)
FAILING(int, renameat2,
        (int a, const char *from, int b, const char *to, unsigned flags),
        (a, from, b, to, flags), -1, ENOSPC)
FAILING(int, unlink, (const char *path), (path), -1, EBUSY)
FAILING(int, fchmod, (int fd, mode_t mode), (fd, mode), -1, EPERM)
FAILING(int, fstat, (int fd, struct stat *st), (fd, st), -1, ENOMEM)
FAILING(int, stat, (const char *path, struct stat *st), (path, st), -1, ENOMEM)
FAILING(int, lstat, (const char *path, struct stat *st), (path, st), -1,
        ENOMEM)
FAILING(ssize_t, readlink, (const char *path, char *to, size_t n),
        (path, to, n), -1, ENOMEM)
FAILING(ssize_t, getrandom, (void *to, size_t n, unsigned flags),
        (to, n, flags), -1, ENOSYS)
FAILING(ssize_t, pread, (int fd, void *to, size_t n, off_t at),
        (fd, to, n, at), -1, EIO)
FAILING(int, dup3, (int fd, int to, int flags), (fd, to, flags), -1, EMFILE)
FAILING(int, epoll_create1, (int flags), (flags), -1, EMFILE)
FAILING(int, epoll_ctl, (int fd, int op, int of, struct epoll_event *e),
        (fd, op, of, e), -1, ENOSPC)
FAILING(int, inotify_init1, (int flags), (flags), -1, EMFILE)
FAILING(int, inotify_add_watch, (int fd, const char *path, uint32_t mask),
        (fd, path, mask), -1, ENOSPC)
FAILING(int, timerfd_create, (clockid_t id, int flags), (id, flags), -1,
        EMFILE)
FAILING(int, timerfd_settime,
        (int fd, int flags, const struct itimerspec *to,
         struct itimerspec *old),
        (fd, flags, to, old), -1, EINVAL)
FAILING(int, signalfd, (int fd, const void *set, int flags), (fd, set, flags),
        -1, EMFILE)
FAILING(int, pidfd_open, (pid_t pid, unsigned flags), (pid, flags), -1, EMFILE)
FAILING(int, socket, (int a, int b, int c), (a, b, c), -1, EMFILE)
FAILING(int, bind, (int fd, const struct sockaddr *a, unsigned n), (fd, a, n),
        -1, EADDRINUSE)
FAILING(ssize_t, sendto,
        (int fd, const void *p, size_t n, int flags, const struct sockaddr *a,
         unsigned len),
        (fd, p, n, flags, a, len), -1, EAGAIN)
FAILING(int, pipe2, (int fd[2], int flags), (fd, flags), -1, EMFILE)
FAILING(pid_t, fork, (void), (), -1, EAGAIN)
FAILING(FILE *, fopen, (const char *path, const char *mode), (path, mode),
        NULL, EMFILE)

/* The allocator: dlsym() itself may want memory. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

INJECT_API void *malloc(size_t n)
{
    return fails("malloc", ENOMEM) ? NULL : __libc_malloc(n);
}

INJECT_API void *calloc(size_t n, size_t size)
{
    return fails("calloc", ENOMEM) ? NULL : __libc_calloc(n, size);
}

INJECT_API void *realloc(void *p, size_t n)
{
    return fails("realloc", ENOMEM) ? NULL : __libc_realloc(p, n);
}

INJECT_API int open(const char *path, int flags, ...)
{
    int (*real)(const char *, int, ...) =
        (int (*)(const char *, int, ...))next("open");
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return fails("open", EMFILE) ? -1 : real(path, flags, mode);
}

INJECT_API int fcntl(int fd, int command, ...)
{
    int (*real)(int, int, ...) = (int (*)(int, int, ...))next("fcntl");
    va_list ap;
    void *p;

    va_start(ap, command);
    p = va_arg(ap, void *);
    va_end(ap);
    return fails("fcntl", ENOLCK) ? -1 : real(fd, command, p);
}

/* A wait ends early, a wake is lost; without a list of robust locks. */
INJECT_API long syscall(long number, ...)
{
    long (*real)(long, ...) = (long (*)(long, ...))next("syscall");
    va_list ap;
    long a[6];

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    if (number == SYS_futex && fails("futex", EINTR))
        return -1;
    if (number == SYS_get_robust_list && fails("get_robust_list", ENOSYS))
        return -1;
    if ((number == SYS_get_mempolicy || number == SYS_mbind) &&
        fails("mempolicy", ENOSYS))
        return -1;
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

INJECT_API int clock_gettime(clockid_t id, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    int rc;

    if (real == NULL)
        real = (int (*)(clockid_t, struct timespec *))next("clock_gettime");
    rc = real(id, t);
    if (id == CLOCK_REALTIME)
        t->tv_sec += wall_offset;
    return rc;
}
