/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/interleave/party.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONDUCTOR 99u
#define PATIENCE_MS 20000
#define GLANCE_MS 50 /* between two looks whether a party has died */

/* Shared by all of them. */
static struct stage {
    uint32_t turn;
    uint64_t ticks;
    uint64_t until[PARTIES_MAX];
    struct party party[PARTIES_MAX];
} *stage;

static uintptr_t low, high;
static uint32_t self = CONDUCTOR;
static bool playing; /* this process is a party, and in an operation */
static pid_t pid[PARTIES_MAX];

void party_segment(const void *base, size_t len)
{
    low = (uintptr_t)base;
    high = low + len;
}

struct party *party_at(uint32_t i)
{
    return &stage->party[i];
}

/* ---- turns --------------------------------------------------------------- */

static bool has_died(uint32_t i)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)pid[i], &info, WEXITED | WNOHANG | WNOWAIT) ==
               0 &&
           info.si_pid != 0;
}

/* False: the party that has the turn has died, or hangs. */
static bool wait_for_turn(uint32_t who)
{
    for (int ms = 0; ms < PATIENCE_MS;) {
        uint32_t turn = __atomic_load_n(&stage->turn, __ATOMIC_SEQ_CST);
        const struct timespec glance = {.tv_nsec = GLANCE_MS * 1000000l};

        if (turn == who)
            return true;
        if (syscall(SYS_futex, &stage->turn, FUTEX_WAIT, turn, &glance, NULL,
                    0) == 0 ||
            errno != ETIMEDOUT)
            continue;
        if (who == CONDUCTOR) {
            ms += GLANCE_MS;
            if (turn < PARTIES_MAX && has_died(turn))
                return false;
        }
    }
    return false;
}

static void give_turn(uint32_t to)
{
    __atomic_store_n(&stage->turn, to, __ATOMIC_SEQ_CST);
    (void)syscall(SYS_futex, &stage->turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* In a party. */
static void pause_as(uint32_t status)
{
    stage->party[self].status = status;
    give_turn(CONDUCTOR);
    if (status != PARTY_DONE && !wait_for_turn(self))
        _exit(1);
}

static void point(void)
{
    if (!playing)
        return;
    if (stage->party[self].accesses == stage->until[self])
        pause_as(PARTY_STOPPED);
    stage->party[self].accesses++;
}

static void access_to(const volatile void *p)
{
    if ((uintptr_t)p >= low && (uintptr_t)p < high)
        point();
}

void party_op_begins(void)
{
    struct party *p = &stage->party[self];

    p->began[p->ops_begun++] = ++stage->ticks;
    playing = true;
}

void party_op_ends(const char *result)
{
    struct party *p = &stage->party[self];

    playing = false;
    snprintf(p->result[p->ops_ended], sizeof(p->result[0]), "%s", result);
    p->ended[p->ops_ended++] = ++stage->ticks;
}

static _Noreturn void be_party(uint32_t i, void (*prepare)(uint32_t),
                               void (*run)(uint32_t))
{
    self = i;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        _exit(1);
    prepare(i);
    pause_as(PARTY_STOPPED);
    run(i);
    pause_as(PARTY_DONE);
    _exit(0);
}

int party_start(uint32_t i, void (*prepare)(uint32_t i),
                void (*run)(uint32_t i))
{
    if (stage == NULL) {
        stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (stage == MAP_FAILED) {
            perror("mmap");
            abort();
        }
    }
    memset(&stage->party[i], 0, sizeof(stage->party[i]));
    stage->until[i] = 0;
    stage->turn = i;
    fflush(stdout);
    pid[i] = fork();
    if (pid[i] < 0) {
        perror("fork");
        return -1;
    }
    if (pid[i] == 0)
        be_party(i, prepare, run);
    return wait_for_turn(CONDUCTOR) ? 0 : -1;
}

uint32_t party_go_on(uint32_t i, uint64_t accesses)
{
    struct party *p = &stage->party[i];

    if (p->status >= PARTY_DONE)
        return p->status;
    stage->until[i] = accesses == PARTY_UNLIMITED ? PARTY_UNLIMITED
                                                  : p->accesses + accesses;
    give_turn(i);
    if (!wait_for_turn(CONDUCTOR))
        p->status = PARTY_BROKEN;
    return p->status;
}

void party_kill(uint32_t i)
{
    int status;

    (void)kill(pid[i], SIGKILL);
    while (waitpid(pid[i], &status, 0) < 0 && errno == EINTR)
        ;
    pid[i] = 0;
    stage->party[i].status = PARTY_DEAD;
}

void party_end(uint32_t n)
{
    int status;

    for (uint32_t i = 0; i < n; i++) {
        if (pid[i] == 0)
            continue;
        if (stage->party[i].status != PARTY_DONE)
            party_kill(i);
        else
            while (waitpid(pid[i], &status, 0) < 0 && errno == EINTR)
                ;
        pid[i] = 0;
    }
}

/* ---- what the compiler calls -------------------------------------------- */

#define HOOK(name, ...)                                                       \
    void name(__VA_ARGS__);                                                   \
    void name(__VA_ARGS__)

HOOK(__tsan_init, void) {}
HOOK(__tsan_func_entry, void *p) { (void)p; }
HOOK(__tsan_func_exit, void) {}
HOOK(__tsan_read_range, void *p, size_t n) { (void)n, access_to(p); }
HOOK(__tsan_write_range, void *p, size_t n) { (void)n, access_to(p); }
HOOK(__tsan_atomic_thread_fence, int order) { (void)order; }
HOOK(__tsan_atomic_signal_fence, int order) { (void)order; }

#define PLAIN(n)                                                              \
    HOOK(__tsan_read##n, void *p) { access_to(p); }                           \
    HOOK(__tsan_write##n, void *p) { access_to(p); }                          \
    HOOK(__tsan_volatile_read##n, void *p) { access_to(p); }                  \
    HOOK(__tsan_volatile_write##n, void *p) { access_to(p); }                 \
    HOOK(__tsan_unaligned_read##n, void *p) { access_to(p); }                 \
    HOOK(__tsan_unaligned_write##n, void *p) { access_to(p); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

/* Here the hook is the access. */
#define RMW(bits, type, name, builtin)                                        \
    type __tsan_atomic##bits##_##name(volatile type *p, type v, int order);   \
    type __tsan_atomic##bits##_##name(volatile type *p, type v, int order)    \
    {                                                                         \
        (void)order;                                                          \
        access_to(p);                                                         \
        return builtin(p, v, __ATOMIC_SEQ_CST);                               \
    }
#define ATOMIC(bits, type)                                                    \
    type __tsan_atomic##bits##_load(const volatile type *p, int order);       \
    type __tsan_atomic##bits##_load(const volatile type *p, int order)        \
    {                                                                         \
        (void)order;                                                          \
        access_to(p);                                                         \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                          \
    }                                                                         \
    HOOK(__tsan_atomic##bits##_store, volatile type *p, type v, int order)    \
    {                                                                         \
        (void)order;                                                          \
        access_to(p);                                                         \
        __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                             \
    }                                                                         \
    RMW(bits, type, exchange, __atomic_exchange_n)                            \
    RMW(bits, type, fetch_add, __atomic_fetch_add)                            \
    RMW(bits, type, fetch_sub, __atomic_fetch_sub)                            \
    RMW(bits, type, fetch_and, __atomic_fetch_and)                            \
    RMW(bits, type, fetch_or, __atomic_fetch_or)                              \
    RMW(bits, type, fetch_xor, __atomic_fetch_xor)                            \
    int __tsan_atomic##bits##_compare_exchange_strong(                        \
        volatile type *p, type *old, type v, int order, int failed);          \
    int __tsan_atomic##bits##_compare_exchange_strong(                        \
        volatile type *p, type *old, type v, int order, int failed)           \
    {                                                                         \
        (void)order, (void)failed;                                            \
        access_to(p);                                                         \
        return __atomic_compare_exchange_n(p, old, v, 0, __ATOMIC_SEQ_CST,    \
                                           __ATOMIC_SEQ_CST);                 \
    }                                                                         \
    type __tsan_atomic##bits##_compare_exchange_val(                          \
        volatile type *p, type old, type v, int order, int failed);           \
    type __tsan_atomic##bits##_compare_exchange_val(                          \
        volatile type *p, type old, type v, int order, int failed)            \
    {                                                                         \
        (void)__tsan_atomic##bits##_compare_exchange_strong(p, &old, v,       \
                                                            order, failed);   \
        return old;                                                           \
    }
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

/* ---- calls -------------------------------------------------------------- */

#define WRAP(type, name, ...)                                                 \
    type __real_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__)

/* Word by word, as the library's own loops over shared bytes are. */
WRAP(void *, memcpy, void *to, const void *from, size_t n)
{
    bool shared = ((uintptr_t)to >= low && (uintptr_t)to < high) ||
                  ((uintptr_t)from >= low && (uintptr_t)from < high);

    if (!playing || !shared)
        return __real_memcpy(to, from, n);
    for (size_t i = 0, step; i < n; i += step) {
        step = 8 - (((uintptr_t)to + i) & 7);
        if (step > n - i)
            step = n - i;
        point();
        (void)__real_memcpy((char *)to + i, (const char *)from + i, step);
    }
    return to;
}

WRAP(int, robust_trylock, uint32_t *word)
{
    point();
    return __real_robust_trylock(word);
}

/* Whoever would sleep says so, and tries again at its next turn. */
WRAP(int, robust_wait, uint32_t *word, const struct timespec *until)
{
    int rc;

    (void)until;
    point();
    while ((rc = __real_robust_trylock(word)) == EBUSY && playing)
        pause_as(PARTY_BLOCKED);
    return rc;
}

WRAP(int, robust_unlock, uint32_t *word)
{
    point();
    return __real_robust_unlock(word);
}

/* Taking, letting go of, and looking at the byte by which a worker lives. */
WRAP(int, fcntl, int fd, int command, ...)
{
    va_list more;
    long argument;

    va_start(more, command);
    argument = va_arg(more, long);
    va_end(more);
    if (command == F_OFD_SETLK || command == F_OFD_GETLK)
        point();
    return __real_fcntl(fd, command, argument);
}

/* Time stands still, so that a schedule repeats. */
WRAP(int, clock_gettime, clockid_t id, struct timespec *t)
{
    (void)id;
    t->tv_sec = 1000000;
    t->tv_nsec = 500000;
    return 0;
}
