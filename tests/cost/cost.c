/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cost - runs each operation of the hot path a fixed number of times, on a
 * dict whose keys fall the same way each time, between two requests to
 * callgrind: a dump for each, whose total is what the operation costs in
 * instructions. Made for tests/cost/run; outside of valgrind it does the same
 * and counts nothing.
 *
 * The library is the static one: what is in the shared one beside it is the
 * call through the PLT.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <valgrind/callgrind.h>

#include "shm/api/handle.h"
#include "shm/shdict.h"

#define TIMES 1024u
#define MULTI 32u
#define FEW 1000u
#define MANY 64000u
#define SEED 0x5eed5eed5eed5eedull
#define BIG 8192u

static shd_dict *few, *many;
static char bytes[BIG], other[BIG], out[MULTI * 64];

static void expect(int rc, int want, const char *what)
{
    if (rc == want)
        return;
    fprintf(stderr, "cost: %s: %s (%s)\n", what, shd_strerror(rc),
            shd_last_error());
    exit(1);
}

/* Keys of one length: what a key costs depends on that alone. */
static size_t key_of(char *to, char kind, uint32_t n)
{
    return (size_t)snprintf(to, 16, "%c:%08u", kind, n);
}

/* Every third key or so, in no order. */
static uint32_t pick(uint32_t i, uint32_t keys)
{
    return (uint32_t)((uint64_t)i * 2654435761u % keys);
}

static shd_dict *make(shd_segment *s, const char *name, uint32_t keys)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes =
                                     (4u << 20) + (uint64_t)keys * 256};
    shd_dict *d;
    char key[16];

    expect(shd_dict_open(s, name, &o, &d), SHD_OK, name);
    for (uint32_t i = 0; i < keys; i++) {
        size_t len = key_of(key, 'k', i);

        expect(shd_set(d, key, len, bytes, 32, 0), SHD_OK, "filling");
    }
    return d;
}

/* What is measured: a loop over operations whose keys were made before. */
static char keys[TIMES][16];
static size_t lens[TIMES];
static const void *pointers[TIMES];

static void make_keys(char kind, uint32_t of)
{
    for (uint32_t i = 0; i < TIMES; i++) {
        lens[i] = key_of(keys[i], kind, pick(i, of));
        pointers[i] = keys[i];
    }
}

static void measured(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
    (void)name;
}

#define MEASURE(name, want, call)                                             \
    do {                                                                      \
        CALLGRIND_ZERO_STATS;                                                 \
        for (uint32_t i = 0; i < TIMES; i++)                                  \
            expect((call), (want), (name));                                   \
        measured(name);                                                       \
    } while (0)

static void reads(shd_dict *d, const char *hit, const char *miss, uint32_t n)
{
    struct shd_value v;

    make_keys('k', n);
    /* The first hit of a key sets its mark. */
    for (uint32_t i = 0; i < TIMES; i++)
        expect(shd_get(d, keys[i], lens[i], out, 64, &v), SHD_OK, "get");
    MEASURE(hit, SHD_OK, shd_get(d, keys[i], lens[i], out, 64, &v));
    make_keys('x', n);
    MEASURE(miss, SHD_NOTFOUND, shd_get(d, keys[i], lens[i], out, 64, &v));
}

static void multi(shd_dict *d)
{
    static struct shd_value values[MULTI];
    static size_t at[MULTI];
    static int32_t codes[MULTI];

    make_keys('k', FEW);
    CALLGRIND_ZERO_STATS;
    for (uint32_t i = 0; i < TIMES; i += MULTI)
        expect(shd_get_multi(d, MULTI, &pointers[i], &lens[i], out,
                             sizeof(out), values, at, codes),
               SHD_OK, "get_multi");
    measured("get_multi of 32, a key");
}

static void stores(shd_dict *d)
{
    const void *v = bytes, *w = other;

    make_keys('k', FEW);
    MEASURE("set, same bytes", SHD_OK,
            shd_set(d, keys[i], lens[i], v, 32, 0));
    MEASURE("set, in place", SHD_OK, shd_set(d, keys[i], lens[i], w, 32, 0));
    MEASURE("set, in place, with ttl", SHD_OK,
            shd_set(d, keys[i], lens[i], v, 32, 1000000));
    MEASURE("set, one key", SHD_OK,
            shd_set(d, keys[0], lens[0], i & 1 ? v : w, 32, 0));
    MEASURE("set, another size", SHD_OK,
            shd_set(d, keys[i], lens[i], w, 100, 0));
    MEASURE("set, 4 KiB", SHD_OK,
            shd_set(d, "page", 4, i & 1 ? v : w, 4096, 0));
    MEASURE("set, 8 KiB", SHD_OK, shd_set(d, "big", 3, w, BIG - i, 0));
    make_keys('n', 1u << 30);
    MEASURE("add, a new key", SHD_OK,
            shd_store(d, SHD_ADD, keys[i], lens[i], SHD_STRING, v, 32, 0, 0, 0,
                      NULL));
    MEASURE("add, there already", SHD_EXISTS,
            shd_store(d, SHD_ADD, keys[i], lens[i], SHD_STRING, v, 32, 0, 0, 0,
                      NULL));
    MEASURE("expire", SHD_OK, shd_expire(d, keys[i], lens[i], 1000000));
    MEASURE("delete", SHD_OK, shd_delete(d, keys[i], lens[i]));
}

static void counters(shd_dict *d)
{
    double sum;

    MEASURE("incr, one counter", SHD_OK,
            shd_incr(d, "counter", 7, 1, 1, 0, 0, &sum, NULL));
    make_keys('c', FEW);
    for (uint32_t i = 0; i < TIMES; i++)
        expect(shd_incr(d, keys[i], lens[i], 1, 1, 0, 0, &sum, NULL), SHD_OK,
               "incr");
    MEASURE("incr, many counters", SHD_OK,
            shd_incr(d, keys[i], lens[i], 1, 1, 0, 0, &sum, NULL));
}

static void lists(shd_dict *d)
{
    struct shd_value v;
    uint64_t n;

    expect(shd_push(d, 1, "list", 4, SHD_STRING, "x", 1, 0, &n), SHD_OK,
           "push");
    MEASURE("lpush", SHD_OK,
            shd_push(d, 1, "list", 4, SHD_STRING, bytes, 32, 0, &n));
    MEASURE("lpop", SHD_OK, shd_pop(d, 1, "list", 4, out, 64, &v));
}

static void queues(shd_segment *s)
{
    struct shd_queue_options o = {.struct_size = sizeof(o)};
    static uint64_t leases[TIMES];
    struct shd_message m;
    shd_queue *q;

    expect(shd_queue_open(s, "queue", &o, &q), SHD_OK, "queue");
    /* A cell that was used before costs less than a fresh one. */
    for (uint32_t i = 0; i < TIMES; i++)
        expect(shd_queue_push(q, bytes, 32, 0, 0, NULL), SHD_OK, "push");
    MEASURE("queue: pop", SHD_OK, shd_queue_pop(q, out, sizeof(out), 0, &m));
    MEASURE("queue: push", SHD_OK, shd_queue_push(q, bytes, 32, 0, 0, NULL));
    for (uint32_t i = 0; i < TIMES; i++)
        expect(shd_queue_pop(q, out, sizeof(out), 0, &m), SHD_OK, "pop");
    for (uint32_t i = 0; i < TIMES; i++)
        expect(shd_queue_push(q, bytes, 32, 0, 0, NULL), SHD_OK, "push");
    CALLGRIND_ZERO_STATS;
    for (uint32_t i = 0; i < TIMES; i++) {
        expect(shd_queue_take(q, out, sizeof(out), 0, &m), SHD_OK, "take");
        leases[i] = m.lease;
    }
    measured("queue: take");
    MEASURE("queue: ack", SHD_OK, shd_queue_ack(q, leases[i]));
    MEASURE("queue: pop nothing", SHD_NOTFOUND,
            shd_queue_pop(q, out, sizeof(out), 0, &m));
}

static void queues_many(shd_segment *s)
{
    struct shd_queue_options o = {.struct_size = sizeof(o)};
    static struct shd_message m[TIMES];
    static uint64_t leases[TIMES];
    const void *data[MULTI];
    size_t len[MULTI], at[MULTI];
    uint32_t n;
    shd_queue *q;

    for (uint32_t i = 0; i < MULTI; i++) {
        data[i] = bytes;
        len[i] = 32;
    }
    expect(shd_queue_open(s, "batches", &o, &q), SHD_OK, "queue");
    for (int round = 0; round < 2; round++) {
        CALLGRIND_ZERO_STATS;
        for (uint32_t i = 0; i < TIMES; i += MULTI)
            expect(shd_queue_push_many(q, MULTI, data, len, 0, 0, NULL, &n),
                   SHD_OK, "push_many");
        if (round == 1)
            measured("queue: push_many of 32, a message");
        CALLGRIND_ZERO_STATS;
        for (uint32_t i = 0; i < TIMES; i += MULTI)
            expect(shd_queue_take_many(q, MULTI, out, sizeof(out), 0, m + i,
                                       at, &n),
                   SHD_OK, "take_many");
        if (round == 1)
            measured("queue: take_many of 32, a message");
        for (uint32_t i = 0; i < TIMES; i++)
            leases[i] = m[i].lease;
        CALLGRIND_ZERO_STATS;
        for (uint32_t i = 0; i < TIMES; i += MULTI)
            expect(shd_queue_ack_many(q, MULTI, leases + i, NULL), SHD_OK,
                   "ack_many");
        if (round == 1)
            measured("queue: ack_many of 32, a message");
    }
}

static void topics(shd_segment *s)
{
    struct shd_topic_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_TOPIC_CREATE};
    static struct shd_event events[MULTI];
    const void *data[MULTI];
    size_t len[MULTI];
    shd_subscription *subscription;
    uint64_t missed;
    uint32_t n;
    shd_topic *t;

    for (uint32_t i = 0; i < MULTI; i++) {
        data[i] = bytes;
        len[i] = 32;
    }
    expect(shd_topic_open(s, "topic", &o, &t), SHD_OK, "topic");
    expect(shd_topic_subscribe(t, NULL, SHD_FROM_NOW, &subscription), SHD_OK,
           "subscribe");
    MEASURE("topic: publish", SHD_OK, shd_topic_publish(t, bytes, 32, 0, NULL));
    CALLGRIND_ZERO_STATS;
    for (uint32_t i = 0; i < TIMES; i += MULTI)
        expect(shd_subscription_next(subscription, out, sizeof(out), 0, events,
                                     MULTI, &n, &missed),
               SHD_OK, "next");
    measured("topic: next, 32 at once, an event");
    CALLGRIND_ZERO_STATS;
    for (uint32_t i = 0; i < TIMES; i += MULTI)
        expect(shd_topic_publish_many(t, MULTI, data, len, 0, NULL, &n),
               SHD_OK, "publish_many");
    measured("topic: publish_many of 32, an event");
}

int main(void)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .size_bytes = 256u << 20};
    shd_segment *s;

    memset(other, 'o', sizeof(other));
    expect(shd_segment_create(NULL, &o, &s), SHD_OK, "segment");
    s->segment.hash_seed = SEED;
    few = make(s, "few", FEW);
    many = make(s, "many", MANY);
    reads(few, "get, hit", "get, miss", FEW);
    reads(many, "get, hit, 64k keys", "get, miss, 64k keys", MANY);
    multi(few);
    stores(few);
    counters(few);
    lists(few);
    queues(s);
    queues_many(s);
    topics(s);
    expect(shd_segment_close(s), SHD_OK, "close");
    return 0;
}
