/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/interleave/world.h - operations as text with their results as text,
 * and the state of a dict, and of what else there is, as a number.
 */
#ifndef SHD_TESTS_INTERLEAVE_WORLD_H
#define SHD_TESTS_INTERLEAVE_WORLD_H

#include <stddef.h>
#include <stdint.h>

#include "shm/shdict.h"

#define WORLD_OP_MAX 64u
#define WORLD_RESULT_MAX 64u
#define WORLD_PARTIES 3u

struct world {
    shd_segment *segment;
    shd_dict *dict;
    /* What has been made, or NULL: "q", and "d" for its dead letters. */
    shd_queue *queue, *graves;
    shd_leader *leader;
    shd_mailbox *mailbox;
    shd_topic *topic;
    /* Of this worker's: */
    uint64_t lease, request, asked, job;
    shd_subscription *subscription;
    const uint64_t *(*worker)(uint32_t party); /* its incarnation */
};

/* Runs one operation; its results as text. 0, or -1: no such operation. */
int world_run(struct world *w, const char *op,
              char result[WORLD_RESULT_MAX]);

/* Runs all of a script, to prepare. 0, or -1 having printed why not. */
int world_prepare(struct world *w, const char *script);

/* Cuts the next operation out of a script; its end, or NULL: no more. */
const char *world_next(const char *script, char op[WORLD_OP_MAX]);

/* Keys, values, flags, ttls, elements and the LRU order as one number, and what
 * is in the queues. Lists are emptied by it. 0, or -1 having printed why not. */
int world_digest(const struct world *w, uint64_t *digest);

#endif
