/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/model/naive.h - a dictionary written to be obviously right.
 *
 * OWNS   an array of entries, one for each key there can be: key number k is
 *        entry k, so nothing is hashed, balanced or evicted. A list is an
 *        array that moves all its elements when the first one goes.
 * HOLDS  what shm/shdict.h promises when there is always room.
 *
 * Bytes of values are never copied: they are slices of the test's pool of
 * random bytes, which is never written.
 */
#ifndef SHD_TESTS_MODEL_NAIVE_H
#define SHD_TESTS_MODEL_NAIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/shdict.h"

struct naive_value {
    uint32_t type; /* SHD_STRING, SHD_NUMBER, SHD_BOOLEAN */
    const unsigned char *bytes;
    size_t len;
    double number;
};

struct naive_entry {
    bool stored;
    uint32_t type; /* SHD_LIST, or that of value */
    struct naive_value value;
    int32_t flags;
    uint64_t deadline_ms; /* 0: never expires */
    bool flushed;         /* by flush_all: how long ago it expired is open */
    struct naive_value *list;
    size_t list_len, list_room;
    size_t leased;    /* elements of it */
    uint64_t list_id; /* no two lists have the same */

    uint64_t version; /* as given out since the last change; 0: unknown */
    uint64_t newest;  /* that was ever given out */

    /* For the checks: */
    uint64_t stored_at;    /* number of the store that wrote it */
    bool changed_since;    /* by something else than a store */
    uint64_t evictions;    /* the dict's counters when it was last seen */
    uint64_t expirations;
};

bool naive_is_live(const struct naive_entry *e, uint64_t now_ms);

/* ms left, as shd_ttl gives it; an entry that expires just now has -1. */
int64_t naive_ttl_ms(const struct naive_entry *e, uint64_t now_ms);

/* These give SHD_OK or the code shdict.h states. */
int naive_store(struct naive_entry *e, uint64_t now_ms, uint32_t op,
                const struct naive_value *v, int64_t ttl_ms, int32_t flags);
int naive_delete(struct naive_entry *e, uint64_t now_ms);
int naive_incr(struct naive_entry *e, uint64_t now_ms, double by,
               bool has_init, double init, int64_t ttl_ms, double *result);
int naive_expire(struct naive_entry *e, uint64_t now_ms, int64_t ttl_ms);
void naive_flush(struct naive_entry *e, uint64_t now_ms);
int naive_push(struct naive_entry *e, uint64_t now_ms, bool left,
               const struct naive_value *v, uint64_t *length);
int naive_pop(struct naive_entry *e, uint64_t now_ms, bool left,
              struct naive_value *v);

/* An element on a lease: *id is its list's. It is done, or goes back to that
 * end: SHD_LOST if that is not the key's list any more. */
int naive_take(struct naive_entry *e, uint64_t now_ms, bool left,
               struct naive_value *v, uint64_t *id);
int naive_done(struct naive_entry *e, uint64_t id);
int naive_back(struct naive_entry *e, uint64_t id, bool left,
               const struct naive_value *v);
int naive_llen(const struct naive_entry *e, uint64_t now_ms,
               uint64_t *length);

/* `old` NULL: if there is none; v NULL: deletes. */
int naive_cas(struct naive_entry *e, uint64_t now_ms,
              const struct naive_value *old, const struct naive_value *v,
              int64_t ttl_ms, int32_t flags);

/* The same by version, 0: if there is none. */
int naive_store_versioned(struct naive_entry *e, uint64_t now_ms,
                          uint64_t version, const struct naive_value *v,
                          int64_t ttl_ms, int32_t flags);

int naive_touch(struct naive_entry *e, uint64_t now_ms, bool expires,
                int64_t ttl_ms);

/* SHD_OK: a live string it could be added to. */
int naive_is_string(const struct naive_entry *e, uint64_t now_ms);

/* Nothing is there any more. */
void naive_clear(struct naive_entry *e);

#endif
