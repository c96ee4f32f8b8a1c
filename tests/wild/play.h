/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/wild/play.h - every operation there is, at random, on a segment that
 * may be damaged anywhere.
 *
 * OWNS   the handles, and where the random numbers come from: a seed, or the
 *        bytes of a fuzzer.
 * HOLDS  buffers are of exactly the size that is given to the library, so the
 *        address sanitizer sees a byte too many. What comes back is 0 or a
 *        code of shdict.h, lengths within what was given; a failure prints
 *        why and aborts.
 */
#ifndef SHD_TESTS_WILD_PLAY_H
#define SHD_TESTS_WILD_PLAY_H

#include "shm/api/handle.h"
#include "shm/shdict.h"

enum { PLAY_SMALL = 0, PLAY_SHARDED = 1, PLAY_CONTROL = 2, PLAY_DICTS = 3 };

/* Those that are no dicts. */
struct play_objects {
    shd_queue *queue;
    shd_topic *topic[2]; /* the second one is lossless */
    shd_lock *lock[2];   /* the second one is a semaphore */
    shd_mailbox *mailbox;
};

#define PLAY_NAMED 4u

struct play {
    shd_segment *segment;
    shd_segment *readonly; /* the same file; NULL: none */
    shd_dict *dict[PLAY_DICTS];
    shd_dict *looked[PLAY_DICTS]; /* in the read-only attachment */
    struct play_objects own, seen;
    shd_subscription *subscription[2];
    uint64_t name[PLAY_NAMED], named; /* leases, tokens, tickets, requests */
    uint64_t random;
    const unsigned char *data; /* not NULL: instead of random */
    size_t left;
    uint64_t ops;
    uint64_t codes[1 - SHD_ERROR_LAST_]; /* how often each came back */
    const char *doing;
    uint64_t lease;  /* the last of a list's element */
    bool unrepaired; /* the last repair came to no good end */
};

extern const char *const PLAY_NAMES[PLAY_DICTS];

/* A fresh anonymous segment with all dicts filled. */
void play_create(struct play *p, uint32_t wait_ms);

/* Opens the dicts in p->segment (and p->readonly); what cannot be opened is
 * NULL then. */
void play_open(struct play *p);

uint64_t play_draw(struct play *p, uint64_t below);

/* One operation. May not be used on the control dict. */
void play_op(struct play *p);

/* One that reads, on the read-only attachment. */
void play_read(struct play *p);

/* Are the entries of the control dict, and those of the dict that are not of
 * shard `but`, what they were stored as? */
void play_verify_control(struct play *p);
void play_verify_shards(struct play *p, uint32_t but);

/* Counts it; a number that is no code ends it. Gives it back. */
int play_answer(struct play *p, int rc);

/* The same for queues, topics, locks, mailboxes (play_ipc.c), which play_create,
 * play_open, play_op and play_read do as well. */
void play_ipc_create(struct play *p);
void play_ipc_open(struct play *p);
void play_ipc_op(struct play *p);
void play_ipc_read(struct play *p);

/* Ends subscriptions, and forgets all names. */
void play_ipc_forget(struct play *p);

_Noreturn void play_fail(const struct play *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
