/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/script_ipc.h - commands of scripts on topics, locks
 * and mailboxes, and what
 * is in them as states. They go by the inner functions, and keep nothing
 * between two commands but what is in the segment.
 *
 *   topic T BYTES [lossless]   makes it, with room for 3 cursors
 *   pub T LEN [COUNT]          pubs T LEN COUNT   of LEN, LEN + 1 ..., at once
 *   sub T NAME    read T NAME N    unsub T NAME    forget T NAME
 *                              NAME "-" is a cursor without one
 *   subnow T NAME              not from the oldest event on
 *   sub T NAME N               and publishes N events then: to die after it
 *   lock L [PERMITS]   makes it, with room for 4 waiters
 *   acquire L [COUNT]   acquirettl L TTL
 *   release L           one of this worker's permits
 *   request L           takes, or gets in line   cancel L   leaves it, or takes
 *   extend L TTL        expireall L
 *   leader L            makes it    lead L   resign L   handover L
 *   mailbox M [KIB [BOXKIB]]   makes it
 *   listen M   mleave M        this worker has a box, has none any more
 *   post M WORKER LEN   ask M WORKER LEN [ROOM]   fetch M
 *   answer M LEN   decline M   the first request it has taken
 *   posts M WORKER LEN COUNT   asks M WORKER LEN COUNT
 *   serve M WORKER LEN         listens, is asked by that worker, and answers
 *   look M   giveup M          at, or of, the first it has sent
 *   put Q LEN STATE ATTEMPTS ID DELAY   a message, as a restore does
 *   replaceq Q KIB      another queue in its place, as a restore does
 *   drop OBJECT         destroys it
 */
#ifndef SHD_TESTS_CRASH_SCRIPT_IPC_H
#define SHD_TESTS_CRASH_SCRIPT_IPC_H

#include "tests/crash/script.h"

/* The result of a command of these words; *known: it is one. */
int script_ipc(struct world *w, char *const word[], int count, bool *known);

/* Adds an entry for each event, cursor and lock. 0 or -1. */
int state_read_ipc(struct world *w, struct state *s);

/* After a reap nothing is a dead worker's: NULL, or what is. */
const char *script_left_by_dead(struct world *w);

#endif
