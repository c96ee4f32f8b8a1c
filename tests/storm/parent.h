/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/storm/parent.h - what the parts of the storm's parent share.
 *
 * storm.c   workers, who is killed when, audits
 * others.c  the processes that are no workers: one that reaps, one that
 *           resizes, a supervisor, those that recover; each killed at it
 * report.c  what it saw
 */
#ifndef SHD_TESTS_STORM_PARENT_H
#define SHD_TESTS_STORM_PARENT_H

#include "tests/storm/storm.h"

#include <sys/types.h>

#define STALL_LIMIT_NS 100000000u

/* Kills, by whom and in what. */
struct tally {
    uint64_t kills;
    uint64_t by_timer;     /* of their own, by the kernel */
    uint64_t in_operation;
    uint64_t starting;     /* before they had registered */
    uint64_t waiting;      /* that were asleep before a lock, for certain */
    uint64_t reaping, recovering, resizing, supervising;
    uint64_t starts, execs, audits, reaped;
    uint64_t longest_cut_ns;
};

extern struct storm storm;
extern struct tally tally;
extern struct meter parent_meter;
extern bool supervised;

uint64_t parent_random(void);
uint32_t below(uint32_t n);

/* Says what failed, and ends. */
_Noreturn void end(int status);
_Noreturn void die(const char *what);
void must(int rc, const char *what);

/* In a child: it does not outlive its parent. */
void die_with_parent(pid_t parent);

/* waitpid, whatever signals come. */
pid_t wait_for(pid_t pid, int *status, int options);

/* A fork whose child does not outlive this process. */
pid_t parent_fork(void);

/* ---- others.c ------------------------------------------------------------ */

/* They run from start until kill. The supervisor only if the storm has one; the
 * kernel takes up to some 100 ms to be done with its inotify, so that is not
 * waited for. */
void resizer_start(void);
void resizer_kill(void);
void supervisor_start(void);
void supervisor_kill(void);
void supervisors_wait(void);

/* That process, which is no worker, has ended: as it should? */
void others_bury(pid_t pid);

/* At the end: whatever runs. */
void others_end(void);

/* A process that reaps, killed in the middle of it. */
void reaper_kill(void);

/* With no worker alive: processes that recover a lock whose holder was killed
 * are killed at that, one after the other. */
void recoverers_kill(void);

/* ---- report.c ------------------------------------------------------------ */

/* Are the stalls since the last time, as far as nobody explains them, under
 * the limit? Nobody works. */
bool report_judge(void);

void report_kills(double took_s);
void report_stalls(void);

#endif
