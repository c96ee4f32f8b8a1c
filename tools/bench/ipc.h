/* SPDX-License-Identifier: BSD-2-Clause */
/* tools/bench/ipc.h - ways to send messages from process to process, alike.
 *
 * OWNS   what each of them is made of: ours, the kernel's, boost's.
 * HOLDS  a channel leads from any sender to one receiver; a topic's is one for
 *        all receivers. Made before the processes are, used by all of them.
 */
#ifndef SHD_TOOLS_BENCH_IPC_H
#define SHD_TOOLS_BENCH_IPC_H

#include <mqueue.h>
#include <stdbool.h>
#include <stdint.h>

#include "shm/shdict.h"

#define SIZE_MAX_BYTES 65536u
#define CHANNELS_MAX 8u
#define BATCH_MAX 64u
#define LAP 16u         /* times there and back */
#define LAPS_MAX 65536u /* that are kept */

/* In memory of all the processes. */
struct shared {
    uint64_t ready, go, failed;
    uint64_t line[16]; /* handed to and fro */
    struct {           /* of each child: what it has done */
        uint64_t count, at_end, pad[6];
    } done[2 * CHANNELS_MAX];
    uint64_t receiver[CHANNELS_MAX]; /* the worker of a channel's mailbox */
    uint64_t owner, changes;         /* of a lock: who had it last */
    uint64_t laps;                   /* of a latency */
    float lap_s[LAPS_MAX];           /* how long each took */
};
extern struct shared *shared;
extern shd_segment *segment;

struct channel {
    uint32_t number;
    int fd[2];
    mqd_t mq;
    void *boost;
    char name[64];
    shd_topic *topic;
    shd_subscription *subscription;
    shd_queue *queue;
    shd_mailbox *mailbox;
    unsigned char *buf;
};

struct way {
    const char *name;
    bool ours;
    bool broadcast; /* one channel serves all receivers */
    bool many;      /* some messages with one call */
    size_t largest;
    bool (*make)(struct channel *c, size_t size);
    bool (*receiver)(struct channel *c);
    /* Up to n messages: how many. 0: none without waiting. -1: failed. */
    int (*send)(struct channel *c, const void *data, size_t len, uint32_t n,
                bool wait);
    int (*receive)(struct channel *c, void *to, size_t size, uint32_t n,
                   bool wait);
    void (*drop)(struct channel *c);
    /* Requests and their answers instead: there and back; and the other side.
     */
    int (*call)(struct channel *c, const void *data, size_t len, bool wait);
    int (*serve)(struct channel *c, void *to, size_t size, bool wait);
};

/* Ends with one that has no name. */
extern const struct way WAYS[];

/* Whether the receiver's end is to wait, for those that cannot be told with
 * each call. */
void way_set_waiting(const struct way *w, struct channel *c, bool wait);

/* Locks: a pair of take and give, by handles made before the processes. */
struct lock_way {
    const char *name;
    bool ours;
    bool (*make)(void);
    bool (*take)(void);
    bool (*give)(void);
};
extern const struct lock_way LOCK_WAYS[];

#endif
