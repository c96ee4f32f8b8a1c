/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/memory/torture.h - one dict that is driven into the worst states, and
 * what each store into it must keep to.
 *
 * HOLDS  a plain store of what fits the dict alone succeeds; a safe one and a
 *        push fail only when account_pages_needed says so, remove nothing
 *        live, and change nothing when they fail; no store evicts more than
 *        the bound. Else: how to see it again is printed, and the process
 *        ends.
 */
#ifndef SHD_TESTS_MEMORY_TORTURE_H
#define SHD_TESTS_MEMORY_TORTURE_H

#include <inttypes.h>

#include "shm/api/handle.h"
#include "shm/dict/account.h"
#include "shm/shdict.h"

#define SIZES 6u

struct config {
    const char *name;
    uint64_t capacity;
    uint32_t shards;
    uint64_t hint;
    uint32_t keys; /* different ones */
    bool beside;   /* by processes at once, see beside.c */
};

/* The most of something, and by which store: with its operation's number as
 * --ops it comes again. */
struct worst {
    uint64_t n, op, len;
    const char *mood;
};

/* How much of the pages' bytes is in cells that are handed out. */
struct utilisation {
    double sum;
    uint64_t n;
    struct worst least; /* n: what is not in use, of a million */
};

/* Worst and total of the stores of one dict. */
struct record {
    uint64_t plain, safe, pushes, refused, checked;
    uint64_t evictions, moves;
    struct worst worst_evictions, worst_moves, worst_expirations;
    struct worst worst_transactions, worst_ns, worst_cpu_ns;
    struct worst worst_small_evictions; /* by a store of one cell */
    struct worst worst_small_ns, worst_small_cpu_ns;
    struct worst worst_refused;  /* bytes free when a safe store failed */
    struct utilisation full;     /* when no page is free */
    struct utilisation evicting; /* after a store that has evicted */
};

struct world {
    const struct config *config;
    uint64_t seed, random, op, ops_max;
    double until;
    shd_segment *segment;
    shd_dict *dict;
    struct dict *d; /* what is behind it */
    uint64_t value_max;
    unsigned char *pool, *buffer;
    size_t sizes[SIZES]; /* what the mood stores */
    uint64_t drift;
    uint32_t hot; /* shard */
    const char *mood, *doing;
    struct account_cells *live;
    struct record *record; /* shared with who began the process */
};

/* ---- stores.c ---------------------------------------------------------- */

double real_seconds(void);
double cpu_seconds(void);  /* of this thread: without being put aside */
void forward(uint64_t ms); /* the frozen clock */
uint64_t below(struct world *w, uint64_t n);
_Noreturn void fail(const struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define KEY_ROOM 4096u

/* Key number n, in shard `shard` if that is not UINT32_MAX; to KEY_ROOM bytes.
 * Some are so long that they begin a chain, where the dict is large enough. */
size_t key_make(const struct world *w, uint64_t n, uint32_t shard, char *key);

void plain(struct world *w, uint64_t n, uint32_t shard, size_t len,
           int64_t ttl_ms);
/* False: refused. */
bool safe(struct world *w, uint64_t n, uint32_t shard, size_t len,
          int64_t ttl_ms);
/* Of a number, made if it is not there. */
void incr(struct world *w, uint64_t n);
bool push(struct world *w, uint64_t n, size_t len);
void drop(struct world *w, uint64_t n, uint32_t shard);
void check(struct world *w);

/* What a store of len bytes has taken. */
void latency_add(struct world *w, double seconds, double cpu, uint64_t len);

/* Adds how much is in use now, after a store of len bytes. */
void utilisation_add(struct world *w, struct utilisation *u, uint64_t len);

/* ---- beside.c ---------------------------------------------------------- */

void beside(struct world *w);

/* ---- moods.c ----------------------------------------------------------- */

struct mood {
    const char *name;
    void (*begin)(struct world *w); /* or NULL */
    void (*step)(struct world *w);
};
extern const struct mood MOODS[];
extern const size_t MOOD_COUNT;

#endif
