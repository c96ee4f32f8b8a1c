/* SPDX-License-Identifier: BSD-2-Clause */
/* memcached over a Unix socket, by its binary protocol: its fastest. */
#include "load.h"
#include "server.h"

#include <string.h>

#include <libmemcached/memcached.h>

static char sock[4096];
static __thread memcached_st *mc;

static int failed(memcached_return_t rc)
{
    fprintf(stderr, "memcached: %s\n", memcached_strerror(mc, rc));
    return -1;
}

static int make(const char *dir, uint64_t keys, size_t value, int full)
{
    uint64_t mb = full ? keys * (value + 96) / 4 >> 20
                       : 256 + (keys * (value + 200) >> 20);
    char size[32];
    /* -u is heeded for root only, who may use the directory. */
    char *argv[] = {"memcached", "-s", sock, "-m", size,  "-u", "root",
                    "-t",        "2",  "-c", "512", "-I", "2m", NULL};

    snprintf(sock, sizeof(sock), "%s/memcached", dir);
    snprintf(size, sizeof(size), "%llu", (unsigned long long)(mb < 8 ? 8 : mb));
    return server_start(argv, sock) > 0 ? 0 : -1;
}

static int attach(void)
{
    mc = memcached_create(NULL);
    if (mc == NULL || memcached_server_add_unix_socket(mc, sock) !=
                          MEMCACHED_SUCCESS)
        return -1;
    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_BINARY_PROTOCOL, 1);
    return 0;
}

static int get(const char *key, size_t len, char *buf, size_t size)
{
    memcached_return_t rc;
    uint32_t flags;
    size_t n;
    char *v = memcached_get(mc, key, len, &n, &flags, &rc);

    if (v == NULL)
        return rc == MEMCACHED_NOTFOUND ? 0 : failed(rc);
    memcpy(buf, v, n < size ? n : size);
    free(v);
    return 1;
}

static int set(const char *key, size_t len, const char *value, size_t size)
{
    memcached_return_t rc = memcached_set(mc, key, len, value, size, 0, 0);

    /* A full server drives out what a thread of its own has made ready for
     * it; when that one has not had its turn it refuses. Not stored. */
    if (rc == MEMCACHED_MEMORY_ALLOCATION_FAILURE)
        return 0;
    return rc == MEMCACHED_SUCCESS ? 1 : failed(rc);
}

static int add(const char *key, size_t len, const char *value, size_t size)
{
    memcached_return_t rc = memcached_add(mc, key, len, value, size, 0, 0);

    return rc == MEMCACHED_SUCCESS  ? 1
           : rc == MEMCACHED_NOTSTORED || rc == MEMCACHED_DATA_EXISTS
               ? 0
               : failed(rc);
}

static int del(const char *key, size_t len)
{
    memcached_return_t rc = memcached_delete(mc, key, len, 0);

    return rc == MEMCACHED_SUCCESS ? 1
           : rc == MEMCACHED_NOTFOUND ? 0 : failed(rc);
}

static int incr(const char *key, size_t len)
{
    uint64_t sum;
    memcached_return_t rc =
        memcached_increment_with_initial(mc, key, len, 1, 1, 0, &sum);

    return rc == MEMCACHED_SUCCESS ? 1 : failed(rc);
}

static int multi(const char *const *keys, const size_t *lens, char *buf,
                 size_t size)
{
    memcached_return_t rc = memcached_mget(mc, keys, lens, MULTI);
    memcached_result_st *r;
    int found = 0;

    if (rc != MEMCACHED_SUCCESS)
        return failed(rc);
    while ((r = memcached_fetch_result(mc, NULL, &rc)) != NULL) {
        size_t n = memcached_result_length(r);

        memcpy(buf, memcached_result_value(r), n < size ? n : size);
        memcached_result_free(r);
        found++;
    }
    return found;
}

const struct peer peer_memcached = {.name = "memcached",
                                    .make = make,
                                    .attach = attach,
                                    .get = get,
                                    .set = set,
                                    .add = add,
                                    .del = del,
                                    .incr = incr,
                                    .multi = multi};
