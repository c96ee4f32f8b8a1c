/* SPDX-License-Identifier: BSD-2-Clause */
/* Redis over a Unix socket, nothing written to disk, one command at a time. */
#include "load.h"
#include "server.h"

#include <string.h>

#include <hiredis/hiredis.h>

static char sock[4096];
static __thread redisContext *rc;

static int make(const char *dir, uint64_t keys, size_t value, int full)
{
    char mb[32];
    char *argv[] = {"redis-server", "--port", "0", "--unixsocket", sock,
                    "--save", "", "--appendonly", "no", "--daemonize", "no",
                    "--logfile", "redis.log", "--dir", (char *)(uintptr_t)dir,
                    "--maxmemory", mb, "--maxmemory-policy",
                    full ? "allkeys-lru" : "noeviction", NULL};

    snprintf(sock, sizeof(sock), "%s/redis", dir);
    snprintf(mb, sizeof(mb), "%llu",
             full ? (unsigned long long)(4u << 20) + keys * (value + 100) / 4
                  : 0ull);
    return server_start(argv, sock) > 0 ? 0 : -1;
}

static int attach(void)
{
    rc = redisConnectUnix(sock);
    return rc == NULL || rc->err ? -1 : 0;
}

/* 1 a value, 0 nil or the number 0, -1. */
static int answer(redisReply *r, char *buf, size_t size)
{
    int found = -1;

    if (r == NULL) {
        fprintf(stderr, "redis: %s\n", rc->errstr);
        return -1;
    }
    if (r->type == REDIS_REPLY_NIL)
        found = 0;
    else if (r->type == REDIS_REPLY_INTEGER)
        found = r->integer != 0;
    else if (r->type == REDIS_REPLY_ERROR)
        fprintf(stderr, "redis: %s\n", r->str);
    else
        found = 1;
    if (found == 1 && buf != NULL && r->type == REDIS_REPLY_STRING)
        memcpy(buf, r->str, r->len < size ? r->len : size);
    freeReplyObject(r);
    return found;
}

static int get(const char *key, size_t len, char *buf, size_t size)
{
    return answer(redisCommand(rc, "GET %b", key, len), buf, size);
}

static int set(const char *key, size_t len, const char *value, size_t size)
{
    return answer(redisCommand(rc, "SET %b %b", key, len, value, size), NULL,
                  0);
}

static int add(const char *key, size_t len, const char *value, size_t size)
{
    return answer(redisCommand(rc, "SETNX %b %b", key, len, value, size), NULL,
                  0);
}

static int del(const char *key, size_t len)
{
    return answer(redisCommand(rc, "DEL %b", key, len), NULL, 0);
}

static int incr(const char *key, size_t len)
{
    return answer(redisCommand(rc, "INCR %b", key, len), NULL, 0);
}

static int multi(const char *const *keys, const size_t *lens, char *buf,
                 size_t size)
{
    const char *argv[1 + MULTI] = {"MGET"};
    size_t argl[1 + MULTI] = {4};
    redisReply *r;
    int found = 0;

    (void)buf;
    (void)size;
    memcpy(argv + 1, keys, MULTI * sizeof(*keys));
    memcpy(argl + 1, lens, MULTI * sizeof(*lens));
    r = redisCommandArgv(rc, 1 + MULTI, argv, argl);
    if (r == NULL || r->type != REDIS_REPLY_ARRAY)
        return -1;
    for (size_t i = 0; i < r->elements; i++)
        found += r->element[i]->type == REDIS_REPLY_STRING;
    freeReplyObject(r);
    return found;
}

static int push(const char *key, size_t len, const char *value, size_t size)
{
    return answer(redisCommand(rc, "LPUSH %b %b", key, len, value, size), NULL,
                  0);
}

static int pop(const char *key, size_t len, char *buf, size_t size)
{
    return answer(redisCommand(rc, "RPOP %b", key, len), buf, size);
}

const struct peer peer_redis = {.name = "redis",
                                .make = make,
                                .attach = attach,
                                .get = get,
                                .set = set,
                                .add = add,
                                .del = del,
                                .incr = incr,
                                .multi = multi,
                                .push = push,
                                .pop = pop};
