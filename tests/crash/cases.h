/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/cases.h - in which structures which operation is cut off. */
#ifndef SHD_TESTS_CRASH_CASES_H
#define SHD_TESTS_CRASH_CASES_H

#include <stddef.h>
#include <stdint.h>

enum { /* struct crash_case.flags */
    CASE_STEPS = 1, /* a row of transactions: each key as before or after */
    CASE_NEST = 2,  /* every store of every recovery as well */
    CASE_SAME = 4,  /* nothing to be seen changes */
    CASE_REPAIR = 8 /* it is damaged before; whoever comes next repairs it */
};

struct crash_case {
    const char *name;
    uint32_t kib;    /* capacity */
    uint32_t shards; /* 0: by capacity */
    uint32_t hint;   /* entries_hint; 1: one tree */
    uint32_t flags;
    uint32_t from, to; /* once for each number, which replaces "#" */
    const char *setup, *operation; /* see script.h */
};

extern const struct crash_case CASES[];
extern const size_t CASE_COUNT;

#endif
