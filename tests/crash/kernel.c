/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guard/robust.c with the thread ids of workers that are no threads, and what
 * the kernel does to the word at a death (crash.c compares with real ones).
 */
#include "tests/crash/kernel.h"
#include "tests/crash/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Thread ids that no thread has: over the largest pid_max. */
#define TID_FIRST 0x10000000u
#define LIVENESS_AT (1ll << 40)
#define FD_STAT (1 << 28)
#define PID 4711
#define KICKED_MAX 64u

static bool simulating, simulating_locks;
static uint32_t runs, alive;
static uint32_t byte_of[KERNEL_BYTES]; /* worker + 1; 0: free */
static uint32_t given[KERNEL_BYTES];   /* the same, as the states begin */
static const uint32_t *kicked[KICKED_MAX]; /* all their waiters were woken */
static uint32_t kicks;

void kernel_simulate(bool on, bool locks)
{
    simulating = on;
    simulating_locks = on && locks;
}

void kernel_give_byte(uint32_t index, uint32_t worker)
{
    given[index] = worker + 1;
}

void kernel_forget_bytes(void)
{
    memset(given, 0, sizeof(given));
}

void kernel_begin(uint32_t living)
{
    memcpy(byte_of, given, sizeof(byte_of));
    alive = living;
    kicks = 0;
}

void kernel_run(uint32_t who)
{
    runs = who;
}

static bool byte_is_locked(uint32_t index)
{
    uint32_t holder = byte_of[index];

    return holder != 0 && (alive >> (holder - 1) & 1) != 0;
}

uint64_t kernel_state(void)
{
    uint64_t h = alive;

    for (uint32_t i = 0; i < KERNEL_BYTES; i++) {
        h *= 0x9e3779b97f4a7c15ull;
        h ^= h >> 32;
        if (byte_is_locked(i))
            h += byte_of[i];
    }
    return h;
}

static uint32_t tid_of(uint32_t worker)
{
    return TID_FIRST + worker;
}

/* ---- locks ---------------------------------------------------------------- */

static bool is_simulated(const uint32_t *word)
{
    return simulating_locks && trace_in_segment(word);
}

static void changes(uint32_t *word)
{
    if (trace_recording())
        trace_store(word, 8, true, TRACE_STATE);
}

static int simulated_trylock(uint32_t *word)
{
    uint32_t old = *word;

    trace_load(word, 8);
    if ((old & FUTEX_TID_MASK) != 0)
        return EBUSY;
    changes(word);
    *word = tid_of(runs) | (old & FUTEX_WAITERS);
    return (old & FUTEX_OWNER_DIED) != 0 ? EOWNERDEAD : 0;
}

static int simulated_unlock(uint32_t *word)
{
    trace_load(word, 8);
    if ((*word & FUTEX_TID_MASK) != tid_of(runs))
        return EPERM;
    changes(word);
    *word = 0;
    return 0;
}

void kernel_die(const struct segment *s, uint32_t worker)
{
    for (uint32_t i = 0; i < s->locks_max; i++) {
        uint32_t *word = &guard_at(s, i)->lock;

        if ((*word & FUTEX_TID_MASK) != tid_of(worker))
            continue;
        changes(word);
        *word = (*word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
    }
}

#define WRAP(type, name, ...)                                                 \
    type __real_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__)

WRAP(int, robust_trylock, uint32_t *word)
{
    if (is_simulated(word))
        return simulated_trylock(word);
    return __real_robust_trylock(word);
}

WRAP(int, robust_wait, uint32_t *word, const struct timespec *until)
{
    (void)until;
    /* Nobody else runs: what is not free now never will be. */
    int rc = __wrap_robust_trylock(word);
    return rc == EBUSY ? ETIMEDOUT : rc;
}

WRAP(int, robust_unlock, uint32_t *word)
{
    if (is_simulated(word))
        return simulated_unlock(word);
    return __real_robust_unlock(word);
}

/* ---- the file ------------------------------------------------------------- */

#define PAGE_WORDS 512u

/* Whole pages quickly: most of what is given back was never touched. */
static bool all_zero(const uint64_t *p, size_t n)
{
    static const uint64_t zeroes[PAGE_WORDS];
    size_t i = 0;

    while (n - i >= PAGE_WORDS) {
        if (memcmp(p + i, zeroes, sizeof(zeroes)) != 0)
            return false;
        i += PAGE_WORDS;
    }
    while (i < n && p[i] == 0)
        i++;
    return i == n;
}

/* crash.c has one segment, so that is the file. */
static void punch(uint64_t at, uint64_t len)
{
    uint64_t *p = trace_at(at);
    bool first = true;

    trace_overwrite(p, len);
    for (size_t i = 0; i < len / 8; i++) {
        size_t left = len / 8 - i;

        if (i % PAGE_WORDS == 0 &&
            all_zero(&p[i], left < PAGE_WORDS ? left : PAGE_WORDS)) {
            i += PAGE_WORDS - 1;
            continue;
        }
        if (p[i] == 0)
            continue;
        if (trace_recording())
            trace_store(&p[i], 8, first, 0);
        p[i] = 0;
        first = false;
    }
}

WRAP(int, fallocate, int fd, int mode, off_t at, off_t len)
{
    bool zeroes = (mode & FALLOC_FL_PUNCH_HOLE) != 0;

    if (simulating_locks) {
        if (zeroes)
            punch((uint64_t)at, (uint64_t)len);
        return 0; /* all of it has been committed */
    }
    /* What changes nothing is no point. */
    if (simulating && zeroes &&
        !all_zero(trace_at((uint64_t)at), (size_t)len / 8))
        trace_point();
    return __real_fallocate(fd, mode, at, len);
}

WRAP(int, fcntl, int fd, int command, ...)
{
    va_list more;
    long argument;
    struct flock *l;
    uint32_t index;

    va_start(more, command);
    argument = va_arg(more, long);
    va_end(more);
    if (!simulating || (command != F_OFD_SETLK && command != F_OFD_GETLK))
        return __real_fcntl(fd, command, argument);
    l = (struct flock *)argument;
    index = (uint32_t)(l->l_start - LIVENESS_AT);
    if (index >= KERNEL_BYTES) {
        errno = EINVAL;
        return -1;
    }
    if (byte_is_locked(index) && byte_of[index] != runs + 1) {
        if (command == F_OFD_GETLK)
            return 0; /* the lock that is in the way: l_type is as asked */
        errno = EAGAIN;
        return -1;
    }
    if (command == F_OFD_GETLK)
        l->l_type = F_UNLCK;
    else
        byte_of[index] = l->l_type == F_UNLCK ? 0 : runs + 1;
    return 0;
}

/* ---- processes ------------------------------------------------------------ */

WRAP(int, kill, pid_t pid, int signal)
{
    uint32_t worker = (uint32_t)pid - TID_FIRST;

    if (!simulating || worker >= KERNEL_WORKERS)
        return __real_kill(pid, signal);
    if ((alive >> worker & 1) != 0)
        return 0;
    errno = ESRCH;
    return -1;
}

WRAP(pid_t, getpid, void)
{
    return simulating ? PID : __real_getpid();
}

static void note_kick(const uint32_t *word)
{
    if (kicks < KICKED_MAX && !kernel_kicked(word))
        kicked[kicks++] = word;
}

bool kernel_kicked(const uint32_t *word)
{
    for (uint32_t i = 0; i < kicks; i++) {
        if (kicked[i] == word)
            return true;
    }
    return false;
}

WRAP(long, syscall, long number, ...)
{
    va_list more;
    long a[6];

    va_start(more, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(more, long);
    va_end(more);
    if (simulating && number == SYS_futex) { /* nobody sleeps */
        if (a[1] == FUTEX_WAKE && a[2] == INT_MAX)
            note_kick((const uint32_t *)a[0]);
        return 0;
    }
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

WRAP(int, open, const char *path, int flags, ...)
{
    va_list more;
    int mode;

    va_start(more, flags);
    mode = va_arg(more, int);
    va_end(more);
    if (simulating && strcmp(path, "/proc/self/stat") == 0)
        return FD_STAT;
    return __real_open(path, flags, mode);
}

WRAP(ssize_t, read, int fd, void *to, size_t n)
{
    static const char text[] =
        "1 (worker) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";

    if (fd != FD_STAT)
        return __real_read(fd, to, n);
    memcpy(to, text, sizeof(text));
    return (ssize_t)sizeof(text) - 1;
}

WRAP(int, close, int fd)
{
    return fd == FD_STAT ? 0 : __real_close(fd);
}

WRAP(int, stat, const char *path, struct stat *st)
{
    static struct stat ns;

    if (strcmp(path, "/proc/self/ns/pid") != 0)
        return __real_stat(path, st);
    if (ns.st_ino == 0 && __real_stat(path, &ns) != 0)
        return -1;
    *st = ns;
    return 0;
}

/* Time stands still, so that a run repeats. */
WRAP(int, clock_gettime, clockid_t id, struct timespec *t)
{
    (void)id;
    t->tv_sec = 1000000;
    t->tv_nsec = 500000;
    return 0;
}
