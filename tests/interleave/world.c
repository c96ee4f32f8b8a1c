/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/interleave/world.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/base/clock.h"

#define VALUE_MAX 65536u

static unsigned char bytes[VALUE_MAX];

struct call {
    char text[WORLD_OP_MAX];
    const char *verb, *key;
    size_t key_len;
    long number;
    char byte, byte2;
    long more;
};

static void parse(const char *op, struct call *c)
{
    char *save = NULL, *p;

    memset(c, 0, sizeof(*c));
    snprintf(c->text, sizeof(c->text), "%s", op);
    c->verb = strtok_r(c->text, " ", &save);
    c->key = strtok_r(NULL, " ", &save);
    if (c->verb == NULL)
        c->verb = "";
    if (c->key == NULL)
        c->key = "";
    c->key_len = strlen(c->key);
    p = strtok_r(NULL, " ", &save);
    c->number = p == NULL ? 0 : strtol(p, NULL, 10);
    p = strtok_r(NULL, " ", &save);
    c->byte = p == NULL ? 0 : *p;
    c->byte2 = p == NULL || *p == '\0' ? 0 : p[1];
    c->more = p == NULL ? 0 : strtol(p, NULL, 10);
}

static bool is(const struct call *c, const char *verb)
{
    return strcmp(c->verb, verb) == 0;
}

/* ---- results -------------------------------------------------------------- */

static void told(char *result, int rc)
{
    snprintf(result, WORLD_RESULT_MAX, "%s",
             rc == SHD_OK ? "ok" : shd_strerror_name(rc));
}

/* A string is all of one byte: then two of them mixed are noticed. */
static void told_value(char *result, int rc, const struct shd_value *v)
{
    uint64_t same = 0;

    if (rc != SHD_OK) {
        told(result, rc);
    } else if (v->type != SHD_STRING) {
        snprintf(result, WORLD_RESULT_MAX, "ok %u %g", v->type, v->number);
    } else {
        while (same < v->len && bytes[same] == bytes[0])
            same++;
        snprintf(result, WORLD_RESULT_MAX, "ok %llu %c%s",
                 (unsigned long long)v->len, v->len > 0 ? bytes[0] : '-',
                 same == v->len ? "" : " TORN");
    }
}

/* ---- operations ------------------------------------------------------------ */

static int store(const struct world *w, uint32_t op, const char *key, long len,
                 char byte)
{
    memset(bytes, byte, (size_t)len);
    return shd_store(w->dict, op, key, strlen(key), SHD_STRING, bytes,
                     (size_t)len, 0, 0, 0, NULL);
}

static bool run_store(const struct world *w, const struct call *c,
                      char *result)
{
    static const struct {
        const char *verb;
        uint32_t op;
    } STORES[] = {{"set", SHD_SET},
                  {"safe", SHD_SET | SHD_SAFE},
                  {"add", SHD_ADD},
                  {"replace", SHD_REPLACE}};

    for (size_t i = 0; i < sizeof(STORES) / sizeof(STORES[0]); i++) {
        if (is(c, STORES[i].verb)) {
            told(result,
                 store(w, STORES[i].op, c->key, c->number, c->byte));
            return true;
        }
    }
    if (!is(c, "num"))
        return false;
    told(result, shd_store(w->dict, SHD_SET, c->key, c->key_len, SHD_NUMBER,
                           NULL, 0, (double)c->number, 0, 0, NULL));
    return true;
}

static bool run_on_key(const struct world *w, const struct call *c,
                       char *result)
{
    struct shd_value v = {0};
    double sum = 0;
    int rc;

    if (is(c, "get")) {
        rc = shd_get(w->dict, c->key, c->key_len, bytes, VALUE_MAX, &v);
        told_value(result, rc, &v);
    } else if (is(c, "stale")) {
        rc = shd_get_stale(w->dict, c->key, c->key_len, bytes, VALUE_MAX, &v);
        told_value(result, rc, &v);
    } else if (is(c, "del")) {
        told(result, shd_delete(w->dict, c->key, c->key_len));
    } else if (is(c, "expire")) {
        told(result, shd_expire(w->dict, c->key, c->key_len, c->number));
    } else if (is(c, "incr") || is(c, "init")) {
        rc = shd_incr(w->dict, c->key, c->key_len, (double)c->number,
                      is(c, "init"), 100, 0, &sum, NULL);
        v.type = SHD_NUMBER;
        v.number = sum;
        told_value(result, rc, &v);
    } else {
        return false;
    }
    return true;
}

/* What ngx.shared.DICT lacks. */
static int add_by_version(const struct world *w, const struct call *c,
                          struct shd_value *v)
{
    uint64_t version;
    int rc;

    do {
        rc = shd_get_versioned(w->dict, c->key, c->key_len, bytes, VALUE_MAX,
                               v, &version);
        if (rc != SHD_OK)
            return rc;
        v->number += (double)c->number;
        rc = shd_store_versioned(w->dict, c->key, c->key_len, SHD_NUMBER, NULL,
                                 0, v->number, 0, 0, &version, NULL);
    } while (rc == SHD_CHANGED);
    return rc;
}

static int cas(const struct world *w, const struct call *c)
{
    static unsigned char old[VALUE_MAX];

    memset(old, c->byte, (size_t)c->number);
    memset(bytes, c->byte2, (size_t)c->number);
    return shd_cas(w->dict, c->key, c->key_len, SHD_STRING, old,
                   (size_t)c->number, 0, SHD_STRING, bytes, (size_t)c->number,
                   0, 0, 0, NULL);
}

static bool run_beyond(const struct world *w, const struct call *c,
                       char *result)
{
    struct shd_value v = {0};
    uint64_t n = 0;

    if (is(c, "cas")) {
        told(result, cas(w, c));
    } else if (is(c, "version")) {
        int rc = shd_get_versioned(w->dict, c->key, c->key_len, bytes,
                                   VALUE_MAX, &v, &n);

        told_value(result, rc, &v);
    } else if (is(c, "vadd")) {
        int rc = add_by_version(w, c, &v);

        told_value(result, rc, &v);
    } else if (is(c, "take")) {
        int rc = shd_take(w->dict, c->key, c->key_len, bytes, VALUE_MAX, &v);

        told_value(result, rc, &v);
    } else if (is(c, "touch")) {
        told(result, shd_touch(w->dict, c->key, c->key_len, SHD_KEEP_TTL));
    } else if (is(c, "append")) {
        memset(bytes, c->byte, (size_t)c->number);
        int rc = shd_append(w->dict, 0, c->key, c->key_len, bytes,
                            (size_t)c->number, NULL, 0, 0, &n, NULL);

        v.type = SHD_NUMBER;
        v.number = (double)n;
        told_value(result, rc, &v);
    } else {
        return false;
    }
    return true;
}

static bool run_on_list(const struct world *w, const struct call *c,
                        char *result)
{
    struct shd_value v = {0};
    uint64_t length = 0;
    int rc;

    if (is(c, "lpush") || is(c, "rpush")) {
        memset(bytes, c->byte, (size_t)c->number);
        rc = shd_push(w->dict, c->verb[0] == 'l', c->key, c->key_len,
                      SHD_STRING, bytes, (size_t)c->number, 0, &length);
    } else if (is(c, "lpop") || is(c, "rpop")) {
        rc = shd_pop(w->dict, c->verb[0] == 'l', c->key, c->key_len, bytes,
                     VALUE_MAX, &v);
        told_value(result, rc, &v);
        return true;
    } else if (is(c, "llen")) {
        rc = shd_llen(w->dict, c->key, c->key_len, &length);
    } else {
        return false;
    }
    if (rc == SHD_OK)
        snprintf(result, WORLD_RESULT_MAX, "ok %llu",
                 (unsigned long long)length);
    else
        told(result, rc);
    return true;
}

static int walk(const struct world *w, char *result)
{
    char key[WORLD_OP_MAX];
    size_t len = 0;
    struct shd_value v;
    int rc;

    snprintf(result, WORLD_RESULT_MAX, "ok");
    for (int n = 0;; n++) {
        rc = shd_scan(w->dict, n > 0 ? key : NULL, len, 0, key,
                      sizeof(key) - 1, &len, bytes, VALUE_MAX, &v);
        if (rc != SHD_OK)
            return rc == SHD_NOTFOUND ? SHD_OK : rc;
        key[len] = '\0';
        size_t used = strlen(result);
        snprintf(result + used, WORLD_RESULT_MAX - used, " %.8s", key);
    }
}

/* KEY COUNT ...: the same for KEY0, KEY1, ... */
static int many(const struct world *w, const struct call *c)
{
    long len = c->more, step = is(c, "thin") ? c->more : 1;
    char key[WORLD_OP_MAX];
    int rc = SHD_OK;

    for (long i = 0; rc == SHD_OK && i < c->number; i += step) {
        snprintf(key, sizeof(key), "%.20s%ld", c->key, i);
        rc = is(c, "fill") ? store(w, SHD_SET, key, len, 'f')
                           : shd_delete(w->dict, key, strlen(key));
        /* A small dict may have evicted some of what was filled in. */
        if (rc == SHD_NOTFOUND)
            rc = SHD_OK;
    }
    return rc;
}

/* Is this process a worker, and known to be alive? */
static int is_alive(const struct world *w)
{
    struct shd_worker_info info = {.struct_size = sizeof(info)};
    uint64_t own;
    int rc = shd_worker_join(w->segment, &own);

    for (uint32_t i = 0; rc == SHD_OK && i <= (own & 0xffff); i++) {
        rc = shd_worker_info(w->segment, i, &info);
        if (rc == SHD_NOTFOUND)
            rc = SHD_OK;
    }
    if (rc != SHD_OK)
        return rc;
    return info.incarnation == own && info.state == SHD_WORKER_ALIVE
               ? SHD_OK
               : SHD_NOTFOUND;
}

/* A worker that was there once, and died. */
static int bury(const struct world *w)
{
    uint64_t incarnation;
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(shd_worker_join(w->segment, &incarnation) != SHD_OK);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0
               ? SHD_OK
               : SHD_SYS;
}

static bool run_on_workers(const struct world *w, const struct call *c,
                           char *result)
{
    uint64_t own;

    if (is(c, "join"))
        told(result, shd_worker_join(w->segment, &own));
    else if (is(c, "leave"))
        told(result, shd_worker_leave(w->segment));
    else if (is(c, "alive"))
        told(result, is_alive(w));
    else if (is(c, "bury"))
        told(result, bury(w));
    else
        return false;
    return true;
}

static bool run_on_all(const struct world *w, const struct call *c,
                       char *result)
{
    int rc;

    if (is(c, "keys")) {
        rc = walk(w, result);
        if (rc == SHD_OK)
            return true;
    } else if (is(c, "flush")) {
        rc = shd_flush_all(w->dict);
    } else if (is(c, "sweep")) {
        rc = shd_flush_expired(w->dict, 0, NULL);
    } else if (is(c, "reap")) {
        rc = shd_reap(w->segment, NULL);
    } else if (is(c, "fill") || is(c, "thin")) {
        rc = many(w, c);
    } else if (is(c, "resize")) {
        rc = shd_dict_resize(w->dict, strtoul(c->key, NULL, 10) * 1024);
    } else if (is(c, "advance")) {
        clock_test_advance(strtoul(c->key, NULL, 10));
        rc = SHD_OK;
    } else {
        return false;
    }
    told(result, rc);
    return true;
}

int world_run(const struct world *w, const char *op,
              char result[WORLD_RESULT_MAX])
{
    bool any = *op == '?';
    struct call c;

    parse(op + any, &c);
    if (run_store(w, &c, result) || run_on_key(w, &c, result) ||
        run_beyond(w, &c, result) ||
        run_on_list(w, &c, result) || run_on_workers(w, &c, result) ||
        run_on_all(w, &c, result)) {
        if (any)
            snprintf(result, WORLD_RESULT_MAX, "any");
        return 0;
    }
    printf("    no such operation: %s\n", op);
    return -1;
}

const char *world_next(const char *script, char op[WORLD_OP_MAX])
{
    size_t len = strcspn(script, ";");

    if (*script == '\0')
        return NULL;
    snprintf(op, WORLD_OP_MAX, "%.*s", (int)len, script);
    return script + len + (script[len] == ';');
}

int world_prepare(const struct world *w, const char *script)
{
    char op[WORLD_OP_MAX], result[WORLD_RESULT_MAX];

    while ((script = world_next(script, op)) != NULL) {
        if (world_run(w, op, result) != 0)
            return -1;
        if (strncmp(result, "ok", 2) != 0) {
            printf("    to prepare, %s gave %s: %s\n", op, result,
                   shd_last_error());
            return -1;
        }
    }
    return 0;
}

/* ---- the state -------------------------------------------------------------- */

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3ull;
    return h ^ h >> 31;
}

static uint64_t mix_value(uint64_t h, const struct shd_value *v)
{
    h = mix(h, &v->type, sizeof(v->type));
    h = mix(h, &v->flags, sizeof(v->flags));
    h = mix(h, &v->len, sizeof(v->len));
    h = mix(h, &v->ttl_ms, sizeof(v->ttl_ms));
    if (v->type == SHD_STRING)
        return mix(h, bytes, v->len);
    return v->type == SHD_LIST ? h : mix(h, &v->number, sizeof(v->number));
}

static int complain(const char *what, int rc)
{
    printf("    %s gave %s: %s\n", what, shd_strerror_name(rc),
           shd_last_error());
    return -1;
}

/* What is in a live list, by taking it out. */
static int mix_list(const struct world *w, const char *key, uint64_t *h)
{
    struct shd_value v;
    int rc;

    while ((rc = shd_pop(w->dict, 1, key, strlen(key), bytes, VALUE_MAX,
                         &v)) == SHD_OK) {
        v.ttl_ms = 0;
        v.flags = 0;
        *h = mix_value(*h, &v);
    }
    return rc == SHD_NOTLIST || rc == SHD_NOTFOUND ? 0 : complain("pop", rc);
}

static int mix_order(const struct world *w, uint64_t *h)
{
    shd_keys *keys;
    int rc = shd_keys_get(w->dict, 0, &keys);

    if (rc != SHD_OK)
        return complain("keys_get", rc);
    for (uint64_t i = 0; i < shd_keys_count(keys); i++) {
        size_t len;
        const char *key = shd_keys_at(keys, i, &len);

        *h = mix(*h, key, len);
    }
    shd_keys_free(keys);
    return 0;
}

int world_digest(const struct world *w, uint64_t *digest)
{
    char key[WORLD_OP_MAX];
    size_t len = 0;
    struct shd_value v;
    bool first = true;
    int rc;

    *digest = 17;
    if (mix_order(w, digest) != 0)
        return -1;
    while ((rc = shd_scan(w->dict, first ? NULL : key, len, SHD_SCAN_EXPIRED,
                          key, sizeof(key) - 1, &len, bytes, VALUE_MAX,
                          &v)) == SHD_OK) {
        key[len] = '\0';
        first = false;
        *digest = mix_value(mix(*digest, key, len), &v);
        if (v.type == SHD_LIST && mix_list(w, key, digest) != 0)
            return -1;
    }
    return rc == SHD_NOTFOUND ? 0 : complain("scan", rc);
}
