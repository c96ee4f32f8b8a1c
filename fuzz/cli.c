/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "fuzz/workers.h"

#define SEGMENTS 64u
#define WAITS_MAX 3 /* then it is told to end */

int shdict_main(int argc, char **argv);

static int running, waits;
static jmp_buf ended;
static int status;
static shd_segment *open_segments[SEGMENTS];
static unsigned open_count;
static const unsigned char *input;
static size_t input_left;
static int directory = -1, before = -1; /* ours; that of the fuzzer */
static int made; /* files that may be there */

int cli_is_running(void)
{
    return running;
}

static void clean_up(void)
{
    DIR *d = fdopendir(openat(directory, ".", O_RDONLY | O_CLOEXEC));
    const struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL)
        (void)unlinkat(directory, e->d_name, 0);
    if (d != NULL)
        (void)closedir(d);
    made = 0;
}

static void remove_directory(void)
{
    char link[40], path[200];
    ssize_t n;

    clean_up();
    snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
    n = readlink(link, path, sizeof(path) - 1);
    if (n > 0) {
        path[n] = '\0';
        (void)rmdir(path);
    }
}

static void begin(void)
{
    /* In memory, where there is a place for it. */
    static char in_memory[] = "/dev/shm/shdict-fuzz-XXXXXX";
    static char on_disk[] = "/tmp/shdict-fuzz-XXXXXX";
    const char *path = in_memory;

    if (directory >= 0)
        return;
    if (mkdtemp(in_memory) == NULL && (path = mkdtemp(on_disk)) == NULL)
        abort();
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || before < 0)
        abort();
    (void)atexit(remove_directory);
}

int cli_run(int argc, char **argv, const void *in, size_t in_len, char **out,
            size_t *out_len)
{
    static FILE *nowhere;
    FILE *real_out = stdout, *real_err = stderr, *real_in = stdin;
    char *none[] = {argv[0], NULL};
    sigset_t mask;
    int highest;

    begin();
    if (nowhere == NULL)
        nowhere = fopen("/dev/null", "w");
    if (nowhere == NULL || fchdir(directory) != 0)
        abort();
    (void)sigprocmask(SIG_SETMASK, NULL, &mask);
    input = in;
    input_left = in_len;
    stdin = in_len > 0 ? fmemopen((void *)(uintptr_t)in, in_len, "r")
                       : fopen("/dev/null", "r");
    stdout = open_memstream(out, out_len);
    highest = dup(directory);
    if (stdin == NULL || stdout == NULL || highest < 0)
        abort();
    stderr = nowhere;
    /* What getopt remembers of the last command line. */
    optind = 0;
    (void)getopt(1, none, "");
    open_count = 0;
    waits = 0;
    /* It leaves what it has to its process's end. */
    workers_leaks(false);
    running = 1;
    if (setjmp(ended) == 0)
        status = shdict_main(argc, argv);
    running = 0;
    workers_leaks(true);
    while (open_count > 0)
        (void)shd_segment_close(open_segments[--open_count]);
    (void)fclose(stdin);
    (void)fclose(stdout);
    stdin = real_in, stdout = real_out, stderr = real_err;
    (void)close_range((unsigned)highest, ~0u, 0);
    (void)sigprocmask(SIG_SETMASK, &mask, NULL);
    if (made)
        clean_up();
    if (fchdir(before) != 0)
        abort();
    return status;
}

/* ---- what it asks the system for ------------------------------------------- */

#define WRAP(type, name, ...)                                                 \
    type __real_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__);                                          \
    __attribute__((no_sanitize("address"))) type __wrap_##name(__VA_ARGS__)

WRAP(void, exit, int code)
{
    if (!running)
        __real_exit(code);
    status = code;
    longjmp(ended, 1);
}

WRAP(void, _exit, int code)
{
    if (!running)
        __real__exit(code);
    status = code;
    longjmp(ended, 1);
}

/* Of our directory, or of this process. */
static int allowed(const char *path)
{
    if (!running || strncmp(path, "/proc/self/", 11) == 0 ||
        strncmp(path, "/proc/sys/", 10) == 0)
        return 1;
    if (path[0] != '/' && strstr(path, "..") == NULL)
        return 1;
    errno = EACCES;
    return 0;
}

WRAP(int, open, const char *path, int flags, ...)
{
    va_list more;
    int mode;

    va_start(more, flags);
    mode = va_arg(more, int);
    va_end(more);
    if (!allowed(path))
        return -1;
    made |= running && (flags & (O_CREAT | O_TMPFILE)) != 0;
    return __real_open(path, flags, mode);
}

WRAP(int, unlink, const char *path)
{
    return allowed(path) ? __real_unlink(path) : -1;
}

WRAP(int, access, const char *path, int how)
{
    return allowed(path) ? __real_access(path, how) : -1;
}

WRAP(int, rename, const char *from, const char *to)
{
    return allowed(from) && allowed(to) ? __real_rename(from, to) : -1;
}

WRAP(int, renameat2, int at, const char *from, int at2, const char *to,
     unsigned flags)
{
    made |= running;
    return allowed(from) && allowed(to)
               ? __real_renameat2(at, from, at2, to, flags)
               : -1;
}

WRAP(int, linkat, int at, const char *from, int at2, const char *to,
     int flags)
{
    made |= running;
    return allowed(from) && allowed(to)
               ? __real_linkat(at, from, at2, to, flags)
               : -1;
}

WRAP(int, mkstemp, char *path)
{
    made |= running;
    return allowed(path) ? __real_mkstemp(path) : -1;
}

WRAP(FILE *, fopen, const char *path, const char *how)
{
    made |= running;
    return allowed(path) ? __real_fopen(path, how) : NULL;
}

WRAP(ssize_t, read, int fd, void *to, size_t n)
{
    if (!running || fd != STDIN_FILENO)
        return __real_read(fd, to, n);
    if (n > input_left)
        n = input_left;
    memcpy(to, input, n);
    input += n;
    input_left -= n;
    return (ssize_t)n;
}

void fuzz_waits(void)
{
    if (!running || waits++ < WAITS_MAX)
        return;
    status = 0;
    longjmp(ended, 1);
}

WRAP(int, nanosleep, const struct timespec *t, struct timespec *left)
{
    if (!running)
        return __real_nanosleep(t, left);
    fuzz_waits();
    return 0;
}

/* No process, no signal, no thread, no terminal, no socket. */
#define REFUSED(type, name, no, ...)                                          \
    WRAP(type, name, __VA_ARGS__)                                             \
    {                                                                         \
        errno = EACCES;                                                       \
        return no;                                                            \
    }
WRAP(pid_t, fork, void)
{
    if (!running) /* a sanitizer's, to name what it has found */
        return __real_fork();
    errno = EACCES;
    return -1;
}

REFUSED(int, execvp, -1, const char *f __attribute__((unused)),
        char *const a[] __attribute__((unused)))
REFUSED(int, socket, -1, int d __attribute__((unused)),
        int t __attribute__((unused)), int p __attribute__((unused)))
REFUSED(int, pidfd_open, -1, pid_t p __attribute__((unused)),
        unsigned f __attribute__((unused)))
REFUSED(int, pidfd_send_signal, -1, int fd __attribute__((unused)),
        int n __attribute__((unused)), void *i __attribute__((unused)),
        unsigned f __attribute__((unused)))
REFUSED(int, setrlimit, 0, int r __attribute__((unused)),
        const void *l __attribute__((unused)))
REFUSED(int, epoll_create1, -1, int f __attribute__((unused)))
REFUSED(int, signalfd, -1, int fd __attribute__((unused)),
        const sigset_t *m __attribute__((unused)),
        int f __attribute__((unused)))
/* Of cairo, which opens files by itself. */
REFUSED(void *, dlopen, NULL, const char *f __attribute__((unused)),
        int how __attribute__((unused)))
REFUSED(void *, MHD_start_daemon, NULL, unsigned f __attribute__((unused)), ...)

/* ---- what it has open ------------------------------------------------------- */

static int opened(int rc, shd_segment *const *out)
{
    if (rc == SHD_OK && running && open_count < SEGMENTS)
        open_segments[open_count++] = *out;
    return rc;
}

#define HELD 2u
static shd_segment *held[HELD]; /* the fuzzer's: attached to without a call */

void cli_holds(shd_segment *s)
{
    unsigned i = 0;

    while (i < HELD && held[i] != NULL)
        i++;
    if (i < HELD)
        held[i] = s;
}

static bool is_held(const char *name, const struct shd_segment_options *o,
                    shd_segment **out)
{
    char own[24];

    if (!running || (o != NULL && (o->flags & SHD_ATTACH_READONLY) != 0))
        return false;
    for (unsigned i = 0; i < HELD && held[i] != NULL; i++) {
        snprintf(own, sizeof(own), "fd:%d", held[i]->segment.fd);
        if (strcmp(own, name) != 0)
            continue;
        held[i]->open++;
        *out = held[i];
        return true;
    }
    return false;
}

#define OPENS(name, has)                                                      \
    WRAP(int, name, const char *n, const struct shd_segment_options *o,       \
         shd_segment **out)                                                   \
    {                                                                         \
        return opened(has(n, o, out) ? SHD_OK : __real_##name(n, o, out),     \
                      out);                                                   \
    }
OPENS(shd_segment_attach, is_held)
OPENS(shd_segment_open, is_held)
#define is_made(n, o, out) false
OPENS(shd_segment_create, is_made)

WRAP(int, shd_segment_close, shd_segment *s)
{
    for (unsigned i = 0; running && i < open_count; i++) {
        if (open_segments[i] != s)
            continue;
        open_segments[i] = open_segments[--open_count];
        break;
    }
    return __real_shd_segment_close(s);
}
