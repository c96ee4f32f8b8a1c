/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/queue.h - a queue whose messages come back when their consumer dies.
 *
 * OWNS   the own part of an object of kind SHD_OBJECT_QUEUE: this header, then
 *        the cells.
 * HOLDS  a message is in one place: ready (a list, first in first out),
 *        delayed (the tree of times), leased or reserved (the list of what is
 *        held, with its holder; leased ones that end are in the tree too),
 *        dead (a list), or on its way to another queue (ipc/letters.h).
 * LOCK   guard 0 of the object; functions take it themselves, but for who finds
 *        nothing and does not wait: a read section tells it. Long messages
 *        are copied without it, reserved or leased meanwhile.
 *        A message's holder and lease mean something while it is held, and are
 *        written, without a log, before its state says so.
 * CRASH  each of the moves is one transaction, also of up to QUEUE_BATCH_MAX
 *        messages at once. What a dead worker held is given back by whoever
 *        comes next: reap, a waiter, a consumer that finds nothing.
 * COST   O(1), or O(log n) for what has a time.
 */
#ifndef SHD_IPC_QUEUE_H
#define SHD_IPC_QUEUE_H

#include "shm/ipc/cells.h"

enum { /* struct message.state */
    QUEUE_READY = 1,
    QUEUE_DELAYED = 2,
    QUEUE_LEASED = 3,
    QUEUE_RESERVED = 4,
    QUEUE_DEAD = 5
};

enum { QUEUE_WAIT_MESSAGES = 0, QUEUE_WAIT_ROOM = 1 }; /* places */

struct queue_header {
    uint64_t messages_max;      /*   0 0: as many as fit */
    uint64_t lease_ms;          /*   8 0: leases end with their holder */
    uint32_t deliveries_max;    /*  16 0: no end of deliveries */
    uint32_t reserved;          /*  20 */
    uint64_t looked_ms;         /*  24 when a consumer last looked for dead
                                       holders; a hint, without a log */
    uint64_t capacity_bytes;    /*  32 as asked for */
    uint64_t message_bytes;     /*  40 */
    uint8_t pad[16];            /*  48 */
    struct cells_header cells;  /*  64 */
    struct message_list ready;  /* 128 what each push and take changes: */
    struct message_list held;   /* 136 */
    uint32_t n_ready;           /* 144 with n_leased, one word */
    uint32_t n_leased;          /* 148 */
    uint32_t n_delayed;         /* 152 */
    uint32_t n_reserved;        /* 156 */
    uint64_t bytes;             /* 160 of all messages */
    uint64_t ids;               /* 168 the last number given */
    uint64_t leases;            /* 176 the last one given */
    uint64_t pushed;            /* 184 */
    uint64_t acked;             /* 192 what consumers change: */
    uint64_t popped;            /* 200 taken out at once */
    struct message_list dead;   /* 208 */
    uint32_t timed;             /* 216 tree */
    uint32_t n_dead;            /* 220 */
    uint64_t redelivered;       /* 224 came back: nack, end of lease, death */
    uint64_t expired;           /* 232 of them by the end of their lease */
    uint64_t orphaned;          /* 240 of them by the death of the holder */
    uint64_t buried;            /* 248 became dead letters */
    uint64_t drained;           /* 256 */
    uint64_t pad2;              /* 264 */
    /* A dead letter on its way to another queue (ipc/letters.h): */
    uint64_t mover;             /* 272 incarnation; 0: who comes next goes on */
    uint32_t letter;            /* 280 a message that is in no list; 0 */
    uint32_t stage;             /* 284 LETTER_ */
    uint64_t forwarded;         /* 288 */
    uint32_t fed;               /* 296 1: a queue sends its dead letters here;
                                       a hint, without a log */
    uint8_t pad4[20];           /* 300 */
    char dead_to[64];           /* 320 constant; "": they stay */
};
static_assert(sizeof(struct queue_header) == 384, "layout");
static_assert(offsetof(struct queue_header, mover) == 272, "layout");
static_assert(offsetof(struct queue_header, dead_to) == 320, "layout");
static_assert(offsetof(struct queue_header, cells) == 64, "layout");
static_assert(offsetof(struct queue_header, ready) == 128, "layout");
static_assert(offsetof(struct queue_header, n_ready) % 8 == 0 &&
                  offsetof(struct queue_header, n_leased) ==
                      offsetof(struct queue_header, n_ready) + 4,
              "a word");
static_assert(offsetof(struct queue_header, acked) == 192, "layout");

/* This process's view, constant. */
struct queue {
    struct object object;
    struct queue_header *header;
    struct cells cells;
};

/* Opens the queue of that name; with create, makes it as o says if there is
 * none. SHD_MISMATCH: it is there with other properties. */
int queue_open(const struct guard_env *env, const char *name,
               const struct shd_queue_options *o, bool create,
               struct queue *out);

/* The same, and a new one's numbers go on after `ids`. */
int queue_make(const struct guard_env *env, const char *name,
               const struct shd_queue_options *o, uint64_t ids,
               struct queue *out);

int queue_view(const struct object *o, struct queue *out);

/* As shdict.h's, with checked arguments. */
int queue_reserve(const struct queue *q, size_t len, int64_t wait_ms,
                  uint64_t *lease);
int queue_write(const struct queue *q, uint64_t lease, uint64_t at,
                const void *data, size_t len);
int queue_commit(const struct queue *q, uint64_t lease, int64_t delay_ms,
                 uint64_t *id);
int queue_cancel(const struct queue *q, uint64_t lease);
int queue_push_many(const struct queue *q, uint32_t count,
                    const void *const *data, const size_t *len,
                    int64_t delay_ms, int64_t wait_ms, uint64_t *ids,
                    uint32_t *pushed);
int queue_take_many(const struct queue *q, void *buf, size_t size,
                    int64_t wait_ms, bool lease, uint32_t max,
                    struct shd_message *m, size_t *at, uint32_t *taken);
int queue_ack_many(const struct queue *q, uint32_t count,
                   const uint64_t *leases, int32_t *codes);
int queue_nack(const struct queue *q, uint64_t lease, int64_t delay_ms);
int queue_extend(const struct queue *q, uint64_t lease, int64_t lease_ms);
int queue_peek(const struct queue *q, uint32_t which, uint64_t index,
               void *buf, size_t size, struct shd_message *m);
int queue_drain(const struct queue *q, uint32_t which, uint64_t max,
                uint64_t *n);
int queue_requeue(const struct queue *q, uint64_t max, uint64_t *n);
int queue_arm(const struct queue *q, uint32_t place, int64_t *again_ms);
int queue_info(const struct queue *q, struct shd_queue_info *info);

/* How many messages that worker has on a lease, or reserved. */
int queue_held(const struct queue *q, uint64_t incarnation, uint64_t *count);

/* For keep/: a message as it was in another queue of the kind: READY, DELAYED
 * until `when` (clock_now_ms), or DEAD. */
int queue_put(const struct queue *q, const void *data, size_t len,
              uint32_t state, uint32_t attempts, uint64_t id,
              uint64_t pushed_ms, uint64_t when);

/* For ipc/letters.h: what arrives from another queue is reserved, with a tag,
 * until it is one of this queue's messages. */

/* Reserves room, as queue_reserve without waiting; the bytes are undefined. */
int queue_letter_room(const struct queue *q, size_t len, uint64_t *lease);

/* The reservation is whole, and outlives its holder. */
int queue_letter_mark(const struct queue *q, uint64_t lease, uint64_t tag,
                      uint64_t from, uint64_t pushed_ms);

/* The reservation with that tag becomes ready: the newest, or the one that has
 * that number (message.lease). SHD_NOTFOUND: there is none. */
int queue_letter_arrive(const struct queue *q, uint64_t tag, uint64_t number);

/* With the lock: it, or NULL. number 0: the newest. */
struct message *queue_letter_find(const struct queue *q, uint64_t tag,
                                  uint64_t number);

/* ---- queue.c for queue_batch.c ------------------------------------------ */

#define QUEUE_BATCH_MAX 64u /* messages in one hold of the lock */
#define QUEUE_COPY_MAX 16384u /* bytes copied under it; more is without */

#define QUEUE_LEASED_SET (1u << QUEUE_LEASED)
#define QUEUE_RESERVED_SET (1u << QUEUE_RESERVED)

static inline uint32_t queue_state(const struct message *m)
{
    return atomic_load32(&m->state) & ~MESSAGE_RED;
}

static inline uint64_t queue_token(const struct queue *q,
                                   const struct message *m)
{
    return (atomic_load64(&m->lease) & UINT32_MAX) << 32 |
           cells_ref(&q->cells, m);
}

/* With the lock, inside a transaction or not. What a reading verb tells. */
void queue_tell(const struct queue *q, const struct message *m,
                struct shd_message *out);

/* Locks with room for a message of len bytes, which is found, or waits for it
 * until then. */
int queue_lock_with_room(const struct queue *q, size_t len,
                         struct wait_end *by, struct cells_run *run);

/* With the lock: how many messages messages_max lets in. */
uint64_t queue_messages_left(const struct queue *q);

/* As queue_push_many, one message, that is long or delayed. */
int queue_push_apart(const struct queue *q, const void *data, size_t len,
                     int64_t delay_ms, struct wait_end *by, uint64_t *id);

/* With the lock: messages whose time has come become ready. *next: when to look
 * again. */
int queue_settle(const struct queue *q, uint32_t *moved, uint64_t *next);

/* With the lock, which is let go of. False: it is too late to wait. True: the
 * caller looks again; *looked is its own, false before the first call. */
bool queue_wait(const struct queue *q, uint32_t place, struct wait_end *by,
                uint64_t next, bool *looked);

/* With the lock, having found nothing: has it been long since somebody looked
 * for dead holders? Then queue_reap_held, without it. */
bool queue_should_look(const struct queue *q);
int queue_reap_held(const struct queue *q);

/* With the lock: the message that this worker holds by that token. SHD_LOST. */
int queue_find_held(const struct queue *q, uint64_t lease, uint32_t states,
                    struct message **out);

/* With the lock: one ready message on a lease that ends at `when` (0: with its
 * holder). A held one is done. */
int queue_lease(const struct queue *q, struct message *m, uint64_t when);
int queue_done(const struct queue *q, struct message *m, uint64_t *counted);

/* With the lock, which is let go of: takes, or pops, a long message, copying it
 * without, and wakes so many others. *again: it was lost meanwhile. */
int queue_take_long(const struct queue *q, struct message *m, void *buf,
                    size_t size, bool lease, uint32_t wake,
                    struct shd_message *out, bool *again);

/* With the lock, which is let go of: so many messages can be taken now. */
void queue_unlock_and_wake(const struct queue *q, uint32_t messages,
                           bool room);

/* For the table of kinds. */
int queue_check(const struct object *o, char *report, size_t size);
int queue_reap(const struct object *o);

#endif
