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
 *   keys (a walk from the first to the last)   flush   sweep   reap
 *   advance MS (the clock)
 *   fill KEY COUNT LEN   thin KEY COUNT STEP   (to prepare)
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
