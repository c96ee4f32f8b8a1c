/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/step/stepping.h"
#include "shm/guard/robust.h"
#include "tests/crash/trace.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef __x86_64__
#error "the trap flag and the registers are those of x86-64"
#endif

#define PAGE 4096u
#define TRAP_FLAG 0x100
#define JOURNAL_BYTES (1ull << 32) /* of address space */
#define ROBUST_LIST_MAX 2048
#define OPEN_MAX 4u /* pages one instruction writes to */

bool stepping_by_ptrace;

static unsigned char *base, *shadow;
static size_t size;

static struct stepping_journal *journal;
static const unsigned char *began_as;
static struct robust_list_head *robust; /* of the worker's thread */
static uint32_t worker;                 /* its thread id */
static bool stepping;
static uint64_t count, stop_at;
static void (*last_words)(void);
static uintptr_t open_page[OPEN_MAX];
static unsigned opened;
static uint64_t ip;
static struct stepping_moment last; /* without its changes */

void trace_segment(const void *segment, size_t len)
{
    base = (unsigned char *)(uintptr_t)segment;
    size = len;
}

/* ---- journals ---------------------------------------------------------- */

struct stepping_journal *stepping_journal_new(void)
{
    void *p = mmap(NULL, JOURNAL_BYTES, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void stepping_journal_free(struct stepping_journal *j)
{
    if (j != NULL)
        (void)munmap(j, JOURNAL_BYTES);
}

void stepping_record(struct stepping_journal *j, const unsigned char *image)
{
    journal = j;
    began_as = image;
    if (j != NULL)
        memset(j, 0, sizeof(*j));
}

static size_t moment_bytes(const struct stepping_moment *m)
{
    return sizeof(*m) + m->changes * sizeof(m->change[0]);
}

const struct stepping_moment *stepping_next(const struct stepping_journal *j,
                                            const struct stepping_moment *m)
{
    const unsigned char *p =
        m == NULL ? j->data : (const unsigned char *)m + moment_bytes(m);

    if (p == j->data + j->used)
        return NULL;
    return (const struct stepping_moment *)(const void *)p;
}

void stepping_apply(const struct stepping_moment *m, unsigned char *copy)
{
    for (uint32_t i = 0; i < m->changes; i++)
        memcpy(copy + m->change[i].at, &m->change[i].now, 8);
}

void stepping_die(const struct stepping_moment *m, unsigned char *copy)
{
    for (uint32_t i = 0; i < m->deads; i++) {
        uint32_t word;

        memcpy(&word, copy + m->dead_at[i], sizeof(word));
        word = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        memcpy(copy + m->dead_at[i], &word, sizeof(word));
    }
}

/* ---- the list of robust locks ------------------------------------------ */

/* As exit_robust_list() and handle_futex_death() of the kernel have it. */
static void add_dead(struct stepping_moment *m, uintptr_t entry, long offset)
{
    uintptr_t at = entry + (uintptr_t)offset;
    uint32_t word;

    if (at < (uintptr_t)base || at + 4 > (uintptr_t)base + size)
        return;
    memcpy(&word, (const void *)at, sizeof(word));
    if ((word & FUTEX_TID_MASK) != worker)
        return;
    for (uint32_t i = 0; i < m->deads; i++) {
        if (m->dead_at[i] == at - (uintptr_t)base)
            return;
    }
    if (m->deads == STEPPING_DEAD_MAX) {
        if (journal != NULL)
            journal->lost = true;
        return;
    }
    m->dead_at[m->deads++] = at - (uintptr_t)base;
}

static bool in_segment(uintptr_t p)
{
    return p >= (uintptr_t)base && p < (uintptr_t)base + size;
}

static void find_dead(struct stepping_moment *m,
                      const struct robust_list_head *head)
{
    uintptr_t pending = (uintptr_t)head->list_op_pending & ~1ul;
    uintptr_t entry = (uintptr_t)head->list.next & ~1ul;

    m->deads = 0;
    memset(m->dead_at, 0, sizeof(m->dead_at));
    for (int i = 0; in_segment(entry); i++) {
        uintptr_t next;

        if (i == ROBUST_LIST_MAX) {
            if (journal != NULL)
                journal->lost = true;
            break;
        }
        memcpy(&next, (const void *)entry, sizeof(next));
        if (entry != pending)
            add_dead(m, entry, head->futex_offset);
        entry = next & ~1ul;
    }
    if (pending != 0)
        add_dead(m, pending, head->futex_offset);
}

/* ---- moments ----------------------------------------------------------- */

static struct stepping_moment *begin_moment(void)
{
    struct stepping_moment *m;

    if (journal == NULL)
        return NULL;
    /* Room for all that one page can be. */
    if (journal->used + (1u << 20) > JOURNAL_BYTES - sizeof(*journal)) {
        journal->lost = true;
        return NULL;
    }
    m = (void *)(journal->data + journal->used);
    m->changes = 0;
    return m;
}

/* Compares with the shadow, and brings it up to date. */
static uint32_t note_page(struct stepping_moment *m, size_t at)
{
    uint32_t n = 0;

    if (memcmp(base + at, shadow + at, PAGE) == 0)
        return 0;
    for (size_t i = at; i < at + PAGE; i += 8) {
        if (memcmp(base + i, shadow + i, 8) == 0)
            continue;
        n++;
        memcpy(shadow + i, base + i, 8);
        if (m == NULL)
            continue;
        m->change[m->changes].at = i;
        memcpy(&m->change[m->changes].now, base + i, 8);
        m->changes++;
    }
    return n;
}

/* An entry, if the segment or what death would do to it is another. */
static void end_moment(struct stepping_moment *m, uint32_t changes,
                       const struct robust_list_head *head)
{
    struct stepping_moment now;

    memset(&now, 0, sizeof(now));
    find_dead(&now, head);
    if (changes == 0 && now.deads == last.deads &&
        memcmp(now.dead_at, last.dead_at, sizeof(now.dead_at)) == 0)
        return;
    last = now;
    count++;
    if (m == NULL)
        return;
    m->ip = ip;
    m->deads = now.deads;
    memcpy(m->dead_at, now.dead_at, sizeof(now.dead_at));
    journal->moments++;
    journal->used += moment_bytes(m);
}

static void note_all(const struct robust_list_head *head)
{
    struct stepping_moment *m = begin_moment();
    uint32_t n = 0;

    for (size_t at = 0; at < size; at += PAGE)
        n += note_page(m, at);
    end_moment(m, n, head);
}

static void protect(uintptr_t at, size_t len, int protection)
{
    if (mprotect((void *)at, len, protection) != 0)
        abort();
}

/* ---- faults and traps -------------------------------------------------- */

static _Noreturn void die(void)
{
    /* The kernel could not mark a lock in a page that is protected. */
    stepping = false;
    protect((uintptr_t)base, size, PROT_READ | PROT_WRITE);
    if (last_words != NULL)
        last_words();
    (void)kill(getpid(), SIGKILL);
    abort();
}

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *c = context;
    uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1);

    if (!stepping || !in_segment(page) || opened == OPEN_MAX) {
        (void)signal(signal_number, SIG_DFL); /* and it comes again */
        return;
    }
    ip = (uint64_t)c->uc_mcontext.gregs[REG_RIP];
    if (opened == 0) {
        /* The list may have changed since the last write. */
        end_moment(begin_moment(), 0, robust);
        if (stop_at != 0 && count + 1 >= stop_at)
            die();
        if (journal != NULL)
            journal->writes++;
    }
    open_page[opened++] = page;
    protect(page, PAGE, PROT_READ | PROT_WRITE);
    c->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_trap(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *c = context;
    struct stepping_moment *m = begin_moment();
    uint32_t n = 0;

    (void)signal_number, (void)info;
    if (opened == 0)
        abort();
    for (unsigned i = 0; i < opened; i++) {
        n += note_page(m, open_page[i] - (uintptr_t)base);
        protect(open_page[i], PAGE, PROT_READ);
    }
    opened = 0;
    end_moment(m, n, robust);
    c->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

static void handle(int number, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction a;

    memset(&a, 0, sizeof(a));
    a.sa_sigaction = handler;
    a.sa_flags = SA_SIGINFO;
    if (sigaction(number, &a, NULL) != 0)
        abort();
}

/* ---- another process that steps ---------------------------------------- */

struct reference {
    volatile bool attached, ended;
    pid_t tracer;
};
static struct reference *reference;

static void peek(pid_t pid, const void *at, size_t len, void *to)
{
    for (size_t i = 0; i < len; i += 8) {
        long word;

        errno = 0;
        word = ptrace(PTRACE_PEEKDATA, pid, (const char *)at + i, NULL);
        if (errno != 0)
            _exit(1);
        memcpy((char *)to + i, &word, 8);
    }
}

static void wait_for_stop(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
        _exit(1);
}

static _Noreturn void trace_it(pid_t pid)
{
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0 ||
        ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) != 0)
        _exit(1);
    wait_for_stop(pid);
    reference->attached = true;
    while (!reference->ended) {
        struct robust_list_head head;

        errno = 0;
        ip = (uint64_t)ptrace(PTRACE_PEEKUSER, pid,
                              offsetof(struct user_regs_struct, rip), NULL);
        if (errno != 0 || ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0)
            _exit(1);
        wait_for_stop(pid);
        if (journal != NULL)
            journal->steps++;
        peek(pid, robust, sizeof(head), &head);
        note_all(&head);
    }
    _exit(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0 ? 0 : 1);
}

static void reference_begin(void)
{
    pid_t pid = getpid(), tracer;

    reference = mmap(NULL, sizeof(*reference), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (reference == MAP_FAILED)
        abort();
    tracer = fork();
    if (tracer < 0)
        abort();
    if (tracer == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        trace_it(pid);
    }
    reference->tracer = tracer;
    while (!reference->attached)
        (void)sched_yield();
}

static void reference_end(void)
{
    int status;

    reference->ended = true;
    if (waitpid(reference->tracer, &status, 0) != reference->tracer ||
        !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        printf("    the process that steps by ptrace failed\n");
        fflush(stdout);
        abort();
    }
    count = journal != NULL ? journal->moments : 0;
}

/* ---- tests/crash/trace.h ----------------------------------------------- */

void trace_begin(uint64_t stop, void (*at_death)(void))
{
    size_t len;

    count = 0;
    stop_at = stop;
    last_words = at_death;
    opened = 0;
    ip = 0;
    memset(&last, 0, sizeof(last));
    worker = (uint32_t)getpid(); /* its only thread */
    shadow = mmap(NULL, size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (shadow == MAP_FAILED ||
        syscall(SYS_get_robust_list, 0, &robust, &len) != 0)
        abort();
    memcpy(shadow, journal != NULL ? began_as : base, size);
    note_all(robust);
    if (stepping_by_ptrace && stop == 0) {
        reference_begin();
        return;
    }
    handle(SIGSEGV, on_fault);
    handle(SIGTRAP, on_trap);
    protect((uintptr_t)base, size, PROT_READ);
    stepping = true;
}

uint64_t trace_end(void)
{
    if (stepping_by_ptrace && stop_at == 0) {
        reference_end();
        return count;
    }
    stepping = false;
    ip = 0;
    end_moment(begin_moment(), 0, robust);
    protect((uintptr_t)base, size, PROT_READ | PROT_WRITE);
    return count;
}

/* ---- calls ------------------------------------------------------------- */

#define WRAP(type, name, ...)                                                 \
    type __real_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__)

/* A hole that it makes changes the segment without a store. */
WRAP(int, fallocate, int fd, int mode, off_t at, off_t len)
{
    int rc = __real_fallocate(fd, mode, at, len);

    if (stepping) {
        ip = 0;
        note_all(robust);
    }
    return rc;
}

WRAP(int, robust_wait, uint32_t *word, const struct timespec *until)
{
    (void)until;
    /* Nobody else is alive: what is not free now never will be. */
    int rc = robust_trylock(word);
    return rc == EBUSY ? ETIMEDOUT : rc;
}

/* Time stands still, so that a run repeats. */
WRAP(int, clock_gettime, clockid_t id, struct timespec *t)
{
    (void)id;
    t->tv_sec = 1000000;
    t->tv_nsec = 500000;
    return 0;
}
