/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/interleave/cases.h - which operations run beside which, on what.
 *
 * A "?" before an operation: its result is not compared (a walk shows each key
 * as it was when it came by). Operations are separated by ";", at most PARTY_OPS_MAX a party. LEN is in
 * bytes, C the byte a value is made of.
 *   set|safe|add|replace KEY LEN C   num KEY N   get|stale|del KEY
 *   incr|init KEY N (init: with 100 to begin with)   expire KEY MS
 *   cas KEY LEN CD (from LEN bytes C to as many D)   version KEY (its value)
 *   vadd KEY N (to a number, by version)   take KEY   touch KEY
 *   append KEY LEN C
 *   lpush|rpush KEY LEN C   lpop|rpop|llen KEY
 *   ltake|rtake KEY   lack   lnack (of what was taken last)
 *   lmove KEY TO ENDS (ll, lr, rl, rr)
 *   keys (a walk from the first to the last)   flush   sweep   reap
 *   advance MS (the clock)   resize KIB
 *   fill KEY COUNT LEN   thin KEY COUNT STEP   (to prepare)
 *   queue KIB [DELIVERIES] (then its dead letters go to:)   graves KIB
 *   leader   mailbox KIB   topic BYTES [lossless]      (to prepare)
 *   qpush LEN N   qpop   dpop (of graves)   qtake   qack   qnack
 *   lead   resign
 *   listen   unlisten   post|ask PARTY LEN C   receive   answer
 *   await   unask
 *   pub LEN N   sub NAME (from now on, or where it was)   next   save
 *   unsub
 * What a party holds goes back when it has come to its end, or was killed.
 */
#ifndef SHD_TESTS_INTERLEAVE_CASES_H
#define SHD_TESTS_INTERLEAVE_CASES_H

#include <stddef.h>
#include <stdint.h>

#include "tests/interleave/party.h"

enum { /* struct interleave_case.flags */
    INTERLEAVE_STEPS = 1, /* cut off, it may have evicted and not stored */
    INTERLEAVE_LOOSE = 2  /* who is evicted depends on the order of steps */
};

struct interleave_case {
    const char *name;
    uint32_t kib;    /* capacity */
    uint32_t shards; /* 0: by capacity */
    uint32_t flags;
    const char *setup;
    const char *party[PARTIES_MAX]; /* NULL: no more */
};

extern const struct interleave_case CASES[];
extern const size_t CASE_COUNT;

#endif
