/* SPDX-License-Identifier: BSD-2-Clause */
/* tools/bench/load.h - what shdict-bench-load asks of a peer: the operations
 * of a dictionary that processes share. A function that a peer has not is
 * NULL, and what needs it is left out for that peer. */
#ifndef SHD_BENCH_LOAD_H
#define SHD_BENCH_LOAD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MULTI 32

struct peer {
    const char *name;
    /* In the parent, before the workers are made: room for so many keys with
     * values of so many bytes, all empty; `full`: for a good deal fewer, and
     * what is too much drives out the old. 0, or -1 after a sentence. */
    int (*make)(const char *dir, uint64_t keys, size_t value, int full);
    /* In each worker, and in the parent to fill. */
    int (*attach)(void);
    /* 1 there, 0 not; -1: it failed. */
    int (*get)(const char *key, size_t len, char *buf, size_t size);
    int (*set)(const char *key, size_t len, const char *value, size_t size);
    /* 1 stored, 0 there already. */
    int (*add)(const char *key, size_t len, const char *value, size_t size);
    int (*del)(const char *key, size_t len);
    int (*incr)(const char *key, size_t len);
    /* MULTI keys at once; how many were there. */
    int (*multi)(const char *const *keys, const size_t *lens, char *buf,
                 size_t size);
    int (*push)(const char *key, size_t len, const char *value, size_t size);
    int (*pop)(const char *key, size_t len, char *buf, size_t size);
    /* Walks on by some keys, and begins anew at the end. */
    int (*scan)(void);
    void (*end)(void);
    int threads; /* threads of one process may share it */
};

extern const struct peer peer_shdict, peer_tdb, peer_lmdb, peer_memcached,
    peer_redis, peer_boost, peer_boost_robust;

#ifdef __cplusplus
}
#endif

#endif
