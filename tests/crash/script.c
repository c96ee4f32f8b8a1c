/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/crash/script.h"
#include "tests/crash/script_break.h"
#include "tests/crash/script_ipc.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/api/handle.h"
#include "shm/base/clock.h"
#include "shm/dict/counters.h"
#include "tests/crash/trace.h"

#define VALUE_MAX (1u << 20)
#define LONG_KEY 6000u
#define CHILD_DONE 42
#define CHILD_FAILED 43

static unsigned char bytes[VALUE_MAX], old[VALUE_MAX];
static uint64_t fills; /* makes the next value another one */

/* ---- commands ------------------------------------------------------------ */

struct words {
    char text[160];
    char *word[8];
    int count;
};

static void split(struct words *w, const char *begin, size_t len)
{
    char *save = NULL;

    memset(w, 0, sizeof(*w));
    if (len >= sizeof(w->text))
        len = sizeof(w->text) - 1;
    memcpy(w->text, begin, len);
    for (char *p = strtok_r(w->text, " ", &save); p != NULL && w->count < 8;
         p = strtok_r(NULL, " ", &save))
        w->word[w->count++] = p;
}

static long number(const struct words *w, int i)
{
    return i < w->count ? strtol(w->word[i], NULL, 10) : 0;
}

static const unsigned char *value(size_t len)
{
    uint64_t r = ++fills * 0x9e3779b97f4a7c15ull;

    for (size_t i = 0; i < len; i++) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        bytes[i] = (unsigned char)(r >> 56);
    }
    return bytes;
}

void script_seed(uint64_t seed)
{
    fills = seed;
}

static int store(struct world *w, uint32_t op, const char *key, size_t len,
                 int64_t ttl)
{
    return shd_store(w->dict, op, key, strlen(key), SHD_STRING, value(len),
                     len, 0, ttl, (int32_t)(fills % 3), NULL);
}

/* Reads the value, and stores or (len < 0) deletes on the condition that it
 * is still the same. */
static int change_same(struct world *w, const char *key, long len)
{
    struct shd_value v = {.type = SHD_NIL};
    int rc = shd_get(w->dict, key, strlen(key), old, sizeof(old), &v);

    if (rc != SHD_OK && rc != SHD_NOTFOUND)
        return rc;
    return shd_cas(w->dict, key, strlen(key), rc == SHD_OK ? v.type : SHD_NIL,
                   old, rc == SHD_OK ? v.len : 0, v.number,
                   len < 0 ? SHD_NIL : SHD_STRING,
                   value(len < 0 ? 0 : (size_t)len), len < 0 ? 0 : (size_t)len,
                   0, 0, 5, NULL);
}

/* On the condition that it is what it is not. */
static int change_other(struct world *w, const char *key, long len)
{
    struct shd_value v = {.type = SHD_NIL};
    int rc = shd_get(w->dict, key, strlen(key), old, sizeof(old), &v);

    if (rc != SHD_OK)
        return rc;
    old[v.type == SHD_STRING ? v.len - 1 : 0] ^= 1;
    return shd_cas(w->dict, key, strlen(key), v.type, old, v.len,
                   v.number + 1, SHD_STRING, value((size_t)len), (size_t)len,
                   0, 0, 5, NULL);
}

static int change_version(struct world *w, const char *key, long len)
{
    struct shd_value v;
    uint64_t version = 0;
    int rc = shd_get_versioned(w->dict, key, strlen(key), old, sizeof(old),
                               &v, &version);

    if (rc != SHD_OK && rc != SHD_NOTFOUND)
        return rc;
    return shd_store_versioned(w->dict, key, strlen(key),
                               len < 0 ? SHD_NIL : SHD_STRING,
                               value(len < 0 ? 0 : (size_t)len),
                               len < 0 ? 0 : (size_t)len, 0, 0, 6, &version,
                               NULL);
}

/* KEY COUNT LEN: sets KEY0, KEY1 ... in one call. */
static int set_many(struct world *w, const struct words *c)
{
    static char text[64][24];
    static const void *keys[64], *from[64];
    static size_t lens[64];
    static struct shd_value values[64];
    static int32_t codes[64];
    uint32_t n = (uint32_t)number(c, 2);

    if (n > 64)
        n = 64;
    for (uint32_t i = 0; i < n; i++) {
        lens[i] = (size_t)snprintf(text[i], sizeof(text[i]), "%.12s%u",
                                   c->word[1], i);
        keys[i] = text[i];
        values[i] = (struct shd_value){.type = SHD_STRING,
                                       .len = (uint64_t)number(c, 3)};
        from[i] = i == 0 ? value(values[i].len) : bytes;
    }
    return shd_set_multi(w->dict, SHD_SET, n, keys, lens, values, from, codes,
                         NULL);
}

/* KEY COUNT ...: the same for KEY0, KEY1, ... */
static int many(struct world *w, const struct words *c)
{
    long step = strcmp(c->word[0], "thin") == 0 ? number(c, 3) : 1;
    struct shd_value v;
    char key[64];
    int rc = SHD_OK;

    for (long i = 0; rc == SHD_OK && i < number(c, 2); i += step) {
        snprintf(key, sizeof(key), "%.40s%ld", c->word[1], i);
        if (strcmp(c->word[0], "fill") == 0)
            rc = store(w, SHD_SET, key, (size_t)number(c, 3), number(c, 4));
        else if (strcmp(c->word[0], "thin") == 0)
            rc = shd_delete(w->dict, key, strlen(key));
        else
            rc = shd_get(w->dict, key, strlen(key), bytes, sizeof(bytes), &v);
        /* A small dict may have evicted some of what was filled in. */
        if (rc == SHD_NOTFOUND)
            rc = SHD_OK;
    }
    return rc;
}

/* "~NAME" is a key too long to lie in its entry. */
static const char *long_key(const char *word, char *key)
{
    if (word[0] != '~')
        return word;
    memset(key, 'x', LONG_KEY);
    memcpy(key, word, strlen(word));
    return key;
}

static const char *key_of(const char *word)
{
    static char key[LONG_KEY + 1];

    return long_key(word, key);
}

/* From KEY to another. */
static int move(struct world *w, const struct words *c, const char *key)
{
    static char other[LONG_KEY + 1];
    const char *to = long_key(c->word[2], other), *ends = c->word[3];
    struct shd_value v;

    return shd_lmove(w->dict, ends[0] == 'l', key, strlen(key),
                     ends[1] == 'l', to, strlen(to), bytes, sizeof(bytes), &v);
}

/* Of elements of lists: the last one, and the one before. */
static uint64_t list_lease, older_lease;

/* As the worker that is to die with what it holds. */
static int as_holder(struct world *w, int left, const char *key, size_t len)
{
    struct guard_env *env = &w->segment->env;
    uint64_t own = env->incarnation;
    struct shd_value v;
    int rc;

    older_lease = list_lease;
    if (w->holder != 0)
        env->incarnation = w->holder;
    rc = shd_ltake(w->dict, left, key, len, bytes, sizeof(bytes), &v,
                   &list_lease);
    env->incarnation = own;
    return rc;
}

static int on_key(struct world *w, const struct words *c, bool *known)
{
    const char *verb = c->word[0], *key = c->count > 1 ? key_of(c->word[1]) : "";
    size_t len = strlen(key);
    bool left = verb[0] == 'l';
    struct shd_value v;
    double result;

    *known = true;
    if (strcmp(verb, "set") == 0)
        return store(w, SHD_SET, key, (size_t)number(c, 2), number(c, 3));
    if (strcmp(verb, "plain") == 0)
        return shd_set(w->dict, key, len, value((size_t)number(c, 2)),
                       (size_t)number(c, 2), number(c, 3));
    if (strcmp(verb, "safe") == 0)
        return store(w, SHD_SET | SHD_SAFE, key, (size_t)number(c, 2),
                     number(c, 3));
    if (strcmp(verb, "add") == 0)
        return store(w, SHD_ADD, key, (size_t)number(c, 2), number(c, 3));
    if (strcmp(verb, "replace") == 0)
        return store(w, SHD_REPLACE, key, (size_t)number(c, 2),
                     number(c, 3));
    if (strcmp(verb, "num") == 0)
        return shd_store(w->dict, SHD_SET, key, len, SHD_NUMBER, NULL, 0,
                         (double)number(c, 2), 0, 0, NULL);
    if (strcmp(verb, "del") == 0)
        return shd_delete(w->dict, key, len);
    if (strcmp(verb, "get") == 0)
        return shd_get(w->dict, key, len, bytes, sizeof(bytes), &v);
    if (strcmp(verb, "incr") == 0 || strcmp(verb, "init") == 0)
        return shd_incr(w->dict, key, len, (double)number(c, 2),
                        verb[2] == 'i', 100, 0, &result, NULL);
    if (strcmp(verb, "expire") == 0)
        return shd_expire(w->dict, key, len, number(c, 2));
    if (strcmp(verb, "cas") == 0)
        return change_same(w, key, number(c, 2));
    if (strcmp(verb, "casno") == 0)
        return change_other(w, key, number(c, 2));
    if (strcmp(verb, "casdel") == 0)
        return change_same(w, key, -1);
    if (strcmp(verb, "version") == 0) {
        uint64_t version;
        return shd_get_versioned(w->dict, key, len, bytes, sizeof(bytes), &v,
                                 &version);
    }
    if (strcmp(verb, "vset") == 0)
        return change_version(w, key, number(c, 2));
    if (strcmp(verb, "vdel") == 0)
        return change_version(w, key, -1);
    if (strcmp(verb, "take") == 0)
        return shd_take(w->dict, key, len, bytes, sizeof(bytes), &v);
    if (strcmp(verb, "touch") == 0)
        return shd_touch(w->dict, key, len,
                         c->count > 2 ? number(c, 2) : SHD_KEEP_TTL);
    if (strcmp(verb, "append") == 0 || strcmp(verb, "prepend") == 0)
        return shd_append(w->dict, verb[0] == 'p', key, len,
                          value((size_t)number(c, 2)), (size_t)number(c, 2),
                          c->count > 3 ? c->word[3] : NULL,
                          c->count > 3 ? strlen(c->word[3]) : 0, 0, NULL,
                          NULL);
    if (strcmp(verb, "lpushx") == 0 || strcmp(verb, "rpushx") == 0)
        return shd_push_expire(w->dict, left, key, len, SHD_STRING,
                               value((size_t)number(c, 2)),
                               (size_t)number(c, 2), 0, number(c, 3), NULL);
    if (strcmp(verb, "mset") == 0)
        return set_many(w, c);
    if (strcmp(verb, "lpush") == 0 || strcmp(verb, "rpush") == 0)
        return shd_push(w->dict, left, key, len, SHD_STRING,
                        value((size_t)number(c, 2)), (size_t)number(c, 2), 0,
                        NULL);
    if (strcmp(verb, "lnum") == 0)
        return shd_push(w->dict, 1, key, len, SHD_NUMBER, NULL, 0,
                        (double)number(c, 2), NULL);
    if (strcmp(verb, "lpop") == 0 || strcmp(verb, "rpop") == 0)
        return shd_pop(w->dict, left, key, len, bytes, sizeof(bytes), &v);
    if (strcmp(verb, "lmove") == 0)
        return move(w, c, key);
    if (strcmp(verb, "ltake") == 0 || strcmp(verb, "rtake") == 0)
        return as_holder(w, left, key, len);
    *known = false;
    return SHD_OK;
}

int script_repair(struct world *w)
{
    struct shd_repair done = {.struct_size = sizeof(done)};
    char report[4096];

    return shd_segment_repair(w->segment, &done, report, sizeof(report));
}

/* What ends a lease of a list's element. */
static int on_lease(struct world *w, const struct words *c, bool *known)
{
    struct guard_env *env = &w->segment->env;
    uint64_t own = env->incarnation;
    bool done = strcmp(c->word[0], "lack") == 0;
    uint64_t which = number(c, 1) != 0 ? older_lease : list_lease;
    int rc;

    *known = done || strcmp(c->word[0], "lnack") == 0;
    if (!*known)
        return SHD_OK;
    if (w->holder != 0)
        env->incarnation = w->holder;
    rc = done ? shd_lack(w->dict, which) : shd_lnack(w->dict, which);
    env->incarnation = own;
    return rc;
}

static int on_world(struct world *w, const struct words *c, bool *known)
{
    const char *verb = c->word[0];
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    shd_dict *other;
    uint32_t generation;
    uint64_t n;
    int rc;

    *known = true;
    if (strcmp(verb, "fill") == 0 || strcmp(verb, "thin") == 0 ||
        strcmp(verb, "hit") == 0)
        return many(w, c);
    if (strcmp(verb, "flush") == 0)
        return shd_flush_all(w->dict);
    if (strcmp(verb, "sweep") == 0)
        return shd_flush_expired(w->dict, (uint64_t)number(c, 1), NULL);
    if (strcmp(verb, "advance") == 0) {
        clock_test_advance((uint64_t)number(c, 1));
        return SHD_OK;
    }
    if (strcmp(verb, "open") == 0) {
        o.capacity_bytes = (uint64_t)number(c, 2);
        rc = shd_dict_open(w->segment, c->word[1], &o, &other);
        return rc == SHD_OK ? shd_dict_close(other) : rc;
    }
    if (strcmp(verb, "resize") == 0)
        return shd_dict_resize(w->dict, (uint64_t)number(c, 1) * 1024);
    if (strcmp(verb, "destroy") == 0)
        return shd_dict_destroy(w->segment, c->word[1]);
    if (strcmp(verb, "repair") == 0)
        return script_repair(w);
    if (strcmp(verb, "break") == 0)
        return script_break(w, c->word[1], c->count > 2 ? c->word[2] : "")
                   ? SHD_OK
                   : SHD_INVAL;
    if (strcmp(verb, "join") == 0)
        return shd_worker_join(w->segment, &n);
    if (strcmp(verb, "leave") == 0)
        return shd_worker_leave(w->segment);
    if (strcmp(verb, "reap") == 0)
        return shd_reap(w->segment, NULL);
    if (strcmp(verb, "beat") == 0)
        return shd_worker_beat(w->segment);
    if (strcmp(verb, "phase") == 0)
        return shd_worker_set_phase(w->segment, 0, (uint32_t)number(c, 1));
    if (strcmp(verb, "generation") == 0)
        return shd_generation_next(w->segment, &generation);
    if (strcmp(verb, "drain") == 0)
        return shd_generation_drain(w->segment, (uint32_t)number(c, 1), NULL);
    *known = false;
    return SHD_OK;
}

/* ---- the queue ------------------------------------------------------------ */

static uint64_t lease; /* the last one given */
static uint64_t leases[16]; /* the last ones given together */

static int take(shd_queue *q, const struct words *c)
{
    struct shd_message m = {.lease = 0};
    int rc;

    if (strcmp(c->word[0], "qtake") == 0) {
        rc = shd_queue_take(q, bytes, sizeof(bytes), 0, &m);
        if (rc == SHD_OK)
            lease = m.lease;
    } else {
        rc = shd_queue_reserve(q, (size_t)number(c, 1), 0, &lease);
        if (rc == SHD_OK)
            rc = shd_queue_write(q, lease, 0, value((size_t)number(c, 1)),
                                 (size_t)number(c, 1));
    }
    return rc;
}

/* Messages of LEN, LEN + 1 ... bytes, in one call. */
static int push_many(shd_queue *q, const struct words *c)
{
    const void *data[64];
    size_t len[64];
    uint32_t count = (uint32_t)number(c, 2), pushed;

    for (uint32_t i = 0; i < count && i < 64; i++) {
        len[i] = (size_t)number(c, 1) + i;
        data[i] = value(len[i]);
    }
    return shd_queue_push_many(q, count, data, len, number(c, 3), 0, NULL,
                               &pushed);
}

static int take_many(shd_queue *q, const struct words *c)
{
    struct shd_message m[16];
    size_t at[16];
    uint32_t n;
    int rc;

    if (strcmp(c->word[0], "qpops") == 0)
        return shd_queue_pop_many(q, (uint32_t)number(c, 1), bytes,
                                  sizeof(bytes), 0, m, at, &n);
    rc = shd_queue_take_many(q, (uint32_t)number(c, 1), bytes, sizeof(bytes),
                             0, m, at, &n);
    for (uint32_t i = 0; rc == SHD_OK && i < n; i++)
        leases[i] = m[i].lease;
    return rc;
}

/* Takes it, and gives it back. */
static int bury(shd_queue *q)
{
    struct shd_message m;
    int rc = shd_queue_take(q, bytes, sizeof(bytes), 0, &m);

    return rc == SHD_OK ? shd_queue_nack(q, m.lease, 0) : rc;
}

/* On a lease of another number than the one that qacks knows. */
static int again(shd_queue *q, const struct words *c)
{
    struct shd_message m;
    int rc = shd_queue_nack(q, leases[number(c, 1)], 0);

    return rc == SHD_OK ? shd_queue_take(q, bytes, sizeof(bytes), 0, &m) : rc;
}

static int on_open_queue(shd_queue *q, const struct words *c, bool *known)
{
    const char *verb = c->word[0];
    struct shd_message m;

    if (strcmp(verb, "qbury") == 0)
        return bury(q);
    if (strcmp(verb, "qagain") == 0)
        return again(q, c);
    if (strcmp(verb, "qpush") == 0)
        return shd_queue_push(q, value((size_t)number(c, 1)),
                              (size_t)number(c, 1), number(c, 2), 0, NULL);
    if (strcmp(verb, "qpop") == 0)
        return shd_queue_pop(q, bytes, sizeof(bytes), 0, &m);
    if (strcmp(verb, "qtake") == 0 || strcmp(verb, "qreserve") == 0)
        return take(q, c);
    if (strcmp(verb, "qpushes") == 0)
        return push_many(q, c);
    if (strcmp(verb, "qtakes") == 0 || strcmp(verb, "qpops") == 0)
        return take_many(q, c);
    if (strcmp(verb, "qacks") == 0)
        return shd_queue_ack_many(q, (uint32_t)number(c, 2),
                                  leases + number(c, 1), NULL);
    if (strcmp(verb, "qarm") == 0)
        return shd_queue_arm(q, 0, NULL) < 0 ? SHD_INVAL : SHD_OK;
    if (strcmp(verb, "qack") == 0)
        return shd_queue_ack(q, lease);
    if (strcmp(verb, "qnack") == 0)
        return shd_queue_nack(q, lease, number(c, 1));
    if (strcmp(verb, "qextend") == 0)
        return shd_queue_extend(q, c->count > 2 ? leases[number(c, 2)] : lease,
                                number(c, 1));
    if (strcmp(verb, "qcommit") == 0)
        return shd_queue_commit(q, lease, number(c, 1), NULL);
    if (strcmp(verb, "qcancel") == 0)
        return shd_queue_cancel(q, lease);
    if (strcmp(verb, "qdrain") == 0)
        return shd_queue_drain(q, (uint32_t)number(c, 1),
                               (uint64_t)number(c, 2), NULL);
    if (strcmp(verb, "qrequeue") == 0)
        return shd_queue_requeue(q, 0, NULL);
    *known = false;
    return SHD_OK;
}

/* What follows "other" is on the other queue. */
static const char *which_queue(struct words *c)
{
    if (strcmp(c->word[0], "other") != 0 || c->count < 2)
        return "q";
    c->count--;
    memmove(c->word, c->word + 1, (size_t)c->count * sizeof(c->word[0]));
    return "d";
}

static int on_queue(struct world *w, struct words *c, bool *known)
{
    const char *name = which_queue(c);
    struct shd_queue_options o = {.struct_size = sizeof(o)};
    struct guard_env *env = &w->segment->env;
    uint64_t own = env->incarnation;
    shd_queue *q;
    int rc;

    *known = c->word[0][0] == 'q';
    if (!*known)
        return SHD_OK;
    if (strcmp(c->word[0], "qdestroy") == 0)
        return shd_queue_destroy(w->segment, name);
    o.capacity_bytes = (uint64_t)number(c, 1) * 1024;
    o.deliveries_max = (uint32_t)number(c, 2);
    o.lease_ms = (uint64_t)number(c, 3);
    o.dead_to = c->count > 4 ? c->word[4] : NULL;
    rc = shd_queue_open(w->segment, name,
                        strcmp(c->word[0], "qopen") == 0 ? &o : NULL, &q);
    if (rc != SHD_OK)
        return rc;
    /* As the worker that is to die with what it holds. */
    if (w->holder != 0)
        env->incarnation = w->holder;
    if (strcmp(c->word[0], "qopen") != 0)
        rc = on_open_queue(q, c, known);
    env->incarnation = own;
    (void)shd_queue_close(q);
    return rc;
}

static int dead_worker(struct world *w, const char *command, size_t len)
{
    char text[160];
    char *rest;
    uint64_t stores;
    unsigned long stop;
    int rc;

    if (len >= sizeof(text))
        len = sizeof(text) - 1;
    memcpy(text, command, len);
    text[len] = '\0';
    stop = strtoul(text, &rest, 10);
    rc = script_run_apart(w, rest, stop, NULL, &stores);
    if (rc == 1 || (rc == 0 && w->dies_at_end))
        return 0;
    printf("    \"%s\" did not die at store %lu\n", rest, stop);
    return -1;
}

static int command(struct world *w, const char *text, size_t len);

/* "N COMMAND" as that worker, which is there from the start. */
static int as_worker(struct world *w, const char *text, size_t len)
{
    uint64_t own = w->segment->env.incarnation, holder = w->holder;
    int rc;

    w->segment->env.incarnation = w->incarnation[text[0] - '0'];
    w->holder = 0;
    rc = command(w, text + 2, len - 2);
    w->holder = holder;
    w->segment->env.incarnation = own;
    return rc;
}

static int command(struct world *w, const char *text, size_t len)
{
    struct words c;
    bool any, known;
    int rc;

    while (len > 0 && *text == ' ')
        text++, len--;
    if (len > 5 && strncmp(text, "dead ", 5) == 0)
        return dead_worker(w, text + 5, len - 5);
    if (len > 5 && strncmp(text, "as ", 3) == 0)
        return as_worker(w, text + 3, len - 3);
    any = len > 0 && *text == '?';
    split(&c, text + any, len - any);
    if (c.count == 0)
        return 0;
    rc = on_key(w, &c, &known);
    if (!known)
        rc = on_lease(w, &c, &known);
    if (!known)
        rc = on_world(w, &c, &known);
    if (!known)
        rc = on_queue(w, &c, &known);
    if (!known)
        rc = script_ipc(w, c.word, c.count, &known);
    if (!known) {
        printf("    no such command: %.*s\n", (int)len, text);
        return -1;
    }
    if (rc == SHD_OK || (any && rc != SHD_CORRUPT))
        return 0;
    printf("    %.*s gave %s: %s\n", (int)len, text, shd_strerror_name(rc),
           shd_last_error());
    return -1;
}

int script_run(struct world *w, const char *script)
{
    while (*script != '\0') {
        size_t len = strcspn(script, ";");

        if (command(w, script, len) != 0)
            return -1;
        script += len;
        script += *script == ';';
    }
    return 0;
}

/* Where a child tells its number of stores. */
static uint64_t *shared_count(void)
{
    static uint64_t *p;

    if (p == NULL) {
        p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            perror("mmap");
            abort();
        }
    }
    return p;
}

/* The child becomes that worker, which has joined before. */
static int run_as(struct world *w)
{
    shd_segment *h = w->segment;
    uint32_t index = w->runs_as & 0xffff;

    h->forked = false;
    h->env.incarnation = w->runs_as;
    h->env.stripe = counters_stripe(index);
    counters_move(&w->dict->dict);
    return segment_liveness_lock(&h->segment, index);
}

static _Noreturn void child(struct world *w, const char *script,
                            uint64_t stop, void (*at_death)(void))
{
    const char *first = script + strspn(script, " ");
    uint64_t incarnation;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        _exit(CHILD_FAILED);
    (void)alarm(60);
    /* Joining has cases of its own; else it would begin each of them. */
    if (w->runs_as != 0 ? run_as(w) != SHD_OK
                        : strncmp(first, "join", 4) != 0 &&
                              shd_worker_join(w->segment, &incarnation) !=
                                  SHD_OK) {
        printf("    a child could not join: %s\n", shd_last_error());
        fflush(stdout);
        _exit(CHILD_FAILED);
    }
    w->holder = 0;
    trace_begin(stop, at_death);
    int rc = script_run(w, script);
    *shared_count() = trace_end();
    fflush(stdout);
    _exit(rc == 0 ? CHILD_DONE : CHILD_FAILED);
}

int script_run_apart(struct world *w, const char *script, uint64_t stop,
                     void (*at_death)(void), uint64_t *stores)
{
    uint64_t *count = shared_count();
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid < 0) {
        perror("fork");
        return -1;
    }
    if (pid == 0)
        child(w, script, stop, at_death);
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            perror("waitpid");
            return -1;
        }
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && stop != 0)
        return 1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_DONE) {
        *stores = *count;
        return 0;
    }
    if (WIFSIGNALED(status))
        printf("    a child died of signal %d\n", WTERMSIG(status));
    return -1;
}

/* ---- states -------------------------------------------------------------- */

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

/* What tells keys apart: a long one by its name and its length. */
static void name_entry(struct state_entry *e, const char *key, size_t len)
{
    size_t n = len < sizeof(e->key) ? len : strcspn(key, "x");

    memset(e->key, 0, sizeof(e->key));
    memcpy(e->key, key, n < sizeof(e->key) ? n : sizeof(e->key) - 1);
    e->content = mix(17, key, len);
}

static int read_entries(struct world *w, struct state *s)
{
    static char key[LONG_KEY], after[LONG_KEY];
    size_t after_len = 0, len;
    struct shd_value v;
    int rc;

    for (;;) {
        struct state_entry *e = &s->entry[s->entries];

        if (s->entries == STATE_ENTRIES) {
            printf("    more entries than this test can hold\n");
            return -1;
        }
        rc = shd_scan(w->dict, after_len > 0 ? after : NULL, after_len,
                      SHD_SCAN_EXPIRED, key, sizeof(key), &len, bytes,
                      sizeof(bytes), &v);
        if (rc == SHD_NOTFOUND)
            return 0;
        if (rc != SHD_OK)
            return complain("scan", rc);
        memcpy(after, key, len);
        after_len = len;
        name_entry(e, key, len);
        e->content = mix_value(e->content, &v);
        s->entries++;
    }
}

/* What is in the live lists, by taking it out. */
static int read_lists(struct world *w, struct state *s)
{
    for (uint32_t i = 0; i < s->entries; i++) {
        struct state_entry *e = &s->entry[i];
        const char *key = key_of(e->key);
        struct shd_value v;
        int rc;

        while ((rc = shd_pop(w->dict, 1, key, strlen(key), bytes,
                             sizeof(bytes), &v)) == SHD_OK) {
            v.ttl_ms = 0;
            v.flags = 0;
            e->content = mix_value(e->content, &v);
        }
        if (rc != SHD_NOTLIST && rc != SHD_NOTFOUND)
            return complain("pop", rc);
    }
    return 0;
}

static int read_order(struct world *w, struct state *s)
{
    shd_keys *keys;
    int rc = shd_keys_get(w->dict, 0, &keys);

    if (rc != SHD_OK)
        return complain("keys_get", rc);
    for (uint64_t i = 0; i < shd_keys_count(keys); i++) {
        size_t len;
        const char *key = shd_keys_at(keys, i, &len);
        s->order = mix(s->order, key, len);
    }
    shd_keys_free(keys);
    return 0;
}

static int read_objects(struct world *w, struct state *s)
{
    struct shd_object_info o = {.struct_size = sizeof(o)};
    int rc;

    for (uint32_t i = 0;
         (rc = shd_object_info(w->segment, i, &o)) != SHD_INVAL; i++) {
        if (rc == SHD_OK)
            s->objects += mix(3, o.name, strlen(o.name)) + o.size_bytes;
        else if (rc != SHD_NOTFOUND)
            return complain("object_info", rc);
    }
    return 0;
}

/* Of a letter from another queue its number says how often it was begun to be
 * moved: it is known by its bytes, and by how many there are of the same. */
static uint64_t name_letter(const struct state *s, struct state_entry *e,
                            size_t len)
{
    uint64_t h = mix(13, bytes, len);

    for (unsigned n = 0, same = 1; same != 0; n++) {
        memset(e->key, 0, sizeof(e->key));
        snprintf(e->key, sizeof(e->key), "d %08x %u", (unsigned)h, n);
        same = 0;
        for (uint32_t i = 0; i < s->entries; i++)
            same |= strcmp(s->entry[i].key, e->key) == 0;
    }
    return h;
}

static uint64_t name_message(struct state_entry *e, uint64_t id)
{
    memset(e->key, 0, sizeof(e->key));
    snprintf(e->key, sizeof(e->key), "message %u", (unsigned)id);
    return id;
}

/* Each message by its number: its bytes, state, deliveries; and their order. */
static int read_queue(struct world *w, const char *name, struct state *s)
{
    struct shd_message m;
    uint64_t which_one;
    shd_queue *q;
    int rc = shd_queue_open(w->segment, name, NULL, &q);

    if (rc != SHD_OK)
        return rc == SHD_NOTFOUND ? 0 : complain("queue_open", rc);
    for (uint32_t which = SHD_MESSAGE_READY; which <= SHD_MESSAGE_DEAD;
         which++) {
        for (uint64_t i = 0; s->entries < STATE_ENTRIES; i++) {
            struct state_entry *e = &s->entry[s->entries];

            rc = shd_queue_peek(q, which, i, bytes, sizeof(bytes), &m);
            if (rc != SHD_OK)
                break;
            which_one = name[0] == 'd' ? name_letter(s, e, m.len)
                                       : name_message(e, m.id);
            s->order = mix(s->order, &which_one, sizeof(which_one));
            e->content = mix(which, bytes, m.len);
            e->content = mix(e->content, &m.attempts, sizeof(m.attempts));
            e->content = mix(e->content, &m.when_ms, sizeof(m.when_ms));
            s->entries++;
        }
        if (rc != SHD_NOTFOUND)
            return complain("queue_peek", rc);
    }
    (void)shd_queue_close(q);
    return 0;
}

int state_read(struct world *w, struct state *s)
{
    s->entries = 0;
    s->order = s->objects = 0;
    if (read_objects(w, s) != 0 || read_order(w, s) != 0 ||
        read_entries(w, s) != 0 || read_lists(w, s) != 0)
        return -1;
    return read_queue(w, "q", s) != 0 || read_queue(w, "d", s) != 0
               ? -1
               : state_read_ipc(w, s);
}

/* Keys are filled up with zeroes. Two of them most often differ in the first
 * word, and there are many to look at. */
static bool same_key(const char *a, const char *b)
{
    const uint64_t *p = (const uint64_t *)(const void *)a;
    const uint64_t *q = (const uint64_t *)(const void *)b;

    return p[0] == q[0] && p[1] == q[1] && p[2] == q[2];
}
static_assert(sizeof(((struct state_entry *)0)->key) == 24, "three words");
static_assert(offsetof(struct state_entry, key) % 8 == 0, "aligned");

/* States are in the order of a scan: what is looked for is most often near
 * *at, where the last one was found. */
static const struct state_entry *find(const struct state *s, const char *key,
                                      uint32_t *at)
{
    uint32_t i = *at < s->entries ? *at : 0;

    for (uint32_t n = 0; n < s->entries; n++) {
        if (same_key(s->entry[i].key, key)) {
            *at = i + 1;
            return &s->entry[i];
        }
        i = i + 1 < s->entries ? i + 1 : 0;
    }
    return NULL;
}

int state_compare(const struct state *a, const struct state *b, char *why,
                  size_t size)
{
    if (a->objects != b->objects)
        snprintf(why, size, "other dicts");
    else if (a->entries != b->entries)
        snprintf(why, size, "%u entries instead of %u", a->entries,
                 b->entries);
    else
        why[0] = '\0';
    for (uint32_t i = 0; why[0] == '\0' && i < a->entries; i++) {
        if (strcmp(a->entry[i].key, b->entry[i].key) != 0)
            snprintf(why, size, "key %s instead of %s", a->entry[i].key,
                     b->entry[i].key);
        else if (a->entry[i].content != b->entry[i].content)
            snprintf(why, size, "key %s has another content",
                     a->entry[i].key);
    }
    if (why[0] == '\0' && a->order != b->order)
        snprintf(why, size, "another order in the LRU");
    return why[0] == '\0' ? 0 : -1;
}

int state_between(const struct state *s, const struct state *before,
                  const struct state *after, char *why, size_t size)
{
    uint32_t in_before = 0, in_after = 0, in_s = 0;

    why[0] = '\0';
    if (s->objects != before->objects && s->objects != after->objects)
        snprintf(why, size, "other dicts");
    for (uint32_t i = 0; i < s->entries; i++) {
        const struct state_entry *e = &s->entry[i];
        const struct state_entry *b = find(before, e->key, &in_before);
        const struct state_entry *a = find(after, e->key, &in_after);

        if ((b == NULL || b->content != e->content) &&
            (a == NULL || a->content != e->content))
            snprintf(why, size, "key %s is neither as before nor as after",
                     e->key);
    }
    for (uint32_t i = 0; i < before->entries; i++) {
        const char *key = before->entry[i].key;

        if (find(s, key, &in_s) == NULL &&
            find(after, key, &in_after) != NULL)
            snprintf(why, size, "key %s is gone", key);
    }
    return why[0] == '\0' ? 0 : -1;
}
