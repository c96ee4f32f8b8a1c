/* SPDX-License-Identifier: BSD-2-Clause */
/* worker/watch.h - the eyes of a supervisor: who joins, dies, hangs.
 *
 * OWNS   descriptors and notes in private memory; of the segment nothing: it
 *        looks, and who has it calls the reap that it finds due.
 * HOLDS  each worker that was seen has a pidfd in the epoll set, until it is
 *        told to have died or left.
 * LOCK   none. One thread at a time.
 * CRASH  nothing shared lives here: another watch sees the same.
 * COST   asleep but for deaths, joins, and a tick: one a second, or eight
 *        within the shortest limit. A look at all slots some 20 us a thousand.
 */
#ifndef SHD_WORKER_WATCH_H
#define SHD_WORKER_WATCH_H

#include "shm/worker/roster.h"

struct watch;

/* SHD_NOMEM, SHD_SYS, SHD_UNSUPPORTED. Those who are there already are events
 * as if they had just joined. */
int watch_open(const struct guard_env *env,
               const struct shd_watch_options *o, struct watch **out);
void watch_close(struct watch *w);

/* In a child after fork: the parent's descriptors go. Async-signal-safe. */
void watch_after_fork(struct watch *w);

/* Readable when watch_wait would not wait. */
int watch_fd(const struct watch *w);

/* Sleeps at most timeout_ms (below 0: for ever) until there is something to
 * look at. SHD_NOTFOUND: nothing came, or a signal did. *reap: one is due. */
int watch_wait(struct watch *w, int64_t timeout_ms, bool *reap);

/* What a reap did that was due. */
struct watch_reaped {
    uint64_t began_ns, ended_ns; /* CLOCK_MONOTONIC */
    uint64_t recovered;          /* operations undone */
};

/* Finds out what has changed; `reaped` is NULL where none was due. */
int watch_look(struct watch *w, const struct watch_reaped *reaped);

/* The next thing to tell. */
bool watch_take(struct watch *w, struct shd_watch_event *e);

#endif
