/* SPDX-License-Identifier: BSD-2-Clause */
/* segment/protect.h - between the calls nobody writes to a segment.
 *
 * OWNS   this process's right to write to the mappings that are protected
 *        (SHD_WRITE_PROTECT): one protection key, whose rights each thread
 *        has for itself; or where there are none mprotect, which is the same
 *        for all threads.
 * HOLDS  a thread that is in none of our functions cannot write there: with
 *        keys always, with mprotect while no other thread is in one either
 *        (those that sleep in one do not count).
 * LOCK   keys: none. mprotect: a process-private mutex, for each call.
 * CRASH  nothing shared. A worker that dies in a call dies with the right to
 *        write, which the kernel's robust lists need; one that is killed in a
 *        handler of a signal that came then dies without: its lock names it
 *        without OWNER_DIED, which guard_lock looks for.
 * COST   nothing protected: one look at protect_on a call (api/gates.c).
 *
 * The public functions are the boundary: each goes in through protect_enter
 * and out through protect_leave, so that no store in between has to think of
 * it. A signal handler starts with no rights to the key, whatever it came in
 * the middle of, and gets them back as they were at its end: a call in it
 * goes in and out like any other.
 */
#ifndef SHD_SEGMENT_PROTECT_H
#define SHD_SEGMENT_PROTECT_H

#include <stdbool.h>
#include <stdint.h>

/* One that is protected, in memory that stays where it is. */
struct protect_mapping {
    void *base; /* NULL: it is none */
    uint64_t size;
    struct protect_mapping *next;
};

/* How many mappings are protected. (Hidden: it is read without a detour.) */
extern uint32_t protect_on __attribute__((visibility("hidden")));

/* By the flags, or by the environment. */
bool protect_wanted(uint32_t flags);

/* From the end of the call on, which has been entered, it is protected. What
 * the system does not offer is left out: protect_how tells. */
void protect_add(struct protect_mapping *m, void *base, uint64_t size);

/* Before it is unmapped. */
void protect_remove(struct protect_mapping *m);

/* SHD_PROTECT_KEYS, SHD_PROTECT_PAGES; 0: it is not protected. */
uint32_t protect_how(const struct protect_mapping *m);

/* In and out of a call of this library; calls may lie in each other, as a
 * signal handler's in the one it interrupts. leave is told what enter said. */
bool protect_enter(void);
void protect_leave(bool entered);

/* Is this thread in a call, and not in a pause of it? For tests. */
bool protect_is_inside(void);

/* Around a sleep in the middle of a call; resume is told what pause said. Both
 * leave errno alone. */
uint32_t protect_pause(void);
void protect_resume(uint32_t paused);

/* Around fork. */
void protect_before_fork(void);
void protect_after_fork(bool child);

#endif
