/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fuzz/robust_here.h"
#include "shm/base/clock.h"
#include "shm/dict/counters.h"

/* Thread ids that no thread has: over the largest pid_max. */
#define TID_FIRST 0x10000000u
#define LIVENESS_AT (1ll << 40)
#define BYTES 64u

#define KEPT 12u
#define DICTS 8u
#define RANGES 24u
#define PAGE 4096u
#define NEAR 16384u /* a hole that is not worth a call */
#define BLOCK 512u
#define LOOK 4096u /* inputs between two looks whether all stores were seen */
/* A thread that sleeps is woken by nobody, and looks by itself. */
#define WAIT_MS 250

static bool still;  /* so does time, */
static uint64_t slept_ns; /* but for who has waited for a lock */
static bool inside; /* an input runs */
/* Where every store is seen (FUZZ_TRACKS: CMakeLists.txt) the blocks that an
 * input has written are copied back before the next one. Elsewhere what has
 * memory is copied, the rest loses it again, and is zero. What inputs number 1,
 * 2, 4, 8 ... have used counts as having memory then: a page that most of them
 * use is cheaper to copy than to fault in. */
static struct kept {
    shd_segment *segment;
    unsigned char *image;
    struct range {
        uint64_t at, end;
    } data[RANGES];
    uint32_t ranges;
    unsigned char *used;    /* a byte a page */
    unsigned char *written; /* a byte a block, and eight more */
    uint64_t inputs;
    uint64_t incarnation, now_ms;
    struct shd_dict *handle[DICTS];
    struct dict dict[DICTS]; /* as a worker has it that has just attached */
    shd_segment *beside;     /* NULL: nobody */
    const unsigned char *view; /* NULL: none */
    uint64_t beside_incarnation;
} kept[KEPT];
static shd_segment *beside; /* for the segment that is kept next */
static const unsigned char *view, *view_next;
static shd_segment *segment;
static const unsigned char *base; /* its, */
static uint64_t size;             /* how long it is, */
static unsigned char *written;    /* and which blocks it has written */
static uint32_t runs;
static uint64_t incarnations[WORKERS];
static uint32_t byte_of[BYTES]; /* worker + 1; 0: free */

static bool armed, was_armed;
static uint64_t stores_left;
static uint64_t accesses_left; /* 0: none is waited for */
static void (*interrupt)(const void *at, size_t bytes);
#define MUTEXES 8u
static pthread_mutex_t *held[MUTEXES]; /* this process's, since it was armed */
static uint32_t held_count;
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
jmp_buf workers_death;

/* Who runs has that thread id, and tells the kernel there which lock it takes. */
static struct robust_list_head heads[WORKERS + 1];

static void run(uint32_t worker)
{
    runs = worker;
    robust_here_become(TID_FIRST + worker, &heads[worker]);
}

uint32_t workers_tid(uint32_t worker)
{
    return TID_FIRST + worker;
}

bool workers_inside(void)
{
    return inside;
}

bool fuzz_planted(void)
{
    return getenv("SHDICT_FUZZ_PLANT") != NULL;
}

/* ---- what was written ------------------------------------------------------ */

/* The compiler calls what uses it before each store. It must cost next to
 * nothing. */
#define PLAIN __attribute__((no_sanitize("address", "undefined", "coverage")))

PLAIN static inline void wrote(const void *p, uint64_t bytes)
{
    uint64_t at = (uint64_t)((const unsigned char *)p - base);

    if (at < size)
        written[at / BLOCK] = written[(at + bytes - 1) / BLOCK] = 1;
}

PLAIN void workers_wrote(const void *p, uint64_t bytes)
{
    uint64_t at = (uint64_t)((const unsigned char *)p - base);

    if (at >= size || bytes == 0)
        return;
    if (bytes > size - at)
        bytes = size - at;
    memset(written + at / BLOCK, 1,
           (size_t)((at + bytes - 1) / BLOCK - at / BLOCK) + 1);
}

bool workers_changed(void)
{
#ifdef FUZZ_TRACKS
    for (uint64_t i = 0; i < size / BLOCK; i += 8) {
        uint64_t some;

        memcpy(&some, written + i, 8);
        if (some != 0)
            return true;
    }
    return false;
#else
    return true;
#endif
}

#ifdef FUZZ_TRACKS
#define SEEN(name, ...)                                                       \
    void *__real___asan_##name(__VA_ARGS__);                                  \
    void *__wrap___asan_##name(__VA_ARGS__);                                  \
    PLAIN void *__wrap___asan_##name(__VA_ARGS__)
SEEN(memcpy, void *to, const void *from, size_t n)
{
    workers_wrote(to, n);
    return __real___asan_memcpy(to, from, n);
}

SEEN(memmove, void *to, const void *from, size_t n)
{
    workers_wrote(to, n);
    return __real___asan_memmove(to, from, n);
}

SEEN(memset, void *to, int c, size_t n)
{
    workers_wrote(to, n);
    return __real___asan_memset(to, c, n);
}
#endif

/* ---- an input ------------------------------------------------------------- */

void workers_build(void)
{
    still = true;
}

/* What has memory now, too. */
static void find_data(struct kept *k, const struct segment *g)
{
    uint64_t pages = g->size / PAGE;
    off_t end = 0;

    for (;;) {
        off_t at = lseek(g->fd, end, SEEK_DATA);

        if (at < 0)
            break;
        end = lseek(g->fd, at, SEEK_HOLE);
        if (end < at)
            abort();
        memset(k->used + at / PAGE, 1, (size_t)(end - at) / PAGE);
    }
    k->ranges = 0;
    for (uint64_t i = 0; i < pages; i++) {
        struct range *last = &k->data[k->ranges - (k->ranges > 0)];
        uint64_t at = i * PAGE;

        if (k->used[i] == 0)
            continue;
        if (k->ranges == 0 ||
            (at >= last->end + NEAR && k->ranges < RANGES))
            k->data[k->ranges++] = (struct range){at, at + PAGE};
        else
            last->end = at + PAGE;
    }
}

#ifdef FUZZ_TRACKS
/* A writer that is not seen would make an input depend on those before it. */
static void look_whether_all_was_seen(const struct kept *k,
                                      const struct segment *g)
{
    for (uint64_t at = 0; at < g->size; at += BLOCK) {
        if (memcmp(g->base + at, k->image + at, BLOCK) == 0)
            continue;
        while (g->base[at] == k->image[at])
            at++;
        fprintf(stderr, "workers: offset %" PRIu64 " was written, unseen\n", at);
        abort();
    }
}

PLAIN static void put_back(struct kept *k, const struct segment *g)
{
    uint64_t n = g->size / BLOCK, some;

    for (uint64_t i = 0; i < n; i += 8) {
        memcpy(&some, k->written + i, 8);
        for (uint64_t b = i; some != 0 && b < i + 8; b++) {
            if (k->written[b] != 0)
                memcpy(g->base + b * BLOCK, k->image + b * BLOCK, BLOCK);
        }
        if (some != 0)
            memset(k->written + i, 0, 8);
    }
    k->inputs++;
    if ((k->inputs & (k->inputs - 1)) == 0 || k->inputs % LOOK == 0)
        look_whether_all_was_seen(k, g);
}
#else
static void zero(const struct segment *g, uint64_t at, uint64_t end)
{
    if (at < end && fallocate(g->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              (off_t)at, (off_t)(end - at)) != 0)
        abort();
}

static void put_back(struct kept *k, const struct segment *g)
{
    uint64_t at = 0;

    if ((k->inputs & (k->inputs - 1)) == 0)
        find_data(k, g);
    k->inputs++;
    for (uint32_t i = 0; i < k->ranges; i++) {
        const struct range *r = &k->data[i];

        zero(g, at, r->at);
        memcpy(g->base + r->at, k->image + r->at, r->end - r->at);
        at = r->end;
    }
    zero(g, at, g->size);
}
#endif

void workers_keep(shd_segment *s)
{
    const struct segment *g = &s->segment;
    struct kept *k = kept;
    uint32_t n = 0;

    while (k->segment != NULL && k->segment != s)
        k++;
    if (k == kept + KEPT - 1)
        abort();
    free(k->image);
    free(k->used);
    free(k->written);
    *k = (struct kept){.segment = s,
                       .image = calloc(1, g->size),
                       .used = calloc(1, g->size / PAGE),
                       .written = calloc(1, g->size / BLOCK + 8),
                       .incarnation = s->env.incarnation,
                       .now_ms = clock_now_ms()};
    if (k->image == NULL || k->used == NULL || k->written == NULL)
        abort();
    find_data(k, g);
    k->inputs = 1;
    for (uint32_t i = 0; i < k->ranges; i++)
        memcpy(k->image + k->data[i].at, g->base + k->data[i].at,
               k->data[i].end - k->data[i].at);
    for (struct shd_dict *d = s->dicts; d != NULL && n < DICTS; d = d->next) {
        k->handle[n] = d;
        k->dict[n++] = d->dict;
    }
    k->view = view_next;
    view_next = NULL;
    k->beside = beside;
    for (struct shd_dict *d = beside == NULL ? NULL : beside->dicts;
         d != NULL && n < DICTS; d = d->next) {
        k->handle[n] = d;
        k->dict[n++] = d->dict;
    }
    if (beside != NULL)
        k->beside_incarnation = beside->env.incarnation;
    beside = NULL;
    still = false;
}

static struct kept *kept_of(const shd_segment *s)
{
    struct kept *k = kept;

    while (k->segment != s)
        k++;
    return k;
}

/* What a process knows of its dicts is a new one's. */
static void forget_dicts(void)
{
    const struct kept *k = kept_of(segment);

    for (uint32_t n = 0; n < DICTS && k->handle[n] != NULL; n++)
        k->handle[n]->dict = k->dict[n];
}

void workers_begin(shd_segment *s)
{
    struct kept *k = kept_of(s);

    put_back(k, &s->segment);
    memset(byte_of, 0, sizeof(byte_of));
    memset(incarnations, 0, sizeof(incarnations));
    segment = s;
    base = s->segment.base;
    size = s->segment.size;
    view = k->view;
    written = k->written;
    still = inside = true;
    clock_test_advance(k->now_ms - clock_now_ms());
    slept_ns = 0;
    memset(heads, 0, sizeof(heads));
    run(0);
    incarnations[0] = k->incarnation;
    byte_of[k->incarnation & 0xffff] = 1;
    s->env.incarnation = k->incarnation;
    s->forked = false;
    if (k->beside != NULL) {
        byte_of[k->beside_incarnation & 0xffff] = WORKERS + 1;
        k->beside->env.incarnation = k->beside_incarnation;
    }
    forget_dicts();
}

void workers_end(void)
{
    workers_leaks(true);
    still = inside = armed = false;
    accesses_left = 0;
    workers_refuse(0, 0);
    workers_refuse_clock(0);
    workers_wake_early(0);
    robust_here_become(0, NULL);
}

uint32_t workers_current(void)
{
    return runs;
}

void workers_become(uint32_t worker)
{
    incarnations[runs] = segment->env.incarnation;
    run(worker);
    segment->env.incarnation = incarnations[worker];
    forget_dicts();
    segment->env.stripe = counters_stripe(worker);
    for (struct shd_dict *d = segment->dicts; d != NULL; d = d->next)
        counters_move(&d->dict);
}

uint64_t workers_incarnation(uint32_t worker)
{
    return worker == runs ? segment->env.incarnation : incarnations[worker];
}

/* ---- beside ---------------------------------------------------------------- */

shd_segment *workers_beside(shd_segment *s)
{
    beside = malloc(sizeof(*beside));
    if (beside == NULL)
        abort();
    *beside = *s;
    beside->env.segment = &beside->segment;
    beside->env.incarnation = 0;
    beside->env.stripe = counters_stripe(WORKERS);
    beside->next = NULL;
    beside->dicts = NULL;
    beside->objects = NULL;
    beside->watches = NULL;
    beside->bell_fd = -1;
    return beside;
}

void workers_view(const shd_segment *s)
{
    view_next = s->segment.base;
}

uint32_t workers_enter_beside(void)
{
    uint32_t before = runs;

    was_armed = armed; /* nobody kills who works beside */
    armed = false;
    run(WORKERS);
    return before;
}

void workers_leave_beside(uint32_t before)
{
    armed = was_armed;
    run(before);
}

void workers_interrupt(uint64_t access,
                       void (*call)(const void *at, size_t bytes))
{
    if (!armed)
        held_count = 0;
    accesses_left = access;
    interrupt = call;
}

static void access_to(const void *p, size_t bytes)
{
    uint64_t at = (uint64_t)((uintptr_t)p - (uintptr_t)base);

    if (at >= size && view != NULL)
        at = (uint64_t)((uintptr_t)p - (uintptr_t)view);
    if (at >= size || --accesses_left > 0)
        return;
    /* Who has a process's mutex is waited for by nobody else in it. */
    if (held_count > 0)
        accesses_left = 1;
    else
        interrupt(base + at, bytes);
}

/* ---- deaths --------------------------------------------------------------- */

/* What the kernel does with the lock words at a thread's end. */
static void mark_locks(uint32_t worker)
{
    const struct segment *s = &segment->segment;

    for (uint32_t i = 0; i < s->locks_max; i++) {
        struct guard *g = guard_at(s, i);

        if ((g->lock & FUTEX_TID_MASK) != TID_FIRST + worker)
            continue;
        g->lock = (g->lock & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        workers_wrote(g, sizeof(*g));
        if (fuzz_planted())
            g->state = 0; /* the log is lost */
    }
}

void workers_kill(uint32_t worker)
{
    mark_locks(worker);
    heads[worker].list_op_pending = NULL;
    for (uint32_t i = 0; i < BYTES; i++) {
        if (byte_of[i] == worker + 1)
            byte_of[i] = 0;
    }
    if (worker == runs) {
        segment->env.incarnation = 0;
        run(runs);
    }
    incarnations[worker] = 0;
}

/* What a call had allocated that is cut off goes with its process. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));
static bool unwatched;

void workers_leaks(bool watch)
{
    if (unwatched == !watch || __lsan_disable == NULL)
        return;
    unwatched = !watch;
    (watch ? __lsan_enable : __lsan_disable)();
}

void workers_arm(uint64_t stop)
{
    workers_leaks(stop == 0);
    stores_left = stop;
    held_count = 0;
    armed = stop > 0;
}

void workers_done(void)
{
    armed = false;
    workers_leaks(true);
}

static void store_to(const void *p)
{
    uint64_t at = (uint64_t)((const unsigned char *)p -
                             segment->segment.base);

    if (at >= segment->segment.size || --stores_left > 0)
        return;
    armed = false;
    accesses_left = 0;
    workers_kill(runs);
    workers_leaks(true);
    /* They go with a process. */
    while (held_count > 0)
        (void)__real_pthread_mutex_unlock(held[--held_count]);
    longjmp(workers_death, 1);
}

/* Before each load and store of the library; a store that is not done any more
 * counts as one. */
PLAIN __attribute__((noinline)) static void watched(const void *p, size_t n)
{
    if (accesses_left > 0)
        access_to(p, n);
    if (armed)
        store_to(p);
}

#define TRACED(n, type)                                                       \
    void __sanitizer_cov_load##n(const type *p);                              \
    PLAIN void __sanitizer_cov_load##n(const type *p)                         \
    {                                                                         \
        if (accesses_left > 0)                                                \
            access_to(p, n);                                                  \
    }                                                                         \
    void __sanitizer_cov_store##n(const type *p);                             \
    PLAIN void __sanitizer_cov_store##n(const type *p)                        \
    {                                                                         \
        wrote(p, n);                                                          \
        if (armed || accesses_left > 0)                                       \
            watched(p, n);                                                    \
    }
TRACED(1, uint8_t)
TRACED(2, uint16_t)
TRACED(4, uint32_t)
TRACED(8, uint64_t)
TRACED(16, void)

/* ---- the kernel ----------------------------------------------------------- */

static bool is_refused(uint32_t *left)
{
    return *left > 0 && --*left == 0;
}

static uint32_t clocks_left, early;
static uint32_t asked; /* workers_ask_again() */

void workers_refuse_clock(uint32_t n)
{
    clocks_left = n;
}

void workers_wake_early(uint32_t n)
{
    early = n;
}

void workers_ask_again(uint32_t how)
{
    asked = how;
    if (how == 0)
        run(runs);
    else
        robust_here_forget((how & 4) != 0 ? ENOMEM : 0);
}

/* Arguments that were not given are read, and passed on. */
#define NOT_ALL_GIVEN __attribute__((no_sanitize("address")))

#define WRAP(type, name, ...)                                                 \
    type __real_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__);                                          \
    NOT_ALL_GIVEN type __wrap_##name(__VA_ARGS__)

/* clock_test_advance() moves it. */
WRAP(int, clock_gettime, clockid_t id, struct timespec *t)
{
    if (!still)
        return __real_clock_gettime(id, t);
    t->tv_sec = 1000000 + (time_t)(slept_ns / 1000000000);
    t->tv_nsec = (long)(500000 + slept_ns % 1000000000);
    if (t->tv_nsec >= 1000000000) {
        t->tv_nsec -= 1000000000;
        t->tv_sec++;
    }
    if (inside && id == CLOCK_MONOTONIC && is_refused(&clocks_left)) {
        errno = EINVAL;
        return -1;
    }
    return 0;
}

/* Of threads that have no number of ours, the odd ones live. */
WRAP(int, kill, pid_t pid, int signal)
{
    uint32_t worker = (uint32_t)pid - TID_FIRST;

    if (!inside)
        return __real_kill(pid, signal);
    if (worker <= WORKERS || (pid & 1) != 0)
        return 0;
    errno = ESRCH;
    return -1;
}

/* A lock is waited for: nobody else runs, and it is not given back. */
static void sleep_until(const struct timespec *t)
{
    int64_t ns = (t->tv_sec - 1000000) * 1000000000ll + t->tv_nsec - 500000;

    if (ns > (int64_t)slept_ns)
        slept_ns = (uint64_t)ns;
}

WRAP(long, syscall, long number, ...)
{
    va_list more;
    long a[6];

    va_start(more, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(more, long);
    va_end(more);
    if (inside && number == SYS_futex) {
        if ((a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT) {
            clock_test_advance(WAIT_MS);
            if (fuzz_waits != NULL)
                fuzz_waits();
        } else if ((a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) {
            if (early > 0)
                early--;
            else
                sleep_until((const struct timespec *)a[3]);
        }
        return 0;
    }
    if (inside && number == SYS_gettid)
        return (long)workers_tid(runs);
    if (inside && number == SYS_get_robust_list) {
        *(struct robust_list_head **)a[1] =
            (asked & 2) != 0 ? NULL : &heads[runs];
        errno = ENOSYS;
        return (asked & 1) != 0 ? -1 : 0;
    }
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- what is refused -------------------------------------------------------- */

static uint32_t memory_left, calls_left; /* until one is refused; 0: none is */

void workers_refuse(uint32_t memory, uint32_t call)
{
    memory_left = memory;
    calls_left = call;
}

/* The library's own calls (CMakeLists.txt). */
void *fuzz_malloc(size_t bytes);
void *fuzz_calloc(size_t n, size_t bytes);
void *fuzz_realloc(void *p, size_t bytes);

void *fuzz_malloc(size_t bytes)
{
    return is_refused(&memory_left) ? NULL : malloc(bytes);
}

void *fuzz_calloc(size_t n, size_t bytes)
{
    return is_refused(&memory_left) ? NULL : calloc(n, bytes);
}

void *fuzz_realloc(void *p, size_t bytes)
{
    return is_refused(&memory_left) ? NULL : realloc(p, bytes);
}

WRAP(int, mprotect, void *at, size_t bytes, int protection)
{
    if (inside && (protection & PROT_WRITE) != 0 && is_refused(&calls_left)) {
        errno = ENOMEM;
        return -1;
    }
    return __real_mprotect(at, bytes, protection);
}

/* What loses its memory is zero. */
WRAP(int, fallocate, int fd, int mode, off_t at, off_t bytes)
{
    if (inside && is_refused(&calls_left)) {
        errno = ENOSPC;
        return -1;
    }
    if (inside && (mode & FALLOC_FL_PUNCH_HOLE) != 0)
        workers_wrote(base + at, (uint64_t)bytes);
    return __real_fallocate(fd, mode, at, bytes);
}

WRAP(int, clock_nanosleep, clockid_t id, int flags, const struct timespec *t,
     struct timespec *left)
{
    if (!inside)
        return __real_clock_nanosleep(id, flags, t, left);
    clock_test_advance((uint64_t)t->tv_sec * 1000 +
                       (uint64_t)t->tv_nsec / 1000000 + 1);
    if (fuzz_waits != NULL)
        fuzz_waits();
    return 0;
}

WRAP(int, fcntl, int fd, int command, ...)
{
    va_list more;
    long argument;
    struct flock *l;
    uint64_t index;

    va_start(more, command);
    argument = va_arg(more, long);
    va_end(more);
    if (!inside || (command != F_OFD_SETLK && command != F_OFD_GETLK))
        return __real_fcntl(fd, command, argument);
    l = (struct flock *)argument;
    index = (uint64_t)(l->l_start - LIVENESS_AT);
    if (index >= BYTES) {
        errno = EINVAL;
        return -1;
    }
    if (byte_of[index] != 0 && byte_of[index] != runs + 1) {
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

WRAP(int, pthread_mutex_lock, pthread_mutex_t *m)
{
    int rc = __real_pthread_mutex_lock(m);

    if ((armed || accesses_left > 0) && rc == 0) {
        if (held_count == MUTEXES)
            abort();
        held[held_count++] = m;
    }
    return rc;
}

WRAP(int, pthread_mutex_unlock, pthread_mutex_t *m)
{
    if (held_count > 0 && held[held_count - 1] == m)
        held_count--;
    return __real_pthread_mutex_unlock(m);
}
