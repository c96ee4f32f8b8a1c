/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/histories/history.h - what processes did, as they saw it, and whether
 * that can have been.
 *
 *   specification.c  what each operation does, alone
 *   check.c          is there an order of whole operations that explains it?
 *   record.c         real processes, killed for real, write down what they do
 *   objects.c        what they do with queues, locks, leaders, mailboxes,
 *                    leased elements of a list, topics
 *   wrong.c          histories that cannot have been, and some that can
 *   histories.c      the command
 *
 * A history is of one key or object, and of SLOTS processes at a time: in each slot one
 * process after the other, which does one operation after the other. Times are
 * ticks of a counter that all share. The operation in flight when a process
 * was killed may have been done or not, but not after the process's end. What
 * a dead one held of an object it loses in an operation of its own, its death,
 * which comes after its end, and before a reap that was begun then returns.
 */
#ifndef SHD_TESTS_HISTORIES_HISTORY_H
#define SHD_TESTS_HISTORIES_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLOTS 4u
#define HISTORY_MAX 512u /* operations of one key */
#define LIST_MAX (HISTORY_MAX + 8u) /* words of a state */

enum verb {
    GET, SET, ADD, REPLACE, DELETE, TAKE, CAS, /* of a register */
    INCR, INIT,                                /* of a number */
    LPUSH, RPUSH, LPOP, RPOP, LLEN,            /* of a list */
    QPUSH, QPOP, LEASE, ACK, NACK, QDIES,      /* of a queue */
    ACQUIRE, TRY, RELEASE, HELD, LDIES,        /* of a lock */
    LOOK, RESIGN, EDIES,                       /* of a leader */
    LISTEN, POST, RECEIVE, MDIES,              /* of a mailbox */
    JRPUSH, JLPUSH, JPOP, JLEN, JDELETE,       /* of a list of jobs: */
    JLTAKE, JRTAKE, JACK, JNACK, JDIES,        /* on leases */
    PUBLISH, SUBSCRIBE, NEXT, SAVE,            /* of a topic */
    VERBS
};
extern const char *const VERB_NAMES[VERBS];

enum outcome { DONE, NOTFOUND, EXISTS, CHANGED, BUSY, LOST, INHERITED, OUTCOMES };
extern const char *const OUTCOME_NAMES[OUTCOMES];

struct operation {
    uint8_t slot, verb;
    uint8_t outcome;
    bool cut_off;          /* its process was killed: outcome means nothing */
    uint32_t value, other; /* to store, add, push; of cas the old one too; of
                              objects: which process, of a post whose box;
                              of a topic it is known by its slot's name */
    uint32_t result;       /* value read, sum, length, token */
    uint64_t began;
    uint64_t ended;        /* cut off: when the process certainly was gone */
};

struct history {
    uint32_t count;
    struct operation operation[HISTORY_MAX]; /* of each slot in order */
};

/* What is stored under the key: nothing, a value, or a list from the left.
 * Values are numbers by which each is known; 0 is none. Of objects: see
 * specification.c. */
struct state {
    uint32_t count;
    uint32_t item[LIST_MAX];
};

/* Does it alone, and tells whether that gives what the operation saw. */
bool specification_apply(const struct operation *o, struct state *s);

enum verdict { POSSIBLE, IMPOSSIBLE, UNDECIDED };

/* Looks for an order, through at most `most` pairs of what has been ordered and
 * what is stored then. *stuck, if not NULL: how many operations the longest
 * order that was found has, and *looked the pairs. */
enum verdict history_check(const struct history *h, uint64_t most,
                           uint32_t *stuck, uint64_t *looked);

void history_print(const struct history *h);

/* Of text as history_print writes it. False: it is none. */
bool history_parse(const char *text, struct history *h);

/* ---- record.c ---------------- */

#define DICT_KEYS 8u
#define KEYS 14u       /* those, and the objects */
#define ROUND_MAX 260u /* operations of a slot in a round */

struct recorded {
    uint64_t operations, kills, cut_off;
    uint64_t objects;   /* operations of objects */
    uint64_t inherited; /* locks of the dead */
    uint64_t refused;   /* posts, to the dead */
    struct history of[KEYS];
};

/* Once; false having printed why not. */
bool record_open(void);

/* One round, in which processes are killed. False having printed what is
 * wrong. */
bool record_round(uint64_t seed, struct recorded *r);

/* ---- objects.c ---------------- */

enum object { /* their keys */
    QUEUE = DICT_KEYS, LOCK, LEADER, MAILBOX, JOBS, TOPIC
};

/* What a process has of them: its own memory. */
struct holding {
    uint32_t process; /* 1, 2 ... */
    uint64_t lease, token; /* 0: none */
    uint64_t job;     /* lease of a list's element, 0: none */
    void *subscription; /* NULL: none */
};

/* Opens them, in the parent; and sees that they are sound, and empties them. */
bool objects_open(void *segment);
bool objects_clean_up(void);

/* How a process that goes on holds nothing. */
bool objects_give_back(const struct holding *h, struct operation *o,
                       uint32_t *key);

/* What to do next, with the object `key`; `box` is somebody who listens. */
void objects_choose(const struct holding *h, uint32_t key, uint32_t random,
                    uint32_t box, struct operation *o);

/* Does it: the library's code, and what it means. `box`: whose a post's box is.
 * False: not to be expected. */
bool objects_perform(struct holding *h, struct operation *o, uint64_t box,
                     int *rc);

/* A worker's own box, known from now on. */
int objects_join(uint64_t *incarnation);

/* VERBS: it loses nothing there. */
enum verb objects_death(uint32_t key);

/* ---- wrong.c ---------------- */

/* The histories that were made by hand: the number of those judged rightly,
 * and of the others, which are printed. */
void wrong_by_hand(uint32_t *good, uint32_t *bad);

enum { MUTATIONS = 11 };
extern const char *const MUTATION_NAMES[MUTATIONS];

/* Makes a history that can have been into one that cannot. False: it has no
 * place for that. */
bool wrong_mutate(struct history *h, unsigned mutation, uint64_t random);

#endif
