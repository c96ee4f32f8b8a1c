/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/script.h - operations as text, and states that can be compared.
 *
 * A script is a row of commands separated by ";". A "?" before one allows it
 * any result that is not SHD_CORRUPT. LEN and TTL are bytes and ms.
 * A KEY that begins with "~" stands for one of 6000 bytes.
 *   set|safe|add|replace KEY LEN [TTL]   a string, new bytes each time
 *   plain KEY LEN [TTL]   shd_set, which gives no flags
 *   num KEY N   del KEY   get KEY   incr KEY N   init KEY N (incr with init)
 *   expire KEY TTL   lpush|rpush KEY LEN   lnum KEY N   lpop|rpop KEY
 *   lmove KEY TO ENDS            ENDS: ll, lr, rl, rr
 *   ltake|rtake KEY   lack [1]   lnack [1]   on a lease; the
 *                               last one ends, or the one before it
 *   cas KEY LEN   casdel KEY     stores, or deletes, if it is as just read
 *   casno KEY LEN                stores if it is what it is not
 *   version KEY   vset KEY LEN   vdel KEY       the same by version
 *   take KEY   touch KEY [TTL]   append|prepend KEY LEN [INIT]
 *   lpushx|rpushx KEY LEN TTL    shd_push_expire
 *   mset KEY COUNT LEN           sets KEY0, KEY1 ... in one call
 *   fill KEY COUNT LEN [TTL]    sets KEY0, KEY1 ...
 *   thin KEY COUNT STEP         deletes KEY0, KEY<STEP> ...
 *   hit KEY COUNT               gets KEY0 ...
 *   flush   sweep MAX (flush_expired)   advance MS
 *   open NAME BYTES   destroy NAME      another dict
 *   join   leave   reap   beat
 *   phase N   generation   drain GENERATION   of workers
 *   qopen KIB [DELIVERIES [LEASE [DEAD_TO]]]   the queue "q"; all below are
 *                               on it, or after "other" on the queue "d"
 *   qpush LEN [DELAY]   qpop   qtake   qack   qnack [DELAY]   qextend MS
 *   qreserve LEN   qcommit   qcancel    qack and its like: of the last taken
 *   qpushes LEN COUNT [DELAY]   of LEN, LEN + 1 ... bytes, in one call
 *   qtakes COUNT   qpops COUNT
 *   qacks FIRST COUNT           of the last taken together
 *   qextend MS I                one of them
 *   qagain I                    one of them goes back, and is taken again
 *   qbury                       qtake and qnack in one
 *   qdrain WHICH [MAX]   qrequeue   qdestroy   qarm (the bell of who asks)
 *   as WORKER COMMAND           another worker of the test, 1: the operator
 *   topic, lock ...             see script_ipc.h
 *   break ...                   see script_break.h
 *   repair
 *   dead STORE COMMAND          a worker that died at that store of COMMAND
 */
#ifndef SHD_TESTS_CRASH_SCRIPT_H
#define SHD_TESTS_CRASH_SCRIPT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/shdict.h"

#define STATE_ENTRIES 2048u

struct state {
    uint32_t entries;
    uint64_t order;   /* of the keys in the LRU */
    uint64_t objects; /* names in the segment */
    struct state_entry {
        char key[24];
        uint64_t content; /* type, value, flags, ttl, elements */
    } entry[STATE_ENTRIES];
};

struct world {
    shd_segment *segment;
    shd_dict *dict;
    uint64_t fresh_free;
    uint64_t holder; /* what is taken on a lease is this worker's; 0: one's
                        own */
    const uint64_t *incarnation; /* of the workers of the test */
    uint64_t runs_as; /* what runs apart is this worker, and takes its liveness
                         byte, which is free; 0: it joins */
    bool dies_at_end; /* one that has no such store is dead all the same */
};

/* 0, or -1 having printed what went wrong. */
int script_run(struct world *w, const char *script);

int script_repair(struct world *w);

/* The bytes of the values that follow are those of this seed. */
void script_seed(uint64_t seed);

/* Runs a command's script in a child that dies at store `stop` (0: never).
 * 1: it died there. 0: it came to its end before; *stores tells how many
 * there were. -1: something else happened, printed. */
int script_run_apart(struct world *w, const char *script, uint64_t stop,
                     void (*at_death)(void), uint64_t *stores);

/* Reads everything. Lists are emptied by that. 0 or -1 as above. */
int state_read(struct world *w, struct state *s);

/* 0: equal, with the order. Else tells the difference in why. */
int state_compare(const struct state *a, const struct state *b, char *why,
                  size_t size);

/* Is each entry as in one of the two, and missing only where one lacks it? */
int state_between(const struct state *s, const struct state *before,
                  const struct state *after, char *why, size_t size);

#endif
