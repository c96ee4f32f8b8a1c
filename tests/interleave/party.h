/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/interleave/party.h - processes that run one at a time, and stop at a
 * given access to the segment.
 *
 * OWNS   the hooks that -fsanitize=thread calls before each load and store of
 *        the library, the wrapped calls that take and give a lock or a liveness
 *        byte, and the page through which the turn is handed on.
 * HOLDS  one party runs at a time; it runs until it has made the accesses it
 *        was allowed, is blocked by a lock, or has ended.
 *
 * Memory is sequentially consistent here: what another processor could see
 * out of order is not looked for.
 */
#ifndef SHD_TESTS_INTERLEAVE_PARTY_H
#define SHD_TESTS_INTERLEAVE_PARTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PARTIES_MAX 3
#define PARTY_OPS_MAX 3
#define PARTY_UNLIMITED UINT64_MAX

enum {
    PARTY_STOPPED = 1, /* before its next access */
    PARTY_BLOCKED = 2, /* somebody else has the lock */
    PARTY_DONE = 3,
    PARTY_DEAD = 4,  /* killed by party_kill */
    PARTY_BROKEN = 5 /* died by itself, or hangs */
};

/* What a party has to say of itself; written by whoever has the turn. */
struct party {
    uint32_t status;
    uint64_t accesses;
    uint32_t ops_begun, ops_ended;
    uint64_t began[PARTY_OPS_MAX]; /* in ticks of one counter for all */
    uint64_t ended[PARTY_OPS_MAX];
    char result[PARTY_OPS_MAX][64];
    uint64_t killed;      /* when; 0: never */
    uint64_t incarnation; /* as prepare tells */
};

/* Which addresses are the segment. */
void party_segment(const void *base, size_t len);

/* Forks party i, which prepares, waits for its turn, and runs. 0 or -1. */
int party_start(uint32_t i, void (*prepare)(uint32_t i),
                void (*run)(uint32_t i));

/* Lets it make that many more accesses, and gives the status it stopped in. */
uint32_t party_go_on(uint32_t i, uint64_t accesses);

/* Lets it make one operation, whoever else is in the middle of one. */
uint32_t party_one(uint32_t i);

/* SIGKILL, and waits until it is gone. */
void party_kill(uint32_t i);

/* Kills all that are not dead: who has come to its end waits for that. */
void party_end(uint32_t n);

struct party *party_at(uint32_t i);

/* In a party: the next operation begins, ends. */
void party_op_begins(void);
void party_op_ends(const char *result);

#endif
