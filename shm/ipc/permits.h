/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/permits.h - locks and semaphores: permits with owners.
 *
 * A semaphore is a row of slots, one a permit; a lock is one with one slot.
 *
 *     release ---> a waiter? --yes--> its slot, its token: it has it already
 *                     | no            when it wakes up
 *                     v
 *                  list of free slots
 *
 * OWNS   the object's extent: header, slots, waiters.
 * HOLDS  each slot is free or has one owner; each waiter is in the queue, has
 *        been granted a slot, or is free; no slot is free while somebody
 *        waits; tokens only grow, and token % permits is the slot.
 * LOCK   changes: the object's guard, taken here. Looking: none. Proving
 *        deaths asks the system, outside of the lock but for the head of the
 *        line.
 * CRASH  a permit changes hands wholly or not at all. What the dead held, and
 *        their places in the queue, come back by permits_bury, which anybody
 *        may run, and any waiter does.
 * COST   taking and releasing: O(1), at most PERMITS_WORDS undo records.
 *
 * Memory for waiters is taken when there are more than ever before.
 */
#ifndef SHD_IPC_PERMITS_H
#define SHD_IPC_PERMITS_H

#include "shm/guard/txn.h"
#include "shm/ipc/object.h"

#define PERMITS_MAX 65535u
#define PERMITS_WAITERS_MAX 65535u

enum { /* struct permit_slot.mark: how its last holder parted with it */
       PERMIT_RELEASED = 0,
       PERMIT_DIED = 1,
       PERMIT_EXPIRED = 2
};

enum { /* struct permit_waiter.state */
       PERMIT_NOBODY = 0,
       PERMIT_WAITING = 1,
       PERMIT_GRANTED = 2
};

struct permits_header {
    uint32_t permits;       /*  0 slots: constant */
    uint32_t waiters_max;   /*  4 constant */
    uint32_t slots_free;    /*  8 the first free slot + 1; 0: none */
    uint32_t slots_taken;   /* 12 */
    uint64_t tokens;        /* 16 the last one's number, from 0 */
    uint64_t tickets;       /* 24 how many have waited */
    uint32_t waiters_first; /* 32 of the queue, + 1 */
    uint32_t waiters_last;  /* 36 */
    uint32_t waiters_free;  /* 40 the first free one + 1 */
    uint32_t waiters_used;  /* 44 that ever were; they have memory */
    uint32_t waiting;       /* 48 in the queue */
    uint32_t limited;       /* 52 slots taken with a time to live */
    uint64_t deaths;        /* 56 permits that dead workers held */
    uint64_t expirations;   /* 64 permits held for too long */
    uint8_t pad[56];        /* 72 */
};
static_assert(sizeof(struct permits_header) == 128, "layout");

struct permit_slot {
    uint64_t owner;      /*  0 incarnation; 0: free */
    uint64_t token;      /*  8 of the last one who got it */
    uint64_t expires_ms; /* 16 monotonic; 0: never */
    uint64_t since_ms;   /* 24 monotonic */
    uint32_t next;       /* 32 of the free ones, + 1 */
    uint32_t mark;       /* 36 */
    uint8_t pad[8];      /* 40 */
};
static_assert(sizeof(struct permit_slot) == 48, "layout");

struct permit_waiter {
    uint64_t owner;  /*  0 incarnation; 0: free */
    uint64_t ticket; /*  8 its place in line, ascending */
    uint64_t token;  /* 16 what it was granted */
    int64_t ttl_ms;  /* 24 what it asked for; 0: none */
    uint32_t state;  /* 32 */
    uint32_t next;   /* 36 in the queue, or of the free ones, + 1 */
    uint32_t prev;   /* 40 in the queue, + 1 */
    uint32_t mark;   /* 44 of the slot it was granted */
    uint32_t bell;   /* 48 1: ring its worker's bell when it is granted */
    uint8_t pad[12]; /* 52 */
};
static_assert(sizeof(struct permit_waiter) == 64, "layout");

#define PERMITS_WORDS 20u

/* As this process sees it: private memory. */
struct permits {
    struct object object;
    struct permits_header *header;
    struct permit_slot *slots;
    struct permit_waiter *waiters;
    uint32_t permits, waiters_max; /* copies, checked */
};

/* What an acquirer gets. */
struct permit_grant {
    uint64_t token;
    uint32_t mark; /* how the last holder parted with it */
};

/* A place in line. */
struct permit_place {
    uint32_t waiter; /* its number */
    uint64_t ticket;
};

/* Opens the object of that name, and makes it if it is not there and `make`.
 * number 0: of permits, as many as it has. SHD_MISMATCH: another number. */
int permits_open(const struct guard_env *env, const char *name, uint32_t kind,
                 uint32_t number, uint32_t waiters_max, bool make,
                 struct permits *out);

/* Makes it; the first token comes after that one. */
int permits_make(const struct guard_env *env, const char *name, uint32_t kind,
                 uint32_t number, uint32_t waiters_max, uint64_t tokens);

/* A view of what is behind an object. SHD_CORRUPT. */
int permits_view(const struct object *o, struct permits *out);

/* Takes a permit that is free now, with nobody waiting for it. SHD_BUSY:
 * there is none; permits_bury_all may find one. ttl_ms 0: for as long as its
 * owner lives. */
int permits_try(const struct permits *p, int64_t ttl_ms,
                struct permit_grant *grant);

/* The same, or gets in line: 1, and *place says where. Every place must be
 * left by permits_look or permits_leave; a death leaves it. `bell`: this
 * worker's bell rings when it is granted. SHD_FULL. */
int permits_enter(const struct permits *p, int64_t ttl_ms, bool bell,
                  struct permit_grant *grant, struct permit_place *place);

/* Sleeps until it may have been granted, or until_ms is over, or a slice of
 * wait.h. */
int permits_sleep(const struct permits *p, const struct permit_place *place,
                  uint64_t until_ms);

/* Has it been granted? 0: yes, and the place in line is no more. 1: not yet.
 * Takes no lock in that case. */
int permits_look(const struct permits *p, const struct permit_place *place,
                 struct permit_grant *grant);

/* Leaves the line. 0: it was granted in the meantime, *grant has it. 1: left
 * without. Both: SHD_LOST, the place is not this worker's (any more). */
int permits_leave(const struct permits *p, const struct permit_place *place,
                  struct permit_grant *grant);

/* For a leader, which is one permit that a worker stands for at most once.
 * stand: takes it if it is free, or gets in line unless this worker is there
 * already, and its bell rings when it is granted. 0: it has it. 1: in line.
 * hand_over: out of the line, and the permit to the next in it if there is one.
 * 0: there is none, this worker has it still; *grant. 1: it has it not.
 * resign: out of the line, and gives the permit back if it has it. */
int permits_stand(const struct permits *p, struct permit_grant *grant,
                  struct permit_place *place);
int permits_hand_over(const struct permits *p, struct permit_grant *grant);
int permits_resign(const struct permits *p);

/* Gives a permit of this worker's back, to the next in line. SHD_LOST: it does
 * not have it (any more). */
int permits_release(const struct permits *p, uint64_t token);

/* Does this worker hold it? SHD_OK, SHD_LOST. The time left in *ttl_ms if not
 * NULL, 0: no limit. */
int permits_holds(const struct permits *p, uint64_t token, int64_t *ttl_ms);

/* Holds it for ttl_ms from now on; 0: without a limit. SHD_LOST. */
int permits_extend(const struct permits *p, uint64_t token, int64_t ttl_ms);

/* Takes back the permits whose time is up, and gives how many; *next_ms, if
 * not NULL, is when the next one's will be; UINT64_MAX: none. */
int permits_expire(const struct permits *p, uint64_t *next_ms);

/* Takes back what a worker that is proved dead held, and its places in line;
 * or of all who are. Gives how many permits, or an error. */
int permits_bury(const struct permits *p, uint64_t incarnation);
int permits_bury_all(const struct permits *p);

/* Consistent copies for looking. SHD_NOTFOUND: that one is free. SHD_INVAL:
 * past the end. */
int permits_header_look(const struct permits *p, struct permits_header *copy);
int permits_slot_at(const struct permits *p, uint32_t index,
                    struct permit_slot *copy);
int permits_waiter_at(const struct permits *p, uint32_t index,
                      struct permit_waiter *copy);

/* How many permits that worker has. */
int permits_held(const struct permits *p, uint64_t incarnation,
                 uint64_t *count);

/* For ipc/kinds.c. */
int permits_check(const struct object *o, char *report, size_t size);
int permits_reap(const struct object *o);

#endif
