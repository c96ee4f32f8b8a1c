/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/hooks/hooks.h - what code compiled with -fsanitize=thread calls before
 * each load and store, in place of ThreadSanitizer's runtime.
 *
 * Included once in a program, in a source that has defined before
 *   static void hook_load(const volatile void *p, size_t bytes);
 *   static void hook_store(const volatile void *p, size_t bytes);
 * which are called in front of the access. A store that also loads calls
 * HOOK_UPDATE, which is hook_store if the source does not say otherwise; a
 * memcpy and its like is one or many as the program's wrappers of those say.
 *
 * Atomic accesses are made here, always in the strongest order: what is looked
 * at is the order of one program, or of one access after the other.
 */
#ifndef SHD_TESTS_HOOKS_H
#define SHD_TESTS_HOOKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef HOOK_UPDATE
#define HOOK_UPDATE hook_store
#endif
#define HOOK(name, ...)                                                       \
    void name(__VA_ARGS__);                                                   \
    void name(__VA_ARGS__)

HOOK(__tsan_init, void) {}
HOOK(__tsan_func_entry, void *p) { (void)p; }
HOOK(__tsan_func_exit, void) {}
HOOK(__tsan_read_range, void *p, size_t n) { hook_load(p, n); }
HOOK(__tsan_write_range, void *p, size_t n) { hook_store(p, n); }
HOOK(__tsan_atomic_thread_fence, int order) { (void)order; }
HOOK(__tsan_atomic_signal_fence, int order) { (void)order; }

#define PLAIN(n)                                                              \
    HOOK(__tsan_read##n, void *p) { hook_load(p, n); }                        \
    HOOK(__tsan_write##n, void *p) { hook_store(p, n); }                      \
    HOOK(__tsan_read_write##n, void *p) { HOOK_UPDATE(p, n); }                \
    HOOK(__tsan_volatile_read##n, void *p) { hook_load(p, n); }               \
    HOOK(__tsan_volatile_write##n, void *p) { hook_store(p, n); }             \
    HOOK(__tsan_unaligned_read##n, void *p) { hook_load(p, n); }              \
    HOOK(__tsan_unaligned_write##n, void *p) { hook_store(p, n); }            \
    HOOK(__tsan_unaligned_read_write##n, void *p) { HOOK_UPDATE(p, n); }      \
    HOOK(__tsan_unaligned_volatile_read##n, void *p) { hook_load(p, n); }     \
    HOOK(__tsan_unaligned_volatile_write##n, void *p) { hook_store(p, n); }
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
        HOOK_UPDATE(p, sizeof(*p));                                           \
        return builtin(p, v, __ATOMIC_SEQ_CST);                               \
    }
#define ATOMIC(bits, type)                                                    \
    type __tsan_atomic##bits##_load(const volatile type *p, int order);       \
    type __tsan_atomic##bits##_load(const volatile type *p, int order)        \
    {                                                                         \
        (void)order;                                                          \
        hook_load(p, sizeof(*p));                                             \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                          \
    }                                                                         \
    HOOK(__tsan_atomic##bits##_store, volatile type *p, type v, int order)    \
    {                                                                         \
        (void)order;                                                          \
        hook_store(p, sizeof(*p));                                            \
        __atomic_store_n(p, v, HOOK_STORE_ORDER);                             \
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
        /* One that will fail stores nothing. */                              \
        if (__atomic_load_n(p, __ATOMIC_SEQ_CST) == *old)                     \
            HOOK_UPDATE(p, sizeof(*p));                                       \
        else                                                                  \
            hook_load(p, sizeof(*p));                                         \
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
#ifndef HOOK_STORE_ORDER
#define HOOK_STORE_ORDER __ATOMIC_SEQ_CST
#endif
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

/* clang's names: the wrapper, where the program has one (--wrap=memcpy). */
HOOK(*__tsan_memcpy, void *to, const void *from, size_t n)
{
    return memcpy(to, from, n);
}

HOOK(*__tsan_memmove, void *to, const void *from, size_t n)
{
    return memmove(to, from, n);
}

HOOK(*__tsan_memset, void *to, int c, size_t n)
{
    return memset(to, c, n);
}

#undef HOOK
#undef PLAIN
#undef RMW
#undef ATOMIC

#endif
