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
    const char *verb, *key, *second;
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
    c->second = p == NULL ? "" : p;
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

static bool run_on_lease(struct world *w, const struct call *c, char *result)
{
    struct shd_value v = {0};
    int rc;

    if (is(c, "ltake") || is(c, "rtake")) {
        rc = shd_ltake(w->dict, c->verb[0] == 'l', c->key, c->key_len, bytes,
                       VALUE_MAX, &v, &w->job);
        told_value(result, rc, &v);
    } else if (is(c, "lmove")) {
        rc = shd_lmove(w->dict, c->byte == 'l', c->key, c->key_len,
                       c->byte2 == 'l', c->second, strlen(c->second), bytes,
                       VALUE_MAX, &v);
        told_value(result, rc, &v);
    } else if (is(c, "lack")) {
        told(result, shd_lack(w->dict, w->job));
    } else if (is(c, "lnack")) {
        told(result, shd_lnack(w->dict, w->job));
    } else {
        return false;
    }
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

/* ---- between workers ------------------------------------------------------- */

static int make_topic(struct world *w, const struct call *c)
{
    struct shd_topic_options t = {
        .struct_size = sizeof(t),
        .flags = SHD_TOPIC_CREATE |
                 (strcmp(c->second, "lossless") == 0 ? SHD_TOPIC_LOSSLESS : 0),
        .capacity_bytes = strtoul(c->key, NULL, 10),
        .subscribers_max = 6};

    return shd_topic_open(w->segment, "t", &t, &w->topic);
}

/* queue KIB DELIVERIES   graves KIB   leader   mailbox KIB */
static int make(struct world *w, const struct call *c)
{
    long kib = strtol(c->key, NULL, 10);
    struct shd_queue_options q = {.struct_size = sizeof(q),
                                  .capacity_bytes = (uint64_t)kib * 1024,
                                  .deliveries_max = (uint32_t)c->number};
    struct shd_lock_options l = {.struct_size = sizeof(l),
                                 .flags = SHD_LOCK_CREATE,
                                 .waiters_max = 4};
    struct shd_mailbox_options m = {.struct_size = sizeof(m),
                                    .capacity_bytes = (uint64_t)kib * 1024,
                                    .box_bytes = (uint64_t)kib * 512};

    if (is(c, "topic"))
        return make_topic(w, c);
    if (is(c, "leader"))
        return shd_leader_open(w->segment, "l", &l, &w->leader);
    if (is(c, "mailbox"))
        return shd_mailbox_open(w->segment, "m", &m, &w->mailbox);
    if (is(c, "graves"))
        return shd_queue_open(w->segment, "d", &q, &w->graves);
    q.dead_to = c->number > 0 ? "d" : NULL;
    return shd_queue_open(w->segment, "q", &q, &w->queue);
}

static void told_bytes(char *result, int rc, uint64_t len, const char *more)
{
    struct shd_value v = {.type = SHD_STRING, .len = len};
    size_t used;

    told_value(result, rc, &v);
    used = strlen(result);
    if (rc == SHD_OK)
        snprintf(result + used, WORLD_RESULT_MAX - used, " %s", more);
}

static bool run_on_queue(struct world *w, const struct call *c, char *result)
{
    shd_queue *q = c->verb[0] == 'd' ? w->graves : w->queue;
    struct shd_message m = {0};
    char attempts[16];
    int rc;

    if (is(c, "qpush")) {
        long len = strtol(c->key, NULL, 10);

        memset(bytes, (int)c->number + 'a', (size_t)len);
        told(result, shd_queue_push(q, bytes, (size_t)len, 0, 0, NULL));
    } else if (is(c, "qpop") || is(c, "dpop") || is(c, "qtake")) {
        rc = is(c, "qtake")
                 ? shd_queue_take(q, bytes, VALUE_MAX, 0, &m)
                 : shd_queue_pop(q, bytes, VALUE_MAX, 0, &m);
        if (rc == SHD_OK && is(c, "qtake"))
            w->lease = m.lease;
        snprintf(attempts, sizeof(attempts), "%u", m.attempts);
        told_bytes(result, rc, m.len, attempts);
    } else if (is(c, "qack")) {
        told(result, shd_queue_ack(q, w->lease));
    } else if (is(c, "qnack")) {
        told(result, shd_queue_nack(q, w->lease, 0));
    } else {
        return false;
    }
    return true;
}

static bool run_on_leader(struct world *w, const struct call *c, char *result)
{
    struct shd_grant grant;
    int rc;

    if (is(c, "lead")) {
        rc = shd_leader_look(w->leader, 0, &grant);
        told(result, rc);
        if (rc == SHD_OK)
            snprintf(result, WORLD_RESULT_MAX, "ok %u", grant.former);
        else if (rc == 1)
            snprintf(result, WORLD_RESULT_MAX, "ok another");
    } else if (is(c, "resign")) {
        told(result, shd_leader_resign(w->leader));
    } else {
        return false;
    }
    return true;
}

/* post|ask PARTY LEN C */
static int send_to(struct world *w, const struct call *c)
{
    uint64_t to = *w->worker((uint32_t)strtoul(c->key, NULL, 10));

    memset(bytes, c->byte, (size_t)c->number);
    return is(c, "post")
               ? shd_mailbox_post(w->mailbox, to, bytes, (size_t)c->number, 0,
                                  NULL)
               : shd_mailbox_request(w->mailbox, to, bytes, (size_t)c->number,
                                     0, 0, &w->asked);
}

static bool run_on_mailbox(struct world *w, const struct call *c,
                           char *result)
{
    struct shd_mail m = {0};
    int rc;

    if (is(c, "post") || is(c, "ask")) {
        told(result, send_to(w, c));
    } else if (is(c, "listen")) {
        told(result, shd_mailbox_listen(w->mailbox));
    } else if (is(c, "unlisten")) {
        told(result, shd_mailbox_leave(w->mailbox));
    } else if (is(c, "receive")) {
        rc = shd_mailbox_receive(w->mailbox, bytes, VALUE_MAX, 0, &m);
        w->request = m.request;
        told_bytes(result, rc, m.len, m.request != 0 ? "request" : "post");
    } else if (is(c, "answer")) {
        memset(bytes, 'z', 20);
        told(result,
             shd_mailbox_answer(w->mailbox, w->request, bytes, 20, 0));
    } else if (is(c, "await")) {
        rc = shd_mailbox_await(w->mailbox, w->asked, bytes, VALUE_MAX, 0, &m);
        told_bytes(result, rc, m.len, "answer");
        if (rc == 1)
            snprintf(result, WORLD_RESULT_MAX, "ok not yet");
    } else if (is(c, "unask")) {
        told(result, shd_mailbox_cancel(w->mailbox, w->asked));
    } else {
        return false;
    }
    return true;
}

/* One event at a time: its number, so that it is seen which one it is. */
static void next_event(struct world *w, char *result)
{
    struct shd_event event = {0};
    uint64_t missed;
    uint32_t count;
    char more[24];
    int rc = shd_subscription_next(w->subscription, bytes, VALUE_MAX, 0,
                                   &event, 1, &count, &missed);

    if (rc == SHD_OK && missed != 0)
        snprintf(more, sizeof(more), "missed %u", (unsigned)missed);
    else
        snprintf(more, sizeof(more), "%u", (unsigned)event.seq);
    told_bytes(result, rc, event.len, more);
}

static bool run_on_topic(struct world *w, const struct call *c, char *result)
{
    if (is(c, "pub")) {
        size_t len = strtoul(c->key, NULL, 10);
        uint64_t seq = 0;
        int rc;

        memset(bytes, (int)c->number + 'a', len);
        rc = shd_topic_publish(w->topic, bytes, len, 0, &seq);
        told(result, rc);
        if (rc == SHD_OK)
            snprintf(result, WORLD_RESULT_MAX, "ok %u", (unsigned)seq);
    } else if (is(c, "sub")) {
        told(result, shd_topic_subscribe(w->topic, c->key, SHD_FROM_NOW,
                                         &w->subscription));
    } else if (is(c, "next")) {
        next_event(w, result);
    } else if (is(c, "save")) {
        told(result, shd_subscription_acknowledge(w->subscription));
    } else if (is(c, "unsub")) {
        told(result, shd_subscription_close(w->subscription));
        w->subscription = NULL;
    } else {
        return false;
    }
    return true;
}

static bool run_between(struct world *w, const struct call *c, char *result)
{
    if (is(c, "queue") || is(c, "graves") || is(c, "leader") ||
        is(c, "mailbox") || is(c, "topic")) {
        told(result, make(w, c));
        return true;
    }
    return run_on_queue(w, c, result) || run_on_leader(w, c, result) ||
           run_on_mailbox(w, c, result) || run_on_topic(w, c, result);
}

int world_run(struct world *w, const char *op,
              char result[WORLD_RESULT_MAX])
{
    bool any = *op == '?';
    struct call c;

    parse(op + any, &c);
    if (run_store(w, &c, result) || run_on_key(w, &c, result) ||
        run_beyond(w, &c, result) ||
        run_on_list(w, &c, result) || run_on_lease(w, &c, result) ||
        run_on_workers(w, &c, result) ||
        run_on_all(w, &c, result) || run_between(w, &c, result)) {
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

int world_prepare(struct world *w, const char *script)
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

/* What is in it, in order, whatever its numbers are: a push that was cut off
 * may have taken one. */
static int mix_queue(shd_queue *q, uint64_t *h)
{
    struct shd_message m;

    for (uint32_t which = SHD_MESSAGE_READY; which <= SHD_MESSAGE_DEAD;
         which++) {
        int rc = SHD_OK;

        for (uint64_t i = 0; rc == SHD_OK; i++) {
            rc = shd_queue_peek(q, which, i, bytes, VALUE_MAX, &m);
            if (rc == SHD_OK) {
                *h = mix(mix(*h, &which, sizeof(which)), bytes, m.len);
                *h = mix(*h, &m.attempts, sizeof(m.attempts));
            }
        }
        if (rc != SHD_NOTFOUND)
            return complain("queue_peek", rc);
        *h = mix(*h, &which, sizeof(which));
    }
    return 0;
}

/* The events that are kept, and how far behind each name is. */
static int mix_topic(const struct world *w, uint64_t *h)
{
    struct shd_cursor_info cursor = {.struct_size = sizeof(cursor)};
    shd_subscription *all;
    struct shd_event e;
    uint64_t missed;
    uint32_t count;
    int rc;

    for (uint32_t i = 0; (rc = shd_topic_cursor(w->topic, i, &cursor)) !=
                         SHD_INVAL; i++) {
        if (rc == SHD_NOTFOUND)
            continue;
        if (rc != SHD_OK)
            return complain("topic_cursor", rc);
        *h = mix(*h, cursor.name, strlen(cursor.name));
        *h = mix(*h, &cursor.behind, sizeof(cursor.behind));
    }
    rc = shd_topic_subscribe(w->topic, NULL, SHD_FROM_OLDEST, &all);
    while (rc == SHD_OK) {
        rc = shd_subscription_next(all, bytes, VALUE_MAX, 0, &e, 1, &count,
                                   &missed);
        if (rc == SHD_OK)
            *h = mix(mix(*h, &e.seq, sizeof(e.seq)), bytes, e.len);
    }
    (void)shd_subscription_close(all);
    return rc == SHD_NOTFOUND ? 0 : complain("subscription_next", rc);
}

/* With all workers dead, and reaped, nobody leads, and no box is anybody's. */
static int nothing_is_held(const struct world *w)
{
    struct shd_lock_info l = {.struct_size = sizeof(l)};
    struct shd_mailbox_info m = {.struct_size = sizeof(m)};
    shd_lock *lock;
    int rc = SHD_OK;

    if (w->leader != NULL) {
        rc = shd_lock_open(w->segment, "l", SHD_OBJECT_LEADER, NULL, &lock);
        if (rc == SHD_OK)
            rc = shd_lock_info(lock, &l);
        if (rc != SHD_OK)
            return complain("lock_info", rc);
        (void)shd_lock_close(lock);
    }
    if (w->mailbox != NULL)
        rc = shd_mailbox_info(w->mailbox, &m);
    if (rc != SHD_OK)
        return complain("mailbox_info", rc);
    if (l.taken == 0 && l.waiting == 0 && m.boxes == 0 && m.cells_used == 0)
        return 0;
    printf("    the dead hold what is reaped\n");
    return -1;
}

int world_digest(const struct world *w, uint64_t *digest)
{
    char key[WORLD_OP_MAX];
    size_t len = 0;
    struct shd_value v;
    bool first = true;
    int rc;

    *digest = 17;
    if (mix_order(w, digest) != 0 || nothing_is_held(w) != 0 ||
        (w->topic != NULL && mix_topic(w, digest) != 0) ||
        (w->queue != NULL && mix_queue(w->queue, digest) != 0) ||
        (w->graves != NULL && mix_queue(w->graves, digest) != 0))
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
