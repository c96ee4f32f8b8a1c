/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/tracked/atomic_ops.h - libatomic_ops, in front of whose instructions
 * that load and store there is a call like the one that clang puts in front of
 * each store (fuzz/workers.c). */
#ifndef SHD_FUZZ_TRACKED_ATOMIC_OPS_H
#define SHD_FUZZ_TRACKED_ATOMIC_OPS_H

#include_next <atomic_ops.h>

#include <stdint.h>

void __sanitizer_cov_store4(const uint32_t *p);
void __sanitizer_cov_store8(const uint64_t *p);

static inline int tracked_cas64(volatile AO_t *p, AO_t old, AO_t new)
{
    __sanitizer_cov_store8((const uint64_t *)(uintptr_t)p);
    return AO_compare_and_swap_full(p, old, new);
}

static inline void tracked_or64(volatile AO_t *p, AO_t bits)
{
    __sanitizer_cov_store8((const uint64_t *)(uintptr_t)p);
    AO_or_full(p, bits);
}

static inline void tracked_and64(volatile AO_t *p, AO_t bits)
{
    __sanitizer_cov_store8((const uint64_t *)(uintptr_t)p);
    AO_and_full(p, bits);
}

static inline int tracked_cas32(volatile unsigned *p, unsigned old,
                                unsigned new)
{
    __sanitizer_cov_store4((const uint32_t *)(uintptr_t)p);
    return AO_int_compare_and_swap_full(p, old, new);
}

static inline unsigned tracked_add32(volatile unsigned *p, unsigned n)
{
    __sanitizer_cov_store4((const uint32_t *)(uintptr_t)p);
    return AO_int_fetch_and_add_full(p, n);
}

#undef AO_compare_and_swap_full
#undef AO_or_full
#undef AO_and_full
#undef AO_int_compare_and_swap_full
#undef AO_int_fetch_and_add_full
#define AO_compare_and_swap_full tracked_cas64
#define AO_or_full tracked_or64
#define AO_and_full tracked_and64
#define AO_int_compare_and_swap_full tracked_cas32
#define AO_int_fetch_and_add_full tracked_add32

#endif
