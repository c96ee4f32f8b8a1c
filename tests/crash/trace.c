/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/crash/trace.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static uintptr_t low, high;
static uint64_t count, stop_at;
static bool counting;
static void (*last_words)(void);

void trace_segment(const void *base, size_t len)
{
    low = (uintptr_t)base;
    high = low + len;
}

void trace_begin(uint64_t stop, void (*at_death)(void))
{
    count = 0;
    stop_at = stop;
    last_words = at_death;
    counting = true;
}

uint64_t trace_end(void)
{
    counting = false;
    return count;
}

static void point(void)
{
    if (!counting || ++count != stop_at)
        return;
    counting = false;
    if (last_words != NULL)
        last_words();
    (void)kill(getpid(), SIGKILL);
    abort();
}

static void store(const volatile void *p)
{
    if ((uintptr_t)p >= low && (uintptr_t)p < high)
        point();
}

/* ---- what the compiler calls -------------------------------------------- */

#define HOOK(name, ...)                                                       \
    void name(__VA_ARGS__);                                                   \
    void name(__VA_ARGS__)

HOOK(__tsan_init, void) {}
HOOK(__tsan_func_entry, void *p) { (void)p; }
HOOK(__tsan_func_exit, void) {}
HOOK(__tsan_read_range, void *p, size_t n) { (void)p, (void)n; }
HOOK(__tsan_write_range, void *p, size_t n) { (void)n, store(p); }
HOOK(__tsan_atomic_thread_fence, int order) { (void)order; }
HOOK(__tsan_atomic_signal_fence, int order) { (void)order; }

#define PLAIN(n)                                                              \
    HOOK(__tsan_read##n, void *p) { (void)p; }                                \
    HOOK(__tsan_write##n, void *p) { store(p); }                              \
    HOOK(__tsan_read_write##n, void *p) { store(p); }                         \
    HOOK(__tsan_volatile_read##n, void *p) { (void)p; }                       \
    HOOK(__tsan_volatile_write##n, void *p) { store(p); }                     \
    HOOK(__tsan_unaligned_read##n, void *p) { (void)p; }                      \
    HOOK(__tsan_unaligned_write##n, void *p) { store(p); }                    \
    HOOK(__tsan_unaligned_read_write##n, void *p) { store(p); }               \
    HOOK(__tsan_unaligned_volatile_read##n, void *p) { (void)p; }             \
    HOOK(__tsan_unaligned_volatile_write##n, void *p) { store(p); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

/* Here the hook is the store. Always the strongest order: one process, and
 * the order in its program is what counts. */
#define RMW(bits, type, name, builtin)                                        \
    type __tsan_atomic##bits##_##name(volatile type *p, type v, int order);   \
    type __tsan_atomic##bits##_##name(volatile type *p, type v, int order)    \
    {                                                                         \
        (void)order;                                                          \
        store(p);                                                             \
        return builtin(p, v, __ATOMIC_SEQ_CST);                               \
    }
#define ATOMIC(bits, type)                                                    \
    type __tsan_atomic##bits##_load(const volatile type *p, int order);       \
    type __tsan_atomic##bits##_load(const volatile type *p, int order)        \
    {                                                                         \
        (void)order;                                                          \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                          \
    }                                                                         \
    HOOK(__tsan_atomic##bits##_store, volatile type *p, type v, int order)    \
    {                                                                         \
        (void)order;                                                          \
        store(p);                                                             \
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
        store(p);                                                             \
        return __atomic_compare_exchange_n(p, old, v, 0, __ATOMIC_SEQ_CST,    \
                                           __ATOMIC_SEQ_CST);                 \
    }                                                                         \
    int __tsan_atomic##bits##_compare_exchange_weak(                          \
        volatile type *p, type *old, type v, int order, int failed);          \
    int __tsan_atomic##bits##_compare_exchange_weak(                          \
        volatile type *p, type *old, type v, int order, int failed)           \
    {                                                                         \
        return __tsan_atomic##bits##_compare_exchange_strong(p, old, v,       \
                                                             order, failed);  \
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

/* ---- calls that store ---------------------------------------------------- */

#define WRAP(type, name, ...)                                                 \
    type __real_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__)

static size_t word(uintptr_t at, size_t left)
{
    size_t n = 8 - (at & 7);

    return n < left ? n : left;
}

static bool watched(const void *p)
{
    return counting && (uintptr_t)p >= low && (uintptr_t)p < high;
}

WRAP(void *, memcpy, void *to, const void *from, size_t n)
{
    if (!watched(to))
        return __real_memcpy(to, from, n);
    for (size_t i = 0, step; i < n; i += step) {
        step = word((uintptr_t)to + i, n - i);
        point();
        (void)__real_memcpy((char *)to + i, (const char *)from + i, step);
    }
    return to;
}

WRAP(void *, memmove, void *to, const void *from, size_t n)
{
    if (watched(to))
        point();
    return __real_memmove(to, from, n);
}

WRAP(void *, memset, void *to, int c, size_t n)
{
    if (!watched(to))
        return __real_memset(to, c, n);
    for (size_t i = 0, step; i < n; i += step) {
        step = word((uintptr_t)to + i, n - i);
        point();
        (void)__real_memset((char *)to + i, c, step);
    }
    return to;
}

/* clang's names for the same. */
void *__tsan_memcpy(void *to, const void *from, size_t n);
void *__tsan_memcpy(void *to, const void *from, size_t n)
{
    return __wrap_memcpy(to, from, n);
}

void *__tsan_memmove(void *to, const void *from, size_t n);
void *__tsan_memmove(void *to, const void *from, size_t n)
{
    return __wrap_memmove(to, from, n);
}

void *__tsan_memset(void *to, int c, size_t n);
void *__tsan_memset(void *to, int c, size_t n)
{
    return __wrap_memset(to, c, n);
}

WRAP(int, fallocate, int fd, int mode, off_t at, off_t len)
{
    point();
    return __real_fallocate(fd, mode, at, len);
}

WRAP(int, pthread_mutex_trylock, pthread_mutex_t *m)
{
    point();
    int rc = __real_pthread_mutex_trylock(m);
    point();
    return rc;
}

WRAP(int, pthread_mutex_clocklock, pthread_mutex_t *m, clockid_t id,
     const struct timespec *until)
{
    (void)id, (void)until;
    point();
    /* Nobody else is alive: what is not free now never will be. */
    int rc = __real_pthread_mutex_trylock(m);
    point();
    return rc == EBUSY ? ETIMEDOUT : rc;
}

WRAP(int, pthread_mutex_unlock, pthread_mutex_t *m)
{
    point();
    int rc = __real_pthread_mutex_unlock(m);
    point();
    return rc;
}

WRAP(int, pthread_mutex_consistent, pthread_mutex_t *m)
{
    point();
    int rc = __real_pthread_mutex_consistent(m);
    point();
    return rc;
}

/* Time stands still, so that a run repeats. */
WRAP(int, clock_gettime, clockid_t id, struct timespec *t)
{
    (void)id;
    t->tv_sec = 1000000;
    t->tv_nsec = 500000;
    return 0;
}
