/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/read.h - reading one key.
 *
 * LOCK   none; after READ_TRIES collisions with changes the shard's lock, or
 *        on a read-only attachment tries for up to wait_ms. The first hit
 *        after an eviction passed by takes it for its mark, without waiting.
 *        A long value is copied without it, a slice at a time, and the lock is
 *        held for longer than a look at a slice's cells only by who has found
 *        the value replaced READ_LONG_TRIES times meanwhile.
 * CRASH  a reader that dies changes nothing but that mark.
 * COST   the shard's sequence counter, one root, one node, one mark: a hit
 *        writes the mark when it was not set.
 */
#ifndef SHD_DICT_READ_H
#define SHD_DICT_READ_H

#include "shm/dict/entry.h"

enum {
    READ_STALE = 1,   /* expired entries too */
    READ_NO_MARK = 2, /* does not count as use */
    READ_DESCRIBE = 4, /* type, length, number, flags, ttl; no bytes */
    READ_VERSION = 8  /* v is the first member of a struct read_versioned */
};

struct read_versioned {
    struct shd_value value;
    uint64_t version; /* 0: it has none */
};

#define READ_LONG_TRIES 16

/* Copies the long value that a read section of the shard has led to. 1: done.
 * 0: it has been replaced or moved since; look again. Or an error. */
int read_long(const struct dict *d, uint32_t shard, struct chain_cursor *c,
              void *buf, uint64_t len);

/* As shd_get, lists and all. */
int read_get(const struct dict *d, const void *key, size_t len, void *buf,
             size_t size, struct shd_value *v);

/* SHD_NOTFOUND, SHD_SPACE; lists are described. */
int read_value(const struct dict *d, const void *key, size_t len, void *buf,
               size_t size, uint32_t how, struct shd_value *v);

/* The same, of a key whose place is known, with nothing else asked for. */
int read_at(const struct dict *d, const struct place *at, const void *key,
            size_t len, void *buf, size_t size, struct shd_value *v);

#endif
