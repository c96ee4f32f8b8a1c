/* SPDX-License-Identifier: BSD-2-Clause */
/* TDB as Samba uses it: robust mutexes, no sync, a file per run. */
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <tdb.h>

static struct tdb_context *tdb;

static TDB_DATA datum(const char *p, size_t len)
{
    return (TDB_DATA){.dptr = (unsigned char *)(uintptr_t)p, .dsize = len};
}

static int failed(void)
{
    fprintf(stderr, "tdb: %s\n", tdb_errorstr(tdb));
    return -1;
}

static int make(const char *dir, uint64_t keys, size_t value, int full)
{
    char path[4096];
    int buckets = keys < 10000000 ? (int)keys + 1 : 10000000;

    (void)value;
    if (full)
        return -1;
    snprintf(path, sizeof(path), "%s/bench.tdb", dir);
    tdb = tdb_open(path, buckets,
                   TDB_MUTEX_LOCKING | TDB_INCOMPATIBLE_HASH | TDB_NOSYNC |
                       TDB_CLEAR_IF_FIRST,
                   O_RDWR | O_CREAT, 0600);
    if (tdb == NULL)
        perror(path);
    return tdb == NULL ? -1 : 0;
}

/* Once for each process: its locks are the process's own. */
static int attach(void)
{
    return tdb_reopen(tdb);
}

struct out {
    char *buf;
    size_t size;
};

static int copy(TDB_DATA key, TDB_DATA data, void *context)
{
    struct out *o = context;

    (void)key;
    memcpy(o->buf, data.dptr, data.dsize < o->size ? data.dsize : o->size);
    return 0;
}

static int get(const char *key, size_t len, char *buf, size_t size)
{
    struct out o = {buf, size};

    if (tdb_parse_record(tdb, datum(key, len), copy, &o) == 0)
        return 1;
    return tdb_error(tdb) == TDB_ERR_NOEXIST ? 0 : failed();
}

static int set(const char *key, size_t len, const char *value, size_t size)
{
    return tdb_store(tdb, datum(key, len), datum(value, size), TDB_REPLACE) ==
                   0
               ? 1
               : failed();
}

static int add(const char *key, size_t len, const char *value, size_t size)
{
    if (tdb_store(tdb, datum(key, len), datum(value, size), TDB_INSERT) == 0)
        return 1;
    return tdb_error(tdb) == TDB_ERR_EXISTS ? 0 : failed();
}

static int del(const char *key, size_t len)
{
    if (tdb_delete(tdb, datum(key, len)) == 0)
        return 1;
    return tdb_error(tdb) == TDB_ERR_NOEXIST ? 0 : failed();
}

static int incr(const char *key, size_t len)
{
    double n = 0;
    struct out o = {(char *)&n, sizeof(n)};
    int rc = tdb_chainlock(tdb, datum(key, len));

    if (rc != 0)
        return failed();
    (void)tdb_parse_record(tdb, datum(key, len), copy, &o);
    n++;
    rc = tdb_store(tdb, datum(key, len), datum((char *)&n, sizeof(n)),
                   TDB_REPLACE);
    tdb_chainunlock(tdb, datum(key, len));
    return rc == 0 ? 1 : failed();
}

const struct peer peer_tdb = {.name = "tdb",
                              .make = make,
                              .attach = attach,
                              .get = get,
                              .set = set,
                              .add = add,
                              .del = del,
                              .incr = incr};
