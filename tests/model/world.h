/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/model/world.h - one configuration's dict, and the map beside it.
 *
 * OWNS   the random numbers (a seed's, or a fuzzer's bytes), and what is checked of every
 *        single result. A check that fails prints how to see it again, and
 *        ends the process.
 */
#ifndef SHD_TESTS_MODEL_WORLD_H
#define SHD_TESTS_MODEL_WORLD_H

#include <inttypes.h>

#include "shm/api/handle.h"
#include "shm/shdict.h"
#include "tests/model/naive.h"

#define POOL_BYTES (1u << 20)
#define KEY_MAX 65535u

/* Of 100 values, how many are of which kind. */
struct mix {
    const char *name;
    unsigned number, boolean, small, medium, large, largest;
};

enum key_form { KEY_BYTE, KEY_PLAIN, KEY_MIXED, KEY_LONG };

struct config {
    const char *name;
    uint64_t capacity;
    uint32_t shards; /* 0: by capacity */
    uint64_t hint;   /* entries_hint */
    uint32_t keys;
    enum key_form form;
    const struct mix *mix;
    unsigned lists;    /* of 100 operations, on lists */
    uint32_t list_max; /* elements */
    unsigned share;    /* of all operations, in thousandths */
    bool evicts;       /* too small for its keys */
};

struct key {
    unsigned char *bytes;
    size_t len;
    bool seen;      /* in the walk that is going on */
    bool disturbed; /* changed during it */
};

#define LEASES_MAX 64u

/* An element that is out on a lease. */
struct model_lease {
    uint64_t number, list;
    uint32_t k;
    bool left;
    struct naive_value value;
};

struct world {
    struct model_lease lease[LEASES_MAX + 1];
    uint32_t leases;
    const struct config *config;
    uint64_t seed, ops_asked, random, op, stores;
    const unsigned char *data; /* not NULL: draws come from it, not random */
    size_t left;
    shd_segment *segment;
    shd_dict *dict;
    struct shd_dict_info info; /* as of refresh() */
    uint64_t value_max, fresh_free;
    struct key *keys;
    struct naive_entry *entries;
    unsigned char *pool, *buffer, *key_buffer;
    size_t buffer_size;
    const char *doing; /* the operation, for failures */
    uint32_t key;      /* of it */
    bool walking;      /* a walk is going on: no steps that touch all keys */
    /* Live and expired entries found gone, and stores that may have removed
     * the very entry they replaced. */
    uint64_t gone_live, gone_expired, may_replace_own;
    uint64_t checks, walks, nomem, toobig, no_space;
};

/* clock.c: the real clock's. */
double seconds(void);

uint64_t next(struct world *w);
uint64_t below(struct world *w, uint64_t n);
bool one_in(struct world *w, uint64_t n);

__attribute__((noreturn, format(printf, 2, 3))) void
fail(const struct world *w, const char *format, ...);
const char *name_of(int code);
void expect(const struct world *w, int got, int wanted);

uint64_t now(void);
void refresh(struct world *w); /* w->info */

/* The map's entry for a key. */
struct naive_entry *entry(struct world *w, uint32_t k);

/* It is there: from now on a removal must be counted for it to be gone. */
void saw(struct world *w, struct naive_entry *e);

/* Brings the map up to what had to go, for one key. */
void learn(struct world *w, uint32_t k);

/* What the dict says against the map. */
void check_ttl(const struct world *w, const struct naive_entry *e,
               int64_t got);
void check_value(const struct world *w, const struct naive_value *n,
                 const struct shd_value *v, const void *bytes);
void get(struct world *w, uint32_t k, bool stale, size_t size);
void compare(struct world *w, uint32_t k);

/* Around a call with a buffer of that size: nothing is written past it. */
void canary_set(struct world *w, size_t size);
void canary_check(const struct world *w, size_t size);

/* Random material, as the configuration mixes it. */
size_t some_buffer_size(struct world *w);
double random_number(struct world *w);
struct naive_value random_value(struct world *w);
int64_t random_ttl(struct world *w);
int32_t random_flags(struct world *w);
uint32_t random_key(struct world *w, bool for_list);

/* operations.c: one operation, on both sides. */
void random_op(struct world *w);

/* operations.c: the same, that one; key w->key. */
struct operation {
    const char *name;
    void (*of_key)(struct world *w, uint32_t k); /* one of the two */
    void (*of_all)(struct world *w);
};
extern const struct operation OPERATIONS[];
extern const uint32_t OPERATION_COUNT;

/* operations.c: what every change is held to; see there. */
bool fits(const struct world *w, uint32_t k, size_t len, int32_t flags);
void check_forced(struct world *w, const struct shd_dict_info *before,
                  bool allowed, uint32_t forcible);

/* beyond.c: one operation that ngx.shared.DICT lacks. */
void beyond_op(struct world *w, uint32_t k);

/* operations.c: may there be no room for an element of a list? */
void check_no_element(struct world *w, uint32_t k,
                      const struct naive_value *element);

/* lists.c: what is done with leases, and from list to list. */
void lease_op(struct world *w, uint32_t k);

/* operations.c: walks over everything; then the bookkeeping must add up. */
void audit(struct world *w);

/* life.c: a dict as w->config says, and an empty map. The segment is so much
 * larger than the dict may become. */
void begin(struct world *w, uint64_t room_bytes, uint32_t locks);
void check_segment(struct world *w);

/* life.c: everything goes; is every byte free again? */
void end(struct world *w);

#endif
