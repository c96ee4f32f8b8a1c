/* SPDX-License-Identifier: BSD-2-Clause */
/* base/clock.h - time in ms, the same in every process of one boot.
 *
 * Expiry counts CLOCK_MONOTONIC, which no administrator sets: a jump of the
 * wall clock neither expires nor revives an entry.
 *
 * COST  clock_is_past about 6 ns (coarse clock) unless the deadline is within
 *       a tick, then 30.
 */
#ifndef SHD_BASE_CLOCK_H
#define SHD_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Precise, ms since boot; always > 0. */
uint64_t clock_now_ms(void);

/* At most one tick behind clock_now_ms(), and cheaper. */
uint64_t clock_coarse_ms(void);

/* Has `deadline_ms` been reached? As clock_now_ms() >= deadline_ms, cheaply.
 */
bool clock_is_past(uint64_t deadline_ms);

/* Wall clock, ms since 1970; for people, never for expiry. */
uint64_t clock_wall_ms(void);

/* The same, up to a tick of the kernel (1 to 10 ms) ago; half the cost. */
uint64_t clock_wall_coarse_ms(void);

/* Tests: moves this process's idea of the time forward. */
void clock_test_advance(uint64_t ms);

#endif
