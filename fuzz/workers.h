/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/workers.h - workers that are no processes, can die at any store, and
 * live in a time that stands still.
 *
 * OWNS   what the kernel knows of a worker: its thread id, whether it is
 *        alive, its byte of the segment's file; the clocks.
 * HOLDS  between workers_begin() and workers_end() the library's system calls
 *        about those are answered from here, so an input does the same each
 *        time. Outside, they are the real ones: libFuzzer asks for the time.
 * CRASH  workers_try() runs a call and leaves it before its store number
 *        `stop` (clang puts a call in front of each load and store; other
 *        compilers do not, and nobody dies or is interrupted then). The locks that the worker had are marked
 *        as the kernel does. Memory that the call had allocated
 *        leaks, and is not looked for.
 */
#ifndef SHD_FUZZ_WORKERS_H
#define SHD_FUZZ_WORKERS_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "shm/api/handle.h"

#define WORKERS 4u /* that live at one time */

/* From here to workers_keep() time stands still, too: the segment as it is then
 * is that of an input's beginning, and worker 0 is this process as it has
 * joined; the others have not joined. */
void workers_build(void);
void workers_keep(shd_segment *segment);

/* An input: all bytes as they were kept. */
void workers_begin(shd_segment *segment);
void workers_end(void);

/* Worker 0 .. WORKERS - 1 goes on. */
void workers_become(uint32_t worker);
uint32_t workers_current(void);
uint64_t workers_incarnation(uint32_t worker);

/* That worker is dead; another one, not registered yet, has its number from
 * now on. */
void workers_kill(uint32_t worker);

/* if (workers_try(stop)) { call(); workers_done(); } else the current worker
 * has died in the call, before its store number `stop`. */
#define workers_try(stop)                                                     \
    (workers_arm(stop), setjmp(workers_death) == 0)
void workers_done(void);

extern jmp_buf workers_death;
void workers_arm(uint64_t stop);

/* The library's allocation number `memory` from now on is refused, and its
 * system call number `call` of those that take memory (fallocate, mprotect); 0:
 * none is, as at the end of an input. */
void workers_refuse(uint32_t memory, uint32_t call);

/* The same for the monotonic clock's call number n. */
void workers_refuse_clock(uint32_t n);

/* Who sleeps until some time is awake before, n times. */
void workers_wake_early(uint32_t n);

/* The thread id of a worker; and of WORKERS: of who works beside. */
uint32_t workers_tid(uint32_t worker);

/* The current worker is a new thread, and asks the kernel who it is; 1: which
 * knows of no robust lists; 2: or of none of its; 4: and libc cannot look after
 * forks. 0: it knows all that again. */
void workers_ask_again(uint32_t how);

/* Does an input run? */
bool workers_inside(void);

/* Written to the segment by who is not the library: it is put back, too. */
void workers_wrote(const void *p, uint64_t bytes);

/* Has this input written to the segment? (Where that is not known: true.) */
bool workers_changed(void);

/* Is what is allocated from now on to be given back? */
void workers_leaks(bool watch);

/* One more worker, who is never killed, with an attachment of its own: before
 * workers_keep(s). What it does while another one is in the middle of a call is
 * done between workers_enter_beside(), which gives who that is, and
 * workers_leave_beside(). */
shd_segment *workers_beside(shd_segment *s);
uint32_t workers_enter_beside(void);
void workers_leave_beside(uint32_t before);

/* What reads by that attachment of the same file is interrupted, too: before
 * workers_keep(). */
void workers_view(const shd_segment *s);

/* call() once, before access number `access` (1 ...) of the library to the
 * segment: to `bytes` at `at`, by the current worker. 0: not any more. */
void workers_interrupt(uint64_t access,
                       void (*call)(const void *at, size_t bytes));

/* If the target has it: called when a thread would sleep. */
void fuzz_waits(void) __attribute__((weak));

/* SHDICT_FUZZ_PLANT is set: each target makes the mistake that it exists to
 * find. */
bool fuzz_planted(void);

#endif
