/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/wild/scribble.h - stray writes into a segment.
 *
 * OWNS   which bytes are hit and what is written there: random bytes, words,
 *        cache lines, pages; small changes of what is there; references,
 *        offsets and counts that are valid somewhere else.
 */
#ifndef SHD_TESTS_WILD_SCRIBBLE_H
#define SHD_TESTS_WILD_SCRIBBLE_H

#include "tests/wild/play.h"

enum scribble_where {
    SCRIBBLE_ANYWHERE, /* also header, registry, catalogue */
    SCRIBBLE_SMALL,    /* what is the small dict's: guard, extent */
    SCRIBBLE_SHARD,    /* what is one shard's of the sharded dict */
    SCRIBBLE_WHERES
};

extern const char *const SCRIBBLE_NAMES[SCRIBBLE_WHERES];

struct scribbler {
    unsigned char *base;
    uint64_t used; /* bytes of the segment that there is memory for */
    enum scribble_where where;
    struct dict small, sharded; /* where their parts are */
    uint32_t shard;
    uint64_t random;
    struct play *source; /* not NULL: draws come from it, not from random */
    uint64_t done;
};

void scribble_start(struct scribbler *s, const struct play *p,
                    enum scribble_where where, uint32_t shard, uint64_t seed);
/* Byte offset. */
void scribble_at(struct scribbler *s, uint64_t at);
void scribble(struct scribbler *s);

#endif
