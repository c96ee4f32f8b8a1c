/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/storm/storm.h - what the workers of the storm and its parent share.
 *
 * OWNS   the journal: shared memory of the parent that no operation of the
 *        library touches. A worker writes its intent before an operation and
 *        what was acknowledged after it; a SIGKILL leaves a prefix of these
 *        stores, so the parent knows of each operation whether it had
 *        returned, was in flight, or had not begun.
 *
 * WHAT MUST HOLD, whoever was killed when
 *   own keys    each worker has keys that only it writes: they hold the last
 *               acknowledged value, or the one in flight at a death
 *   own list    a queue only it uses: first in, first out, none lost
 *   counters    shared: acknowledged <= value <= acknowledged + in flight
 *   lists       shared: an element that was pushed comes out once; at most as
 *               many are missing as workers died in a pop
 *   small       a dict that evicts: what is found is whole
 *   supervisor  with --supervisor, one process watches (shd_watch), recovers
 *               from each death, and is itself killed again and again
 *   capacities  a process changes both dicts' all the time, and is killed at it:
 *               the big one has room at any of them, so nothing goes
 *
 * HOW A WORKER DIES is given to it at birth (fate). Most by a SIGKILL that the
 * kernel sends when a timer of theirs is due, at an instruction that nobody
 * chose, while they work or before they have registered; the parent kills the
 * others, and any of those first: one at random, one that it sees with a lock,
 * those that sleep before a lock whose holder it has stopped, many at once.
 */
#ifndef SHD_TESTS_STORM_STORM_H
#define SHD_TESTS_STORM_STORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/shdict.h"
#include "tests/storm/meter.h"

/* What the dicts are made with, and changed between. */
#define BIG_BYTES (16ull << 20)
/* Twice what there is, at most. */
#define BIG_LEAST(workers) ((2ull << 20) + (workers) * (192ull << 10))
#define BIG_MOST (40ull << 20)
#define SMALL_BYTES (64ull << 10)
#define SMALL_LEAST (40ull << 10)
#define SMALL_MOST (1ull << 20)
#define SLOTS_MAX 32u
#define OWN_KEYS 96u
#define OWN_KEYS_LOOKED_AT 4u /* by the next worker of the slot */
#define WITNESSES 2u /* the first slots: they die only at audits */
#define SMALL_KEYS 700u
#define COUNTERS 4u
#define LISTS 4u
#define LIST_LONG 120u
#define RECOVERERS 24u /* at each audit, at most */
#define ELEMENTS (1u << 17) /* of one slot, between two audits */
#define VALUE_MAX 14000u

/* Kinds of operations: the journal's intents, and names for stalls. */
#define STORM_KINDS(X)                                                        \
    X(NONE, "none")                                                           \
    X(SET, "set")                                                             \
    X(SAFE_SET, "safe_set")                                                   \
    X(ADD, "add")                                                             \
    X(REPLACE, "replace")                                                     \
    X(DELETE, "delete")                                                       \
    X(EXPIRE, "expire")                                                       \
    X(GET, "get")                                                             \
    X(READ_OTHER, "get of another's key")                                     \
    X(INCR, "incr")                                                           \
    X(PUSH, "push")                                                           \
    X(POP, "pop")                                                             \
    X(LLEN, "llen")                                                           \
    X(OWN_PUSH, "push to its own queue")                                      \
    X(OWN_POP, "pop from its own queue")                                      \
    X(SMALL_SET, "set in the small dict")                                     \
    X(SMALL_SAFE_SET, "safe_set in the small dict")                           \
    X(SMALL_GET, "get in the small dict")                                     \
    X(SMALL_DELETE, "delete in the small dict")                               \
    X(SMALL_INCR, "incr in the small dict")                                   \
    X(SMALL_PUSH, "push in the small dict")                                   \
    X(SMALL_POP, "pop in the small dict")                                     \
    X(SMALL_APPEND, "append in the small dict")                               \
    X(SMALL_TAKE, "take in the small dict")                                   \
    X(SMALL_FLUSH, "flush_expired in the small dict")                         \
    X(SCAN, "scan")                                                           \
    X(JOIN, "join")                                                           \
    X(REAP, "reap")
#define STORM_ENUM_(name, text) KIND_##name,
enum kind { STORM_KINDS(STORM_ENUM_) KINDS };

extern const char *const KIND_NAMES[];

/* How a worker is to die. */
enum fate {
    FATE_PARENT, /* the parent kills it */
    FATE_TIMER,  /* the kernel does, while it works */
    FATE_EARLY   /* the kernel does, perhaps before it has registered */
};

struct slot {
    /* Written by the parent while no worker has the slot. */
    uint32_t fate;
    uint32_t delay_ns; /* of the kernel's, from when it is armed */
    uint32_t lives;
    uint32_t pid;       /* of the last that was killed, */
    uint64_t killed_ns; /* and when; by a worker's own timer: when it is due */
    uint32_t cut_kinds[KINDS]; /* what its workers were killed in */

    uint32_t joined; /* the worker has registered */

    /* Intent: what is in flight, `kind` written last. */
    uint32_t kind;
    uint32_t target;  /* number of the key, counter or list */
    uint64_t version; /* of the value, or the element's number */

    /* Acknowledged. */
    uint64_t next_version;           /* never used twice */
    uint64_t own[OWN_KEYS];          /* version, 0: deleted */
    uint64_t queue_head, queue_tail; /* elements popped, pushed */
    uint64_t counted[COUNTERS];
    uint64_t elements; /* numbers used */
    uint8_t pushed[ELEMENTS]; /* list + 1, acknowledged */
    uint64_t ops;

    /* Of dead workers: operations that may have happened. */
    uint64_t counts_open[COUNTERS];
    uint64_t pops_open[LISTS];
    uint8_t push_open[ELEMENTS]; /* list + 1 */

    struct meter meter;
    char failure[400];
};

/* How far one has come that recovers. */
enum { STAGE_BEFORE, STAGE_IN, STAGE_AFTER };
struct stage {
    uint32_t at;
};

struct journal {
    uint64_t resizes; /* that were done */
    struct stage recoverer;
    struct histogram recovery; /* from SIGKILL, of those it was told of */
    struct meter resizer;
    uint8_t popped[SLOTS_MAX][ELEMENTS]; /* times, by whoever popped it */
    struct slot slot[SLOTS_MAX];
};

struct storm {
    shd_segment *segment;
    shd_dict *big, *small;
    struct journal *journal;
    uint32_t workers;
};

/* Opens the dicts of an attached segment; makes them first if `make`. */
int storm_open_dicts(struct storm *s, bool make);

/* Names of keys; the result's length. */
unsigned name_own(char *key, uint32_t slot, uint32_t n);
unsigned name_queue(char *key, uint32_t slot);
unsigned name_counter(char *key, uint32_t n);
unsigned name_list(char *key, uint32_t n);
#define NAME_BYTES 32

/* The value of a version of an own key: the bytes are a function of all
 * three, so a mixture of two values is never a third. The result's type;
 * *len bytes, or *number. */
uint32_t value_make(uint32_t slot, uint32_t key, uint64_t version,
                    unsigned char *bytes, uint64_t *len, double *number);

/* Which version of the slot's key is stored? 0: none. -1: none that ever was,
 * and `why` tells. Takes from shd_get's results. */
int64_t value_version(const struct storm *s, uint32_t slot, uint32_t key,
                      char *why, size_t why_size);

/* The element behind a popped value: slot and number. 0, or -1: none that
 * its slot has begun to push. */
int element_parse(const struct storm *s, const struct shd_value *v,
                  const unsigned char *bytes, uint32_t *slot,
                  uint32_t *number);

/* Never returns. Verifies what its predecessor in the slot had acknowledged,
 * then works until it is killed. Exits with 3 if something does not hold,
 * told in the slot's `failure`. */
_Noreturn void worker_run(const struct storm *s, uint32_t slot,
                          uint64_t seed);

/* The kernel kills the calling process in so many nanoseconds; the journal
 * says when. */
void worker_dies_in(struct slot *slot, uint32_t ns);

/* Finds out by reading whether what the slot's last worker had in flight has
 * happened, and makes the journal say so. 0, or -1 and `why`. May be cut off
 * and run again. */
int slot_settle(const struct storm *s, uint32_t slot, char *why,
                size_t why_size);

/* Notes in the journal what a dead worker had in flight, where the next
 * worker cannot find out by reading. */
void audit_death(struct slot *slot);

/* With no worker alive: verifies everything, and empties the shared lists
 * and the counters' open accounts. 0, or -1 having printed what fails. */
int audit_all(const struct storm *s);

struct audit_totals {
    uint64_t keys, elements, elements_lost, pops_open, counts, counts_open,
        counts_extra;
};
extern struct audit_totals audit_totals;

#endif
