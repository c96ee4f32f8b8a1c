/* SPDX-License-Identifier: BSD-2-Clause */
/* LMDB without syncing; a transaction for each operation, as a worker that
 * handles one request has to. */
#include "load.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <lmdb.h>

static char path[4096];
static uint64_t bytes;
static __thread MDB_env *env;
static __thread MDB_txn *reader;
static MDB_dbi dbi;

static int failed(int rc)
{
    fprintf(stderr, "lmdb: %s\n", mdb_strerror(rc));
    return -1;
}

static int open_env(void)
{
    MDB_txn *t;
    int rc = mdb_env_create(&env);

    if (rc == 0)
        rc = mdb_env_set_mapsize(env, bytes);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(env, 256);
    if (rc == 0)
        rc = mdb_env_open(env, path,
                          MDB_NOSYNC | MDB_WRITEMAP | MDB_NOMETASYNC, 0600);
    if (rc == 0)
        rc = mdb_txn_begin(env, NULL, 0, &t);
    if (rc == 0) {
        rc = mdb_dbi_open(t, NULL, 0, &dbi);
        if (rc == 0)
            rc = mdb_txn_commit(t);
    }
    if (rc == 0)
        rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &reader);
    if (rc == 0)
        mdb_txn_reset(reader);
    return rc == 0 ? 0 : failed(rc);
}

static int make(const char *dir, uint64_t keys, size_t value, int full)
{
    if (full)
        return -1;
    snprintf(path, sizeof(path), "%s/lmdb", dir);
    (void)mkdir(path, 0700);
    bytes = (256ull << 20) + keys * (value + 256) * 3;
    return 0;
}

/* An environment must not be used across fork, nor be opened twice. */
static int attach(void)
{
    return open_env();
}

static void end(void)
{
    mdb_txn_abort(reader);
    mdb_env_close(env);
}

static int get(const char *key, size_t len, char *buf, size_t size)
{
    MDB_val k = {len, (void *)(uintptr_t)key}, v;
    int rc = mdb_txn_renew(reader);

    if (rc == 0)
        rc = mdb_get(reader, dbi, &k, &v);
    if (rc == 0)
        memcpy(buf, v.mv_data, v.mv_size < size ? v.mv_size : size);
    mdb_txn_reset(reader);
    return rc == 0 ? 1 : rc == MDB_NOTFOUND ? 0 : failed(rc);
}

static int put(const char *key, size_t len, const char *value, size_t size,
               unsigned flags)
{
    MDB_val k = {len, (void *)(uintptr_t)key};
    MDB_val v = {size, (void *)(uintptr_t)value};
    MDB_txn *t;
    int rc = mdb_txn_begin(env, NULL, 0, &t);

    if (rc != 0)
        return failed(rc);
    rc = mdb_put(t, dbi, &k, &v, flags);
    if (rc != 0) {
        mdb_txn_abort(t);
        return rc == MDB_KEYEXIST ? 0 : failed(rc);
    }
    rc = mdb_txn_commit(t);
    return rc == 0 ? 1 : failed(rc);
}

static int set(const char *key, size_t len, const char *value, size_t size)
{
    return put(key, len, value, size, 0);
}

static int add(const char *key, size_t len, const char *value, size_t size)
{
    return put(key, len, value, size, MDB_NOOVERWRITE);
}

static int del(const char *key, size_t len)
{
    MDB_val k = {len, (void *)(uintptr_t)key};
    MDB_txn *t;
    int rc = mdb_txn_begin(env, NULL, 0, &t);

    if (rc != 0)
        return failed(rc);
    rc = mdb_del(t, dbi, &k, NULL);
    if (rc != 0) {
        mdb_txn_abort(t);
        return rc == MDB_NOTFOUND ? 0 : failed(rc);
    }
    rc = mdb_txn_commit(t);
    return rc == 0 ? 1 : failed(rc);
}

static int incr(const char *key, size_t len)
{
    MDB_val k = {len, (void *)(uintptr_t)key}, v;
    MDB_txn *t;
    double n = 0;
    int rc = mdb_txn_begin(env, NULL, 0, &t);

    if (rc != 0)
        return failed(rc);
    if (mdb_get(t, dbi, &k, &v) == 0 && v.mv_size == sizeof(n))
        memcpy(&n, v.mv_data, sizeof(n));
    n++;
    v.mv_size = sizeof(n);
    v.mv_data = &n;
    rc = mdb_put(t, dbi, &k, &v, 0);
    if (rc != 0) {
        mdb_txn_abort(t);
        return failed(rc);
    }
    rc = mdb_txn_commit(t);
    return rc == 0 ? 1 : failed(rc);
}

const struct peer peer_lmdb = {.name = "lmdb",
                               .make = make,
                               .attach = attach,
                               .get = get,
                               .set = set,
                               .add = add,
                               .del = del,
                               .incr = incr,
                               .end = end};
