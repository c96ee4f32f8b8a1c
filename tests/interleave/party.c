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

#ifdef PARTY_COUNTS
#include <gcov.h>
#endif

#define CONDUCTOR 99u
#define PATIENCE_MS 20000
#define GLANCE_MS 50 /* between two looks whether a party has died */

/* Shared by all of them. */
static struct stage {
    uint32_t turn;
    uint64_t ticks;
    uint64_t until[PARTIES_MAX];
    bool one; /* who has the turn stops after an operation */
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

static void hook_load(const volatile void *p, size_t len)
{
    (void)len;
    if ((uintptr_t)p >= low && (uintptr_t)p < high)
        point();
}

static void hook_store(const volatile void *p, size_t len)
{
    hook_load(p, len);
}

#include "tests/hooks/hooks.h"

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
    if (stage->one)
        pause_as(PARTY_STOPPED);
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
#ifdef PARTY_COUNTS
    /* It is killed: what it has counted is kept before. */
    __gcov_dump();
#endif
    pause_as(PARTY_DONE);
    /* Alive until party_end: an end is no death by chance. */
    for (;;)
        (void)pause();
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

uint32_t party_one(uint32_t i)
{
    uint32_t status;

    stage->one = true;
    status = party_go_on(i, PARTY_UNLIMITED);
    stage->one = false;
    return status;
}

void party_kill(uint32_t i)
{
    int status;

    stage->party[i].killed = ++stage->ticks;
    (void)kill(pid[i], SIGKILL);
    while (waitpid(pid[i], &status, 0) < 0 && errno == EINTR)
        ;
    pid[i] = 0;
    stage->party[i].status = PARTY_DEAD;
}

void party_end(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (pid[i] != 0)
            party_kill(i);
    }
}

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
