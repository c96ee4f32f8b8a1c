/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/histories/history.h - what processes did, as they saw it, and whether
 * that can have been.
 *
 *   specification.c  what each operation does, alone
 *   check.c          is there an order of whole operations that explains it?
 *   record.c         real processes, killed for real, write down what they do
 *   wrong.c          histories that cannot have been, and some that can
 *   histories.c      the command
 *
 * A history is of one key, and of SLOTS processes at a time: in each slot one
 * process after the other, which does one operation after the other. Times are
 * ticks of a counter that all share. The operation in flight when a process
 * was killed may have been done or not, but not after the process's end.
 */
#ifndef SHD_TESTS_HISTORIES_HISTORY_H
#define SHD_TESTS_HISTORIES_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLOTS 4u
#define HISTORY_MAX 512u /* operations of one key */
#define LIST_MAX HISTORY_MAX

enum verb {
    GET, SET, ADD, REPLACE, DELETE, TAKE, CAS, /* of a register */
    INCR, INIT,                                /* of a number */
    LPUSH, RPUSH, LPOP, RPOP, LLEN,            /* of a list */
    VERBS
};
extern const char *const VERB_NAMES[VERBS];

enum outcome { DONE, NOTFOUND, EXISTS, CHANGED, OUTCOMES };
extern const char *const OUTCOME_NAMES[OUTCOMES];

struct operation {
    uint8_t slot, verb;
    uint8_t outcome;
    bool cut_off;          /* its process was killed: outcome means nothing */
    uint32_t value, other; /* to store, add, push; of cas the old one too */
    uint32_t result;       /* value read, sum, length */
    uint64_t began;
    uint64_t ended;        /* cut off: when the process certainly was gone */
};

struct history {
    uint32_t count;
    struct operation operation[HISTORY_MAX]; /* of each slot in order */
};

/* What is stored under the key: nothing, a value, or a list from the left.
 * Values are numbers by which each is known; 0 is none. */
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

#define KEYS 8u
#define ROUND_MAX 200u /* operations of a slot in a round */

struct recorded {
    uint64_t operations, kills, cut_off;
    struct history of[KEYS];
};

/* Once; false having printed why not. */
bool record_open(void);

/* One round, in which processes are killed. False having printed what is
 * wrong. */
bool record_round(uint64_t seed, struct recorded *r);

/* ---- wrong.c ---------------- */

/* The histories that were made by hand: the number of those judged rightly,
 * and of the others, which are printed. */
void wrong_by_hand(uint32_t *good, uint32_t *bad);

enum { MUTATIONS = 4 };
extern const char *const MUTATION_NAMES[MUTATIONS];

/* Makes a history that can have been into one that cannot. False: it has no
 * place for that. */
bool wrong_mutate(struct history *h, unsigned mutation, uint64_t random);

#endif
