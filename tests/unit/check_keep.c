/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite keep: shm/keep, and api/keep.c: snapshots.
 * valgrind: no: it flips each byte of files, and has writers beside it
 */
#include "shm/api/handle.h"
#include "shm/base/clock.h"
#include "shm/base/hash.h"
#include "shm/guard/reading.h"
#include "shm/keep/copy.h"
#include "shm/keep/record.h"
#include "tests/unit/support.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static shd_segment *segment, *other;
static shd_dict *dict, *small;
static char file[80], spare[90];
static unsigned char *bytes; /* of the file */
static size_t size;
static char buf[400000], text[300000];

#define LONG 260000u

static void set_up(void)
{
    struct shd_segment_options o;

    snprintf(file, sizeof(file), "/dev/shm/%s.snapshot", support_name);
    snprintf(spare, sizeof(spare), "%s.damaged", file);
    (void)unlink(support_file); /* of a case that failed */
    (void)unlink(support_other_file);
    memset(&o, 0, sizeof(o));
    o.struct_size = sizeof(o);
    o.size_bytes = 1 << 30;
    o.workers_max = 40;
    o.objects_max = 20;
    o.locks_max = 100;
    o.mode = 0640;
    expect(shd_segment_create(support_name, &o, &segment), SHD_OK);
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 7 + i / 251);
}

static void remove_files(void)
{
    (void)unlink(file);
    (void)unlink(spare);
    (void)unlink(support_file);
    (void)unlink(support_other_file);
    free(bytes);
    bytes = NULL;
}

static void check_clean(shd_segment *s)
{
    char report[256] = "";
    int rc = shd_segment_check(s, report, sizeof(report));

    ck_assert_msg(rc == SHD_OK, "check: %s: %s", shd_strerror_name(rc),
                  report);
}

static void tear_down(void)
{
    check_clean(segment);
    expect(shd_segment_close(segment), SHD_OK);
    remove_files();
}

static struct shd_dict_options dict_options(uint64_t capacity, uint32_t shards)
{
    return (struct shd_dict_options){.struct_size =
                                         sizeof(struct shd_dict_options),
                                     .capacity_bytes = capacity,
                                     .shards = shards};
}

static shd_dict *make_dict(const char *name, uint64_t capacity,
                           uint32_t shards)
{
    struct shd_dict_options o = dict_options(capacity, shards);
    shd_dict *d;

    expect(shd_dict_open(segment, name, &o, &d), SHD_OK);
    return d;
}

static struct shd_keep_info saved(void)
{
    struct shd_keep_info info = {.struct_size = sizeof(info)};

    expect(shd_segment_save(segment, file, NULL, &info), SHD_OK);
    ck_assert_uint_eq(info.done, 1);
    return info;
}

static struct shd_keep_info restored(uint32_t flags)
{
    struct shd_restore_options o = {.struct_size = sizeof(o), .flags = flags};
    struct shd_keep_info info = {.struct_size = sizeof(info)};

    expect(shd_segment_restore(file, support_other, &o, &info, &other),
           SHD_OK);
    check_clean(other);
    return info;
}

static void forget(void)
{
    expect(shd_segment_close(other), SHD_OK);
    expect(shd_segment_destroy(support_other), SHD_OK);
}

static shd_dict *dict_of(shd_segment *s, const char *name)
{
    shd_dict *d;

    expect(shd_dict_open(s, name, NULL, &d), SHD_OK);
    return d;
}

/* ---- dicts ------------------------------------------------------------- */

/* All types, and the lengths at which the form of an entry changes. */
static const size_t lengths[] = {0,    1,    7,    8,     100,  1000, 2000,
                                 4000, 4090, 4096, 70000, LONG, 5000};
#define LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

static void store(shd_dict *d, const char *key, uint32_t type, size_t len,
                  double number, int64_t ttl_ms, int32_t flags)
{
    expect(shd_store(d, SHD_SET, key, strlen(key), type, text, len, number,
                     ttl_ms, flags, NULL),
           SHD_OK);
}

static void fill_dict(shd_dict *d)
{
    char key[40];

    for (size_t i = 0; i < LENGTHS; i++) {
        snprintf(key, sizeof(key), "s%zu", i);
        store(d, key, SHD_STRING, lengths[i], 0, 0, (int32_t)i - 3);
        memset(buf, 'k', 3000);
        expect(shd_store(d, SHD_SET, buf, 1020 + i, SHD_STRING, text,
                         lengths[i], 0, 0, 0, NULL),
               SHD_OK);
    }
    store(d, "number", SHD_NUMBER, 0, -0.125, 0, 7);
    store(d, "true", SHD_BOOLEAN, 0, 1, 0, 0);
    store(d, "ttl", SHD_STRING, 5, 0, 1000000, 0);
    store(d, "soon", SHD_STRING, 5, 0, 50000, -1);
    expect(shd_set(d, "\0\xff\0", 3, "binary\0", 7, 0), SHD_OK);
    for (int i = 0; i < 300; i++)
        expect(shd_push(d, 0, "list", 4, i % 2 ? SHD_STRING : SHD_NUMBER, text,
                        i == 77 ? 20000 : (size_t)i, i, NULL),
               SHD_OK);
    expect(shd_push_expire(d, 0, "short list", 10, SHD_NUMBER, NULL, 0, 1,
                           60000, NULL),
           SHD_OK);
    expect(shd_store(d, SHD_SET, "gone", 4, SHD_STRING, "v", 1, 0, 1, 0, NULL),
           SHD_OK);
    clock_test_advance(2);
}

static void same_value(const struct shd_value *a, const struct shd_value *b)
{
    ck_assert_uint_eq(a->type, b->type);
    ck_assert_uint_eq(a->len, b->len);
    ck_assert_int_eq(a->flags, b->flags);
    ck_assert(a->number == b->number);
    ck_assert_msg((a->ttl_ms == 0) == (b->ttl_ms == 0) &&
                      llabs((long long)(a->ttl_ms - b->ttl_ms)) < 30000,
                  "%lld, %lld", (long long)a->ttl_ms, (long long)b->ttl_ms);
}

static void same_list(shd_dict *a, shd_dict *b, const char *key, size_t len)
{
    struct shd_value x, y;
    size_t at;
    uint32_t n;
    uint64_t length, same;

    expect(shd_list_read(a, key, len, 0, 0, 1, buf, sizeof(buf), &x, &at, &n,
                         &length),
           SHD_OK);
    for (uint64_t i = 0; i < length; i++) {
        expect(shd_list_read(a, key, len, 0, i, 1, buf, 100000, &x, &at, &n,
                             &same),
               SHD_OK);
        expect(shd_list_read(b, key, len, 0, i, 1, buf + 100000, 100000, &y,
                             &at, &n, &same),
               SHD_OK);
        ck_assert_uint_eq(same, length);
        same_value(&x, &y);
        if (x.type == SHD_STRING)
            ck_assert_mem_eq(buf, buf + 100000, x.len);
    }
}

/* Every entry, in the walk's order, which is that of hashes. */
static void same_dict(shd_dict *a, shd_dict *b)
{
    static char key_a[65535], key_b[65535], value_a[LONG], value_b[LONG];
    struct shd_value x, y;
    size_t la = 0, lb = 0;
    bool first = true;
    int ra, rb;

    do {
        ra = shd_scan(a, first ? NULL : key_a, la, 0, key_a, sizeof(key_a),
                      &la, value_a, sizeof(value_a), &x);
        rb = shd_scan(b, first ? NULL : key_b, lb, 0, key_b, sizeof(key_b),
                      &lb, value_b, sizeof(value_b), &y);
        first = false;
        ck_assert_int_eq(ra, rb);
        if (ra != SHD_OK)
            break;
        ck_assert_uint_eq(la, lb);
        ck_assert_mem_eq(key_a, key_b, la);
        same_value(&x, &y);
        if (x.type == SHD_STRING)
            ck_assert_mem_eq(value_a, value_b, x.len);
        if (x.type == SHD_LIST)
            same_list(a, b, key_a, la);
    } while (ra == SHD_OK);
    expect(ra, SHD_NOTFOUND);
}

START_TEST(a_dict_comes_back_as_it_was)
{
    static const uint32_t shards[] = {1, 2, 16};
    struct shd_keep_info s, r;
    struct shd_dict_info i = {.struct_size = sizeof(i)}, j = i;

    dict = make_dict("d", 4 << 20, shards[_i]);
    fill_dict(dict);
    s = saved();
    r = restored(0);
    ck_assert_uint_eq(s.expired, 1);
    ck_assert_uint_eq(s.entries, 2 * LENGTHS + 7);
    ck_assert_uint_eq(s.elements, 301);
    ck_assert_uint_eq(s.one_moment, 1);
    ck_assert_uint_eq(s.held_ns, 0);
    ck_assert_uint_eq(r.entries, s.entries);
    ck_assert_uint_eq(r.expired + r.evicted, 0);
    ck_assert_uint_eq(r.bytes, s.bytes);
    ck_assert_str_eq(r.name, support_name);
    small = dict_of(other, "d");
    same_dict(dict, small);
    expect(shd_dict_info(dict, &i), SHD_OK);
    expect(shd_dict_info(small, &j), SHD_OK);
    ck_assert_uint_eq(i.capacity_bytes, j.capacity_bytes);
    ck_assert_uint_eq(i.capacity_max_bytes, j.capacity_max_bytes);
    ck_assert_uint_eq(i.shards, j.shards);
    ck_assert_uint_eq(i.roots, j.roots);
    ck_assert_uint_eq(i.pages, j.pages);
    forget();
}
END_TEST

/* A full dict, whose keys are in use by their number: what comes back is in
 * the order, with the marks, of what was there. */
START_TEST(the_order_of_eviction_comes_back)
{
    struct shd_entry_info a = {.struct_size = sizeof(a)}, b = a;
    shd_keys *x, *y;
    char key[40];

    dict = make_dict("d", 64 << 10, 1);
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof(key), "key %d", i);
        store(dict, key, SHD_STRING, (size_t)(i * 37 % 300), 0, 0, 0);
        if (i > 2950 && i % 3 == 0)
            expect(shd_get(dict, key, strlen(key), buf, sizeof(buf),
                           &(struct shd_value){0}),
                   SHD_OK);
    }
    (void)saved();
    ck_assert_uint_eq(restored(0).evicted, 0);
    small = dict_of(other, "d");
    same_dict(dict, small);
    expect(shd_keys_get(dict, 0, &x), SHD_OK);
    expect(shd_keys_get(small, 0, &y), SHD_OK);
    ck_assert_uint_eq(shd_keys_count(x), shd_keys_count(y));
    ck_assert_uint_gt(shd_keys_count(x), 100);
    for (uint64_t i = 0; i < shd_keys_count(x); i++) {
        size_t n, m;
        const char *k = shd_keys_at(x, i, &n), *l = shd_keys_at(y, i, &m);

        ck_assert_uint_eq(n, m);
        ck_assert_mem_eq(k, l, n);
        expect(shd_entry_info(dict, k, n, &a), SHD_OK);
        expect(shd_entry_info(small, k, n, &b), SHD_OK);
        ck_assert_uint_eq(a.used, b.used);
    }
    shd_keys_free(x);
    shd_keys_free(y);
    forget();
}
END_TEST

static int64_t ttl_of(shd_dict *d, const char *key)
{
    int64_t ms = 0;

    expect(shd_ttl(d, key, strlen(key), &ms), SHD_OK);
    return ms;
}

/* A short entry lies in a cell for long ones, of the only page there is; it has
 * none where it comes first and takes the page for its own kind. */
START_TEST(what_finds_no_room_is_counted)
{
    struct shd_dict_info i = {.struct_size = sizeof(i)};
    struct shd_keep_info s, r;

    dict = make_dict("d", 8 << 10, 1);
    store(dict, "short", SHD_STRING, 0, 0, 0, 0);
    store(dict, "long", SHD_STRING, 324, 0, 0, 0);
    store(dict, "short", SHD_STRING, 0, 0, 0, 0);
    store(dict, "long", SHD_STRING, 96, 0, 0, 0);
    s = saved();
    r = restored(0);
    small = dict_of(other, "d");
    expect(shd_dict_info(small, &i), SHD_OK);
    ck_assert_uint_eq(s.entries, 2);
    ck_assert_uint_eq(r.evicted, 1);
    ck_assert_uint_eq(i.entries, 1);
    forget();
}
END_TEST

START_TEST(time_counts_unless_it_is_frozen)
{
    struct shd_keep_info r;
    int64_t ms;

    dict = make_dict("d", 4 << 20, 0);
    fill_dict(dict);
    (void)saved();
    clock_test_advance(100000);
    r = restored(0);
    small = dict_of(other, "d");
    ck_assert_uint_eq(r.expired, 2); /* "soon", "short list" */
    expect(shd_ttl(small, "soon", 4, &ms), SHD_NOTFOUND);
    expect(shd_llen(small, "short list", 10, &r.total), SHD_OK);
    ck_assert_uint_eq(r.total, 0);
    ms = ttl_of(small, "ttl");
    ck_assert_msg(ms <= 900000 && ms > 840000, "%lld", (long long)ms);
    ck_assert_int_eq(ttl_of(small, "number"), 0);
    forget();
    r = restored(SHD_RESTORE_FREEZE);
    small = dict_of(other, "d");
    ck_assert_uint_eq(r.expired, 0);
    ms = ttl_of(small, "soon");
    ck_assert_msg(ms <= 50000 && ms > 10000, "%lld", (long long)ms);
    expect(shd_llen(small, "short list", 10, &r.total), SHD_OK);
    ck_assert_uint_eq(r.total, 1);
    ck_assert_int_eq(ttl_of(small, "number"), 0);
    forget();
}
END_TEST

/* ---- the others -------------------------------------------------------- */

static shd_queue *queue_of(shd_segment *s, const struct shd_queue_options *o)
{
    shd_queue *q;

    expect(shd_queue_open(s, "q", o, &q), SHD_OK);
    return q;
}

static void push(shd_queue *q, const char *message, int64_t delay_ms)
{
    expect(shd_queue_push(q, message, strlen(message), delay_ms, 0, NULL),
           SHD_OK);
}

static void fill_queue(void)
{
    struct shd_queue_options o = {.struct_size = sizeof(o),
                                  .deliveries_max = 2,
                                  .capacity_bytes = 600000,
                                  .message_bytes = 50,
                                  .messages_max = 100,
                                  .lease_ms = 700000};
    shd_queue *q = queue_of(segment, &o);
    struct shd_message m;
    uint64_t lease;

    push(q, "dead", 0);
    for (int i = 0; i < 2; i++) {
        expect(shd_queue_take(q, buf, sizeof(buf), 0, &m), SHD_OK);
        expect(shd_queue_nack(q, m.lease, 0), SHD_OK);
    }
    push(q, "leased", 0);
    expect(shd_queue_take(q, buf, sizeof(buf), 0, &m), SHD_OK);
    push(q, "", 0);
    push(q, "ready", 0);
    push(q, "later", 200000);
    push(q, "late", 100000);
    expect(shd_queue_push(q, text, 40000, 0, 0, NULL), SHD_OK);
    expect(shd_queue_reserve(q, 10, 0, &lease), SHD_OK);
}

static void expect_message(shd_queue *q, uint32_t which, uint64_t index,
                           const char *message, uint32_t attempts,
                           uint64_t id)
{
    struct shd_message m;

    expect(shd_queue_peek(q, which, index, buf, sizeof(buf), &m), SHD_OK);
    ck_assert_uint_eq(m.len, strlen(message));
    ck_assert_mem_eq(buf, message, m.len);
    ck_assert_uint_eq(m.attempts, attempts);
    ck_assert_uint_eq(m.id, id);
    ck_assert_uint_gt(m.pushed_ms, 1600000000000u);
}

START_TEST(a_queue_comes_back_but_for_what_was_held)
{
    struct shd_queue_info i = {.struct_size = sizeof(i)};
    struct shd_message m;
    shd_queue *q;
    uint64_t id;

    fill_queue();
    ck_assert_uint_eq(saved().messages, 7);
    ck_assert_uint_eq(restored(0).messages, 7);
    q = queue_of(other, NULL);
    expect(shd_queue_info(q, &i), SHD_OK);
    ck_assert_uint_eq(i.capacity_bytes, 600000);
    ck_assert_uint_eq(i.message_bytes, 50);
    ck_assert_uint_eq(i.messages_max, 100);
    ck_assert_uint_eq(i.lease_ms, 700000);
    ck_assert_uint_eq(i.deliveries_max, 2);
    ck_assert_uint_eq(i.ready, 4);
    ck_assert_uint_eq(i.delayed, 2);
    ck_assert_uint_eq(i.dead, 1);
    ck_assert_uint_eq(i.leased + i.reservations, 0);
    expect_message(q, SHD_MESSAGE_DEAD, 0, "dead", 2, 1);
    expect_message(q, SHD_MESSAGE_READY, 0, "leased", 1, 2);
    expect_message(q, SHD_MESSAGE_READY, 1, "", 0, 3);
    expect_message(q, SHD_MESSAGE_READY, 2, "ready", 0, 4);
    expect_message(q, SHD_MESSAGE_DELAYED, 0, "late", 0, 6);
    expect_message(q, SHD_MESSAGE_DELAYED, 1, "later", 0, 5);
    expect(shd_queue_peek(q, SHD_MESSAGE_READY, 3, buf, sizeof(buf), &m),
           SHD_OK);
    ck_assert_uint_eq(m.len, 40000);
    ck_assert_mem_eq(buf, text, 40000);
    expect(shd_queue_push(q, "new", 3, 0, 0, &id), SHD_OK);
    ck_assert_uint_eq(id, 9); /* 8 was the reservation */
    check_clean(other);
    forget();
}
END_TEST

static shd_topic *fill_topic(uint32_t flags)
{
    struct shd_topic_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_TOPIC_CREATE | flags,
                                  .capacity_bytes = 4096,
                                  .subscribers_max = 9};
    static shd_subscription *lapsed, *mine; /* that stays subscribed */
    struct shd_event e;
    uint32_t count;
    uint64_t missed;
    shd_topic *t;

    expect(shd_topic_open(segment, "t", &o, &t), SHD_OK);
    expect(shd_topic_subscribe(t, "lapsed", SHD_FROM_NOW, &lapsed), SHD_OK);
    expect(shd_subscription_close(lapsed), SHD_OK);
    for (int i = 0; i < 300; i++)
        expect(shd_topic_publish(t, text + i, (size_t)(i % 50), 0, NULL),
               SHD_OK);
    expect(shd_topic_subscribe(t, "named", SHD_FROM_OLDEST, &mine), SHD_OK);
    for (int i = 0; i < 5; i++)
        expect(shd_subscription_next(mine, buf, sizeof(buf), 0, &e, 1, &count,
                                     &missed),
               SHD_OK);
    expect(shd_subscription_close(mine), SHD_OK);
    expect(shd_topic_subscribe(t, NULL, SHD_FROM_NOW, &mine), SHD_OK);
    return t;
}

START_TEST(a_topic_comes_back_with_its_numbers_and_names)
{
    struct shd_topic_info a = {.struct_size = sizeof(a)}, b = a;
    struct shd_cursor_info c = {.struct_size = sizeof(c)}, k = c;
    shd_topic *t = fill_topic(_i ? SHD_TOPIC_LOSSLESS : 0), *u;
    shd_subscription *s;
    struct shd_event e;
    uint32_t count;
    uint64_t missed, events = saved().events;

    ck_assert_uint_eq(restored(0).events, events);
    expect(shd_topic_open(other, "t", NULL, &u), SHD_OK);
    expect(shd_topic_info(t, &a), SHD_OK);
    expect(shd_topic_info(u, &b), SHD_OK);
    ck_assert_uint_eq(a.published, b.published);
    ck_assert_uint_eq(a.oldest, b.oldest);
    ck_assert_uint_eq(a.published - a.oldest + 1, events);
    ck_assert_uint_eq(a.kept_bytes, b.kept_bytes);
    ck_assert_uint_eq(a.lossless, b.lossless);
    ck_assert_uint_eq(b.cursors, 2);
    ck_assert_uint_eq(b.cursors_max, 9);
    for (uint32_t i = 0; i < 2; i++) {
        expect(shd_topic_cursor(t, i, &c), SHD_OK);
        expect(shd_topic_cursor(u, i, &k), SHD_OK);
        ck_assert_str_eq(c.name, k.name);
        ck_assert_uint_eq(c.next, k.next);
        ck_assert_uint_eq(k.owner, 0);
    }
    expect(shd_topic_subscribe(u, "lapsed", SHD_FROM_NOW, &s), SHD_OK);
    expect(shd_subscription_next(s, buf, sizeof(buf), 0, &e, 1, &count,
                                 &missed),
           SHD_OK);
    ck_assert_uint_eq(missed, a.oldest - 1);
    ck_assert_uint_eq(e.seq, a.oldest);
    ck_assert_uint_eq(e.len, (a.oldest - 1) % 50);
    ck_assert_mem_eq(buf, text + a.oldest - 1, e.len);
    expect(shd_subscription_close(s), SHD_OK);
    expect(shd_topic_publish(u, "x", 1, 0, &missed), SHD_OK);
    ck_assert_uint_eq(missed, 301);
    check_clean(other);
    forget();
}
END_TEST

START_TEST(tokens_go_on_and_nobody_holds_a_lock)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE,
                                 .permits = 3,
                                 .waiters_max = 77};
    struct shd_lock_info i = {.struct_size = sizeof(i)};
    struct shd_grant g, h;
    shd_lock *l;

    expect(shd_lock_open(segment, "sem", SHD_OBJECT_SEMAPHORE, &o, &l),
           SHD_OK);
    for (int n = 0; n < 10; n++) {
        expect(shd_lock_acquire(l, 0, 0, &g), SHD_OK);
        if (n < 9)
            expect(shd_lock_release(l, g.token), SHD_OK);
    }
    (void)saved();
    (void)restored(0);
    expect(shd_lock_open(other, "sem", SHD_OBJECT_SEMAPHORE, NULL, &l),
           SHD_OK);
    expect(shd_lock_info(l, &i), SHD_OK);
    ck_assert_uint_eq(i.permits, 3);
    ck_assert_uint_eq(i.taken, 0);
    ck_assert_uint_eq(i.waiters_max, 77);
    expect(shd_lock_acquire(l, 0, 0, &h), SHD_OK);
    ck_assert_uint_gt(h.token, g.token);
    expect(shd_lock_release(l, h.token), SHD_OK);
    forget();
}
END_TEST

START_TEST(who_leads_is_asked_anew_and_its_token_goes_on)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE};
    struct shd_grant g, h;
    shd_leader *l;

    expect(shd_leader_open(segment, "l", &o, &l), SHD_OK);
    for (int n = 0; n < 5; n++) {
        expect(shd_leader_look(l, 0, &g), SHD_OK);
        if (n < 4)
            expect(shd_leader_resign(l), SHD_OK);
    }
    (void)saved();
    (void)restored(0);
    expect(shd_leader_open(other, "l", NULL, &l), SHD_OK);
    expect(shd_leader_look(l, 0, &h), SHD_OK);
    ck_assert_uint_gt(h.token, g.token);
    expect(shd_leader_resign(l), SHD_OK);
    forget();
}
END_TEST

START_TEST(a_mailbox_comes_back_empty)
{
    struct shd_mailbox_options o = {.struct_size = sizeof(o),
                                    .capacity_bytes = 300000,
                                    .message_bytes = 70,
                                    .box_bytes = 9000};
    shd_mailbox *m;

    expect(shd_mailbox_open(segment, "m", &o, &m), SHD_OK);
    expect(shd_mailbox_listen(m), SHD_OK);
    ck_assert_uint_eq(saved().objects, 1);
    ck_assert_uint_eq(restored(0).objects, 1);
    /* SHD_MISMATCH if it were another one. */
    expect(shd_mailbox_open(other, "m", &o, &m), SHD_OK);
    expect(shd_mailbox_listen(m), SHD_OK);
    forget();
}
END_TEST

/* ---- names ------------------------------------------------------------- */

START_TEST(what_is_there_is_replaced_only_when_asked)
{
    struct shd_restore_options o = {.struct_size = sizeof(o)};
    struct shd_segment_info a = {.struct_size = sizeof(a)}, b = a;
    struct stat st;
    shd_segment *s;
    pid_t child;
    int up[2];

    dict = make_dict("d", 64 << 10, 1);
    expect(shd_set(dict, "k", 1, "v", 1, 0), SHD_OK);
    (void)saved();
    ck_assert_int_eq(stat(file, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    /* This process itself is a live worker. */
    expect(shd_segment_restore(file, NULL, NULL, NULL, NULL), SHD_EXISTS);
    expect_said("exists");
    o.flags = SHD_RESTORE_REPLACE;
    expect(shd_segment_restore(file, NULL, &o, NULL, NULL), SHD_EXISTS);
    expect_said("1 live worker");
    /* Another one's segment. */
    ck_assert_int_eq(pipe(up), 0);
    child = fork();
    if (child == 0) {
        expect(shd_segment_create(support_other, NULL, &s), SHD_OK);
        expect(shd_worker_join(s, NULL), SHD_OK);
        ck_assert_int_eq((int)write(up[1], "x", 1), 1);
        pause();
    }
    ck_assert_int_eq((int)read(up[0], buf, 1), 1);
    expect(shd_segment_restore(file, support_other, &o, NULL, NULL),
           SHD_EXISTS);
    expect_said("1 live worker");
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    expect(shd_segment_restore(file, support_other, NULL, NULL, NULL),
           SHD_EXISTS);
    expect(shd_segment_restore(file, support_other, &o, NULL, &other), SHD_OK);
    same_dict(dict, dict_of(other, "d"));
    expect(shd_segment_info(other, &a), SHD_OK);
    ck_assert_int_eq(stat(support_other_file, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0640);
    ck_assert_uint_eq(a.workers_max, 40);
    ck_assert_uint_eq(a.objects_max, 20);
    ck_assert_uint_eq(a.locks_max, 100);
    expect(shd_segment_info(segment, &b), SHD_OK);
    ck_assert_uint_eq(a.size_bytes, b.size_bytes);
    ck_assert_uint_eq(a.hash_seed, b.hash_seed);
    /* In use by this process now. */
    o.flags = SHD_RESTORE_IN_USE;
    expect(shd_segment_restore(file, support_other, &o, NULL, &s), SHD_OK);
    ck_assert_ptr_ne(s, other);
    same_dict(dict_of(s, "d"), dict_of(other, "d"));
    expect(shd_segment_close(s), SHD_OK);
    forget();
    expect(shd_segment_restore(file, "bad/name", NULL, NULL, NULL), SHD_NAME);
    expect(shd_segment_restore("/nowhere/x", "x", NULL, NULL, NULL),
           SHD_NOTFOUND);
    expect(shd_segment_restore("/dev/shm", "x", NULL, NULL, NULL),
           SHD_FOREIGN);
    expect(shd_segment_save(segment, "/nowhere/x", NULL, NULL), SHD_NOTFOUND);
    expect(shd_segment_save(segment, "", NULL, NULL), SHD_NAME);
    expect(shd_segment_save(segment, "/dev/null", NULL, NULL), SHD_NAME);
    expect(shd_segment_save(segment, "fd:x", NULL, NULL), SHD_NAME);
}
END_TEST

START_TEST(a_snapshot_goes_through_a_pipe)
{
    int way[2];
    char from[20], to[20];
    pid_t child;

    dict = make_dict("d", 4 << 20, 0);
    fill_dict(dict);
    ck_assert_int_eq(pipe(way), 0);
    child = fork();
    if (child == 0) {
        snprintf(to, sizeof(to), "fd:%d", way[1]);
        (void)close(way[0]);
        expect(shd_segment_save(segment, to, NULL, NULL), SHD_OK);
        _exit(0);
    }
    (void)close(way[1]);
    snprintf(from, sizeof(from), "fd:%d", way[0]);
    expect(shd_segment_restore(from, support_other, NULL, NULL, &other),
           SHD_OK);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    same_dict(dict, dict_of(other, "d"));
    forget();
}
END_TEST

static unsigned files_like(const char *directory, const char *part)
{
    char command[200];
    unsigned n = 0;
    FILE *p;

    snprintf(command, sizeof(command), "ls -A %s | grep -c -- '%s'", directory,
             part);
    p = popen(command, "r");
    ck_assert_ptr_nonnull(p);
    ck_assert_int_eq(fscanf(p, "%u", &n), 1);
    (void)pclose(p);
    return n;
}

/* Killed after each step, in a child: the old file is there, and nothing
 * else. */
START_TEST(a_save_that_is_cut_off_leaves_the_old_file)
{
    struct shd_keep_info before, now = {.struct_size = sizeof(now)};
    shd_restore *r;
    shd_save *s;
    int status;

    dict = make_dict("d", 4 << 20, 4);
    fill_dict(dict);
    before = saved();
    for (int steps = 0, more = 1; more; steps++) {
        pid_t child = fork();

        if (child == 0) {
            int rc = 1;

            expect(shd_save_open(segment, file, NULL, &s), SHD_OK);
            for (int i = 0; i < steps && rc == 1; i++)
                rc = shd_save_step(s);
            if (rc == 0)
                _exit(7);
            (void)kill(getpid(), SIGKILL);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        more = WIFSIGNALED(status);
        if (!more)
            ck_assert_int_eq(WEXITSTATUS(status), 7);
        ck_assert_int_eq(files_like("/dev/shm", support_name), 2);
        expect(shd_restore_open(file, support_other, NULL, &r), SHD_OK);
        expect(shd_restore_info(r, &now), SHD_OK);
        /* And one that is not brought to its end leaves nothing. */
        expect(shd_restore_close(r, &other), SHD_OK);
        ck_assert_ptr_null(other);
        ck_assert_int_eq(files_like("/dev/shm", support_name), 2);
        ck_assert_msg((now.saved_ms == before.saved_ms) == more,
                      "after %d steps", steps);
        clock_test_advance(1);
    }
    expect(shd_save_open(segment, file, NULL, &s), SHD_OK);
    expect(shd_save_step(s), 1);
    expect(shd_save_close(s), SHD_OK);
    ck_assert_int_eq(files_like("/dev/shm", support_name), 2);
}
END_TEST

START_TEST(what_is_destroyed_meanwhile_is_left_out)
{
    shd_save *s;
    struct shd_keep_info i = {.struct_size = sizeof(i)};
    int rc;

    dict = make_dict("d", 4 << 20, 4);
    fill_dict(dict);
    small = make_dict("e", 64 << 10, 1);
    expect(shd_set(small, "k", 1, "v", 1, 0), SHD_OK);
    expect(shd_save_open(segment, file, NULL, &s), SHD_OK);
    for (int n = 0; n < 5; n++)
        expect(shd_save_step(s), 1);
    expect(shd_dict_destroy(segment, "d"), SHD_OK);
    do {
        rc = shd_save_step(s);
    } while (rc == 1);
    expect(rc, SHD_OK);
    expect(shd_save_info(s, &i), SHD_OK);
    ck_assert_uint_eq(i.dropped, 1);
    ck_assert_uint_eq(i.one_moment, 0);
    expect(shd_save_close(s), SHD_OK);
    (void)restored(0);
    expect(shd_dict_open(other, "d", NULL, &dict), SHD_NOTFOUND);
    same_dict(small, dict_of(other, "e"));
    forget();
}
END_TEST

/* ---- damage ------------------------------------------------------------ */

static void load(void)
{
    struct stat st;
    int fd = open(file, O_RDONLY);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    size = (size_t)st.st_size;
    bytes = malloc(size);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_int_eq((int)read(fd, bytes, size), (int)size);
    (void)close(fd);
}

static void put_file(const char *path, const void *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq((int)write(fd, p, n), (int)n);
    (void)close(fd);
}

/* Checksums that fit whatever is in the file now. */
static void seal(void)
{
    uint64_t seed;

    file_put(bytes + 56, hash_bytes(bytes, 56, 0), 8);
    seed = file_get(bytes + 24, 8);
    for (size_t at = FILE_HEADER_BYTES; at < size;) {
        size_t len = FILE_BLOCK_HEAD_BYTES + file_get(bytes + at + 12, 4);

        ck_assert_uint_le(at + len, size);
        file_put(bytes + at, hash_bytes(bytes + at + 8, len - 8, seed), 8);
        at += len;
    }
}

static void fill_all(void)
{
    dict = make_dict("d", 64 << 10, 2);
    store(dict, "s", SHD_STRING, 9, 0, 1000000, 3);
    store(dict, "n", SHD_NUMBER, 0, 2.5, 0, 0);
    for (int i = 0; i < 3; i++)
        expect(shd_push(dict, 0, "list", 4, SHD_STRING, text, (size_t)i, 0,
                        NULL),
               SHD_OK);
    fill_queue();
    (void)fill_topic(0);
    expect(shd_lock_open(segment, "l", SHD_OBJECT_LOCK,
                         &(struct shd_lock_options){
                             .struct_size = sizeof(struct shd_lock_options),
                             .flags = SHD_LOCK_CREATE},
                         &(shd_lock *){NULL}),
           SHD_OK);
}

static bool is_named(int code)
{
    return (code == SHD_CORRUPT || code == SHD_FOREIGN ||
            code == SHD_LAYOUT) &&
           shd_last_error()[0] != '\0';
}

START_TEST(every_flipped_byte_is_found)
{
    fill_all();
    (void)saved();
    load();
    expect(record_scan(bytes, size, NULL), SHD_OK);
    for (size_t i = 0; i < size; i++) {
        /* A long run of equal bytes shows nothing new. */
        unsigned char flip = (unsigned char)(1u << i % 8);

        if (size > 20000 && i > 9000 && i + 9000 < size && i % 61 != 0)
            continue;
        bytes[i] ^= flip;
        int rc = record_scan(bytes, size, NULL);
        ck_assert_msg(is_named(rc), "byte %zu of %zu: %s", i, size,
                      shd_strerror_name(rc));
        bytes[i] ^= flip;
    }
}
END_TEST

START_TEST(every_cut_is_found)
{
    fill_all();
    (void)saved();
    load();
    for (size_t n = 0; n < size; n++) {
        if (n > 9000 && n + 9000 < size && n % 61 != 0)
            continue;
        int rc = record_scan(bytes, n, NULL);
        ck_assert_msg(is_named(rc), "%zu of %zu: %s", n, size,
                      shd_strerror_name(rc));
        if (n >= FILE_HEADER_BYTES)
            expect_said("cut off");
    }
    bytes = realloc(bytes, size + 1);
    bytes[size] = 0;
    expect(record_scan(bytes, size + 1, NULL), SHD_CORRUPT);
    expect_said("something after its end");
}
END_TEST

/* Several blocks: at each border, and blocks in another order, twice, or
 * missing. */
START_TEST(blocks_are_found_missing_or_out_of_place)
{
    size_t at[40], n = 0;
    unsigned char *copy;

    dict = make_dict("d", 4 << 20, 1);
    for (int i = 0; i < 8; i++) {
        char key[20];

        snprintf(key, sizeof(key), "%d", i);
        store(dict, key, SHD_STRING, LONG, 0, 0, 0);
    }
    (void)saved();
    load();
    for (size_t p = FILE_HEADER_BYTES; p < size; n++) {
        ck_assert_uint_lt(n, 39);
        at[n] = p;
        p += FILE_BLOCK_HEAD_BYTES + file_get(bytes + p + 12, 4);
    }
    at[n] = size;
    ck_assert_uint_gt(n, 7);
    copy = malloc(size + FILE_BLOCK_MAX + FILE_BLOCK_HEAD_BYTES);
    for (size_t i = 0; i < n; i++) {
        size_t len = at[i + 1] - at[i];

        expect(record_scan(bytes, at[i], NULL), SHD_CORRUPT);
        expect_said("cut off");
        expect(record_scan(bytes, at[i] + FILE_BLOCK_HEAD_BYTES, NULL),
               SHD_CORRUPT);
        /* Missing. */
        memcpy(copy, bytes, at[i]);
        memcpy(copy + at[i], bytes + at[i + 1], size - at[i + 1]);
        ck_assert(is_named(record_scan(copy, size - len, NULL)));
        /* Twice. */
        memcpy(copy, bytes, at[i + 1]);
        memcpy(copy + at[i + 1], bytes + at[i], size - at[i]);
        ck_assert(is_named(record_scan(copy, size + len, NULL)));
    }
    memcpy(copy, bytes, size);
    memcpy(copy + at[1], bytes + at[2], at[3] - at[2]);
    memcpy(copy + at[2], bytes + at[1], at[2] - at[1]);
    ck_assert(is_named(record_scan(copy, size, NULL)));
    free(copy);
}
END_TEST

START_TEST(later_versions_and_other_files_are_named)
{
    struct shd_restore_options o = {.struct_size = sizeof(o),
                                    .flags = SHD_RESTORE_VERIFY};

    fill_all();
    (void)saved();
    expect(shd_segment_restore(file, NULL, &o, NULL, &other), SHD_OK);
    ck_assert_ptr_null(other);
    load();
    file_put(bytes + 16, FILE_VERSION + 1, 4);
    put_file(spare, bytes, size);
    expect(shd_segment_restore(spare, "x", NULL, NULL, NULL), SHD_LAYOUT);
    expect_said("use a newer one");
    seal();
    put_file(spare, bytes, size);
    expect(shd_segment_restore(spare, "x", &o, NULL, NULL), SHD_LAYOUT);
    put_file(spare, "#shdict dump 1\n", 15);
    expect(shd_segment_restore(spare, "x", NULL, NULL, NULL), SHD_FOREIGN);
    expect_said("no snapshot");
    put_file(spare, "", 0);
    expect(shd_segment_restore(spare, "x", NULL, NULL, NULL), SHD_FOREIGN);
    expect(shd_segment_restore(support_file, "x", NULL, NULL, NULL),
           SHD_FOREIGN);
    ck_assert_int_ne(access("/dev/shm/shdict-x", F_OK), 0);
}
END_TEST

/* With checksums that fit, whatever is written there: an error or a sound
 * segment, never a crash. */
START_TEST(what_was_made_with_care_is_survived)
{
    struct shd_restore_options o = {.struct_size = sizeof(o)};
    unsigned char *good;
    int sound = 0;

    fill_all();
    (void)saved();
    load();
    good = malloc(size);
    memcpy(good, bytes, size);
    srandom((unsigned)_i + 1);
    for (int round = 0; round < 400; round++) {
        int changes = 1 + (int)(random() % 3);
        int rc;

        memcpy(bytes, good, size);
        for (int i = 0; i < changes; i++) {
            /* Half of them where the dict, the queue begin. */
            size_t range = size - FILE_HEADER_BYTES - FILE_BLOCK_HEAD_BYTES;
            size_t where = (size_t)random() %
                           (random() % 2 && range > 400 ? 400 : range);

            bytes[FILE_HEADER_BYTES + FILE_BLOCK_HEAD_BYTES + where] =
                random() % 2 ? (unsigned char)random()
                             : (unsigned char)(random() % 2 ? 0xff : 0);
        }
        seal();
        (void)record_scan(bytes, size, NULL);
        put_file(spare, bytes, size);
        rc = shd_segment_restore(spare, support_other, &o, NULL, &other);
        if (rc == SHD_OK) {
            sound++;
            check_clean(other);
            forget();
        }
        ck_assert_int_ne(access(support_other_file, F_OK), 0);
    }
    ck_assert_int_gt(sound, 0);
    free(good);
}
END_TEST

/* ---- beside writers, who are killed ------------------------------------ */

#define PAIRS 40

/* a is counted before b, always by the same: a is b, or one more. */
static void count(shd_segment *s, int number)
{
    shd_dict *one = dict_of(s, "one"), *many = dict_of(s, "many");
    char a[20], b[20];
    uint64_t length;

    for (uint64_t i = 0;; i++) {
        int n = (int)(i % PAIRS) * 4 + number;

        snprintf(a, sizeof(a), "a%d", n);
        snprintf(b, sizeof(b), "b%d", n);
        (void)!shd_incr(one, a, strlen(a), 1, 1, 0, 0, NULL, NULL);
        (void)!shd_incr(one, b, strlen(b), 1, 1, 0, 0, NULL, NULL);
        (void)!shd_incr(many, a, strlen(a), 1, 1, 0, 0, NULL, NULL);
        if (shd_push(one, 0, a + 1, strlen(a) - 1, SHD_STRING, text, i % 90, 0,
                     &length) == SHD_OK &&
            length > 5)
            (void)!shd_pop(one, 1, a + 1, strlen(a) - 1, buf, 100,
                           &(struct shd_value){0});
    }
}

static double number_in(shd_dict *d, char letter, int n)
{
    struct shd_value v;
    char key[20];
    int rc;

    snprintf(key, sizeof(key), "%c%d", letter, n);
    rc = shd_get(d, key, strlen(key), NULL, 0, &v);
    if (rc == SHD_NOTFOUND)
        return 0;
    expect(rc, SHD_OK);
    return v.number;
}

static void numbers(shd_segment *s, double *into)
{
    shd_dict *many = dict_of(s, "many");

    for (int n = 0; n < 4 * PAIRS; n++)
        into[n] = number_in(many, 'a', n);
}

START_TEST(what_is_saved_beside_writers_who_die_is_one_state)
{
    static double before[4 * PAIRS], now[4 * PAIRS], after[4 * PAIRS];
    pid_t child[4] = {0};
    uint64_t seen = 0;

    (void)make_dict("one", 1 << 20, 1);
    (void)make_dict("many", 8 << 20, 8);
    srandom(7);
    for (int round = 0; round < 30; round++) {
        shd_dict *one;

        for (int i = 0; i < 4; i++) {
            if (child[i] == 0 || random() % 3 == 0) {
                if (child[i] != 0) {
                    (void)kill(child[i], SIGKILL);
                    ck_assert_int_eq(waitpid(child[i], NULL, 0), child[i]);
                }
                child[i] = fork();
                if (child[i] == 0)
                    count(segment, i);
            }
        }
        numbers(segment, before);
        (void)saved();
        numbers(segment, after);
        (void)restored(0);
        numbers(other, now);
        for (int n = 0; n < 4 * PAIRS; n++) {
            ck_assert_msg(before[n] <= now[n] && now[n] <= after[n],
                          "%g, saved %g, %g", before[n], now[n], after[n]);
            seen += now[n] > 0;
        }
        /* Two killed between a and b leave b two behind ... so many deaths
         * at most. */
        one = dict_of(other, "one");
        for (int n = 0; n < 4 * PAIRS; n++) {
            double less = number_in(one, 'a', n) - number_in(one, 'b', n);

            ck_assert_msg(less >= 0 && less <= 1 + round, "a less b is %g",
                          less);
        }
        forget();
    }
    for (int i = 0; i < 4; i++) {
        (void)kill(child[i], SIGKILL);
        ck_assert_int_eq(waitpid(child[i], NULL, 0), child[i]);
    }
    ck_assert_uint_gt(seen, 0);
    expect(shd_reap(segment, NULL), SHD_OK);
}
END_TEST

/* ---- locks ------------------------------------------------------------- */

static struct {
    unsigned tries, locked;
    bool slow;
} seen;

/* Stands for a copy beside a writer who never rests. */
static int overtaken(struct copy *c, const void *context)
{
    const struct dict *d = context;
    struct shd_value v;

    (void)d;
    if (!c->reading->locked) {
        seen.tries++;
        expect(shd_set(dict, "k", 1, "v", 1, 0), SHD_OK);
        expect(copy_still(c), SHD_CHANGED);
        return SHD_OK;
    }
    seen.locked++;
    /* Readers go on beside it. */
    expect(shd_get(dict, "k", 1, buf, sizeof(buf), &v), SHD_OK);
    expect(copy_still(c), SHD_OK);
    if (seen.slow)
        c->since_ns -= 6000000000u;
    return copy_still(c);
}

START_TEST(the_lock_is_the_last_resort_and_has_a_bound)
{
    struct copy c = {.hold_ms = 5000};
    struct dict *d;

    dict = make_dict("d", 64 << 10, 1);
    d = &dict->dict;
    expect(copy_run(&c, d->env, dict_guard(d, 0), "d", overtaken, d), SHD_OK);
    ck_assert_uint_eq(seen.tries, READ_TRIES);
    ck_assert_uint_eq(seen.locked, 1);
    ck_assert_uint_gt(c.held_ns, 0);
    ck_assert_uint_eq(c.seq, atomic_load64(&dict_guard(d, 0)->seq));
    seen.slow = true;
    expect(copy_run(&c, d->env, dict_guard(d, 0), "d", overtaken, d),
           SHD_BUSY);
    expect_said("longer than 5000 ms");
    expect(shd_set(dict, "k", 1, "w", 1, 0), SHD_OK);
}
END_TEST

static TCase *new_case(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);

    tcase_add_checked_fixture(c, set_up, tear_down);
    suite_add_tcase(suite, c);
    return c;
}

int main(void)
{
    Suite *suite = suite_create("keep");
    TCase *c = new_case(suite, "content");

    support_names("keep");
    tcase_add_loop_test(c, a_dict_comes_back_as_it_was, 0, 3);
    tcase_add_test(c, the_order_of_eviction_comes_back);
    tcase_add_test(c, what_finds_no_room_is_counted);
    tcase_add_test(c, time_counts_unless_it_is_frozen);
    tcase_add_test(c, a_queue_comes_back_but_for_what_was_held);
    tcase_add_loop_test(c, a_topic_comes_back_with_its_numbers_and_names, 0,
                        2);
    tcase_add_test(c, tokens_go_on_and_nobody_holds_a_lock);
    tcase_add_test(c, who_leads_is_asked_anew_and_its_token_goes_on);
    tcase_add_test(c, a_mailbox_comes_back_empty);
    c = new_case(suite, "names");
    tcase_add_test(c, what_is_there_is_replaced_only_when_asked);
    tcase_add_test(c, a_snapshot_goes_through_a_pipe);
    tcase_add_test(c, a_save_that_is_cut_off_leaves_the_old_file);
    tcase_add_test(c, what_is_destroyed_meanwhile_is_left_out);
    c = new_case(suite, "damage");
    tcase_add_test(c, every_flipped_byte_is_found);
    tcase_add_test(c, every_cut_is_found);
    tcase_add_test(c, blocks_are_found_missing_or_out_of_place);
    tcase_add_test(c, later_versions_and_other_files_are_named);
    tcase_add_loop_test(c, what_was_made_with_care_is_survived, 0, 3);
    c = new_case(suite, "writers");
    tcase_add_test(c, what_is_saved_beside_writers_who_die_is_one_state);
    tcase_add_test(c, the_lock_is_the_last_resort_and_has_a_bound);
    return support_run(suite);
}
