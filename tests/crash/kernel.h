/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/kernel.h - workers that are no processes, and what the kernel
 * and glibc do for them.
 *
 * OWNS   which worker runs now, which are alive, which has which liveness
 *        byte; wrappers of the calls by which the library asks or tells
 *        (robust_*, fcntl, kill, futex, fallocate, /proc).
 * HOLDS  the lock words change as robust.c changes them, and at a death as the
 *        kernel does: crash.c compares both with real deaths, byte by byte.
 *
 * Before kernel_simulate(true) the calls are the real ones.
 */
#ifndef SHD_TESTS_CRASH_KERNEL_H
#define SHD_TESTS_CRASH_KERNEL_H

#include "shm/guard/guard.h"

#define KERNEL_WORKERS 8u
#define KERNEL_BYTES 64u

/* locks: they too; false leaves them to guard/robust.c, for a child that is to
 * be killed for real. */
void kernel_simulate(bool on, bool locks);

/* Liveness byte `index` is worker's when the states begin. */
void kernel_give_byte(uint32_t index, uint32_t worker);
void kernel_forget_bytes(void);

/* A state begins: the bytes are those given, and the workers whose bit is set
 * are alive; a dead one's bytes are free. */
void kernel_begin(uint32_t alive);

/* That worker runs from now on. */
void kernel_run(uint32_t who);

/* Marks the locks that worker has, as the kernel does at its end. Recorded by
 * trace.h as stores. */
void kernel_die(const struct segment *s, uint32_t worker);

/* Who is alive and who has which byte: equal numbers mean the same. */
uint64_t kernel_state(void);

/* Have all waiters for that lock been woken since the state began? */
bool kernel_kicked(const uint32_t *word);

#endif
