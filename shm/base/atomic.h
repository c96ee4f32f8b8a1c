/* SPDX-License-Identifier: BSD-2-Clause */
/* base/atomic.h - the one door to libatomic_ops.
 *
 * Nothing else in the library names an atomic primitive or a barrier, so the
 * memory order of every shared access can be read (and tested) here. Shared
 * words are plain fixed-width integers; libatomic_ops' types have the same
 * size and representation, which is asserted below.
 *
 * COST  a relaxed load or store is a plain one; acquire and release are plain
 *       on x86-64 and one instruction on arm64; the compiler barrier is free.
 */
#ifndef SHD_BASE_ATOMIC_H
#define SHD_BASE_ATOMIC_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include <atomic_ops.h>

static_assert(sizeof(AO_t) == 8, "64-bit platforms only");
static_assert(sizeof(unsigned int) == 4, "32-bit int");

static inline uint64_t atomic_load64(const uint64_t *p)
{
    return AO_load((const volatile AO_t *)p);
}

static inline uint64_t atomic_load64_acquire(const uint64_t *p)
{
    return AO_load_acquire((const volatile AO_t *)p);
}

static inline void atomic_store64(uint64_t *p, uint64_t v)
{
    AO_store((volatile AO_t *)p, v);
}

static inline void atomic_store64_release(uint64_t *p, uint64_t v)
{
    AO_store_release((volatile AO_t *)p, v);
}

static inline bool atomic_cas64(uint64_t *p, uint64_t old, uint64_t new)
{
    return AO_compare_and_swap_full((volatile AO_t *)p, old, new) != 0;
}

static inline void atomic_or64(uint64_t *p, uint64_t bits)
{
    AO_or_full((volatile AO_t *)p, bits);
}

static inline void atomic_and64(uint64_t *p, uint64_t bits)
{
    AO_and_full((volatile AO_t *)p, bits);
}

static inline uint32_t atomic_load32(const uint32_t *p)
{
    return AO_int_load((const volatile unsigned *)p);
}

static inline uint32_t atomic_load32_acquire(const uint32_t *p)
{
    return AO_int_load_acquire((const volatile unsigned *)p);
}

static inline void atomic_store32(uint32_t *p, uint32_t v)
{
    AO_int_store((volatile unsigned *)p, v);
}

static inline void atomic_store32_release(uint32_t *p, uint32_t v)
{
    AO_int_store_release((volatile unsigned *)p, v);
}

static inline bool atomic_cas32(uint32_t *p, uint32_t old, uint32_t new)
{
    return AO_int_compare_and_swap_full((volatile unsigned *)p, old, new) != 0;
}

/* With a full fence. */
static inline void atomic_add32(uint32_t *p, uint32_t n)
{
    (void)AO_int_fetch_and_add_full((volatile unsigned *)p, n);
}

static inline uint8_t atomic_load8(const uint8_t *p)
{
    return AO_char_load((const volatile unsigned char *)p);
}

static inline void atomic_store8(uint8_t *p, uint8_t v)
{
    AO_char_store((volatile unsigned char *)p, v);
}

/* Orders this thread's stores for whoever looks at the memory after its
 * death, and nothing for other processors: see CRASH MODEL in guard/txn.h. */
static inline void atomic_compiler_barrier(void)
{
    AO_compiler_barrier();
}

/* Loads before it are done before loads and stores after it. */
static inline void atomic_fence_acquire(void)
{
    AO_nop_read();
}

/* Stores before it are visible before stores after it. */
static inline void atomic_fence_release(void)
{
    AO_nop_write();
}

static inline void atomic_fence_full(void)
{
    AO_nop_full();
}

/* The line of p will be written to: it comes to this processor as its own at
 * once, with others that are asked for likewise. Without it the line comes
 * when it is read, to be shared, and each store waits again for the others to
 * give it up. A hint: any address will do, nothing is loaded. */
static inline void atomic_will_write(const void *p)
{
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw (%0)" : : "r"(p));
#else
    __builtin_prefetch(p, 1);
#endif
}

/* The line of p will be read soon. A hint: any address will do. */
static inline void atomic_will_read(const void *p)
{
    __builtin_prefetch(p);
}

/* Says to the processor that this is a spinning wait. */
static inline void atomic_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
