/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/aim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fields.h"
#include "fuzz/workers.h"
#include "shm/base/clock.h"
#include "shm/dict/entry.h"
#include "shm/dict/index.h"

#define KEYS 40
#define ELEMENTS 12
#define LEASED 9
#define KEY_MAX 4072u
#define MOVES 208u /* of a byte that chooses: lists, */
#define CROWDS 248u

static shd_dict *tall;

struct target {
    shd_dict *dict;
    const struct dict *d;
    uint32_t ref; /* of the entry */
    size_t key_len;
    unsigned char *key; /* exactly as long as it is */
};

/* ---- a tall tree ------------------------------------------------------------------ */

static void must(struct play *p, int rc)
{
    if (rc != SHD_OK)
        play_fail(p, "%s: %s", shd_strerror_name(rc), shd_last_error());
}

void aim_create(struct play *p)
{
    static const struct shd_dict_options o = {.struct_size = sizeof(o),
                                              .capacity_bytes = 96 << 10,
                                              .capacity_max_bytes = 96 << 10,
                                              .shards = 1,
                                              .entries_hint = 1};
    struct shd_value v;
    uint64_t n, lease;
    char key[16], buf[16];

    p->doing = "create";
    must(p, shd_dict_open(p->segment, "tall", &o, &tall));
    for (int i = 0; i < KEYS; i++) {
        int len = snprintf(key, sizeof(key), "tall%d", i);

        must(p, shd_set(tall, key, (size_t)len, key, (size_t)len,
                        i % 3 == 0 ? 3000 + i : 0));
    }
    for (int i = 0; i < ELEMENTS; i++)
        must(p, shd_push(tall, 0, "leases", 6, SHD_STRING, key, 3, 0, &n));
    for (int i = 0; i < LEASED; i++)
        must(p, shd_ltake(tall, i & 1, "leases", 6, buf, sizeof(buf), &v,
                          &lease));
}

/* ---- what is aimed at ----------------------------------------------------------------- */

static unsigned char *base_of(const struct target *t)
{
    return t->d->env->segment->base;
}

static const uint32_t *words_at(const struct target *t, uint32_t ref)
{
    uint64_t at = (uint64_t)ref * SEGMENT_UNIT;

    if (at < t->d->pages.at ||
        at >= t->d->pages.at + (uint64_t)t->d->pages.max * PAGE_BYTES)
        return NULL;
    return (const uint32_t *)(const void *)(base_of(t) + at);
}

/* The n-th entry that there is, counted round. */
static uint32_t entry_number(const struct target *t, uint64_t n)
{
    const struct pages *pages = &t->d->pages;
    uint32_t count = pages_count(pages), ref, found = 0;
    uint64_t seen;

    do {
        seen = found == 0 ? 0 : n + 1;
        for (uint32_t page = 0; page < count && page < pages->max; page++) {
            uint32_t at = 0;

            if (pages->table[page].owner == 0)
                continue;
            while ((ref = slab_next_used(pages, page, &at)) != 0) {
                const struct cell *c = (const void *)words_at(t, ref);

                if (c == NULL || cell_kind(c->meta) != CELL_ENTRY)
                    continue;
                found = ref;
                if (seen++ == n)
                    return ref;
            }
        }
        n = seen == 0 || n < seen ? 0 : n % seen;
    } while (found != 0 && seen <= n);
    return found;
}

static bool take_key(struct target *t)
{
    const struct entry *e = (const void *)words_at(t, t->ref);
    const unsigned char *from = (const unsigned char *)(e + 1);
    uint64_t left;

    t->key_len = entry_key_len(e->key_expires);
    if (entry_is_long((uint32_t)t->key_len)) {
        const uint32_t *chain =
            words_at(t, *(const uint32_t *)(const void *)(e + 1));

        if (chain == NULL)
            return false;
        from = (const unsigned char *)chain + sizeof(struct cell);
    }
    left = t->d->env->segment->size - (uint64_t)(from - base_of(t));
    if (t->key_len == 0 || t->key_len > KEY_MAX || t->key_len > left)
        return false;
    t->key = malloc(t->key_len);
    if (t->key == NULL)
        abort();
    memcpy(t->key, from, t->key_len);
    return true;
}

/* Who has it as a child, or comes before it. */
static uint32_t before(struct play *p, const struct target *t, uint32_t ref)
{
    uint32_t link = (uint32_t)play_draw(p, 4);
    const struct pages *pages = &t->d->pages;
    uint32_t count = pages_count(pages), other;

    for (uint32_t page = 0; page < count && page < pages->max; page++) {
        uint32_t at = 0;

        if (pages->table[page].owner == 0)
            continue;
        while ((other = slab_next_used(pages, page, &at)) != 0) {
            const uint32_t *w = words_at(t, other);

            if (w != NULL && (w[link] == ref || (link < 2 && w[!link] == ref)))
                return other;
        }
    }
    return ref;
}

/* One link on: of the cell's head, of its value; or back. */
static uint32_t follow(struct play *p, const struct target *t, uint32_t ref)
{
    const uint32_t *w = words_at(t, ref);
    uint64_t n = play_draw(p, 12), at;
    const struct entry *e = (const void *)w;

    if (w == NULL)
        return 0;
    if (n >= 10)
        return before(p, t, ref);
    if (n < 4)
        return w[n];
    if (cell_kind(e->cell.meta) != CELL_ENTRY)
        return w[sizeof(struct cell) / 4 + (n & 1)];
    at = n == 9 ? sizeof(*e)
                : entry_value_at(e->cell.meta, entry_key_len(e->key_expires)) +
                      (n - 4) * 4;
    return at + 4 > PAGE_BYTES - (uint64_t)ref * SEGMENT_UNIT % PAGE_BYTES
               ? 0
               : w[at / 4];
}

static void damage(struct play *p, const struct target *t)
{
    uint64_t what = play_draw(p, 16), steps = play_draw(p, 4);
    struct place at;
    uint32_t ref = t->ref;

    if (what == 0) {
        at = dict_place(t->d, t->key, t->key_len);
        fields_damage_root(p, t->d, at.order);
        return;
    }
    if (what == 1) {
        at = dict_place(t->d, t->key, t->key_len);
        fields_damage_shard(p, t->d, at.shard);
        return;
    }
    for (; steps > 0; steps--) {
        uint32_t next = follow(p, t, ref);

        if (words_at(t, next) != NULL)
            ref = next;
    }
    if (what < 5)
        fields_damage_page(p, t->d,
                           cell_page(&t->d->pages, ref) % t->d->pages.max);
    else
        fields_damage_cell(p, t->d, ref);
}

/* ---- operations -------------------------------------------------------------------------- */

static void *some_bytes(size_t n)
{
    unsigned char *b = malloc(n + (n == 0));

    if (b == NULL)
        abort();
    memset(b, 'v', n);
    return b;
}

static size_t some_len(struct play *p)
{
    static const size_t LENS[] = {0,    5,    40,   100,  300,   900,
                                  1500, 3000, 5000, 9000, 20000, 66000};

    return LENS[play_draw(p, 12)];
}

/* With what is there: its value, or its version. */
static int on_condition(struct play *p, const struct target *t,
                        const void *value, size_t len)
{
    size_t size = 70000;
    unsigned char *old = some_bytes(size);
    struct shd_value v;
    uint64_t version = 0;
    uint32_t forced;
    int rc;

    switch (play_draw(p, 4)) {
    case 0:
        rc = shd_get_versioned(t->dict, t->key, t->key_len, old, size, &v,
                               &version);
        if (rc == SHD_OK)
            rc = shd_store_versioned(t->dict, t->key, t->key_len, SHD_STRING,
                                     value, len, 0, 0, (int32_t)play_draw(p, 2),
                                     &version, &forced);
        break;
    case 1:
        rc = shd_get_versioned(t->dict, t->key, t->key_len, old, size, &v,
                               &version);
        break;
    default:
        rc = shd_get_stale(t->dict, t->key, t->key_len, old, size, &v);
        if (rc != SHD_OK)
            break;
        if (v.type == SHD_STRING && v.len > 0 && play_draw(p, 4) == 0)
            old[play_draw(p, v.len)] ^= 1;
        rc = shd_cas(t->dict, t->key, t->key_len, v.type, old, v.len, v.number,
                     SHD_STRING, value, len, 0, 0, 0, &forced);
        break;
    }
    free(old);
    return rc;
}

static int on_list(struct play *p, const struct target *t, const void *value,
                   size_t len, void *buf, size_t size)
{
    struct shd_value v, values[4];
    size_t at[4];
    uint64_t length;
    uint32_t n;
    int left = (int)play_draw(p, 2);

    switch (play_draw(p, 8)) {
    case 0:
        return shd_push(t->dict, left, t->key, t->key_len, SHD_STRING, value,
                        len, 0, &length);
    case 1:
        return shd_pop(t->dict, left, t->key, t->key_len, buf, size, &v);
    case 2:
        return shd_ltake(t->dict, left, t->key, t->key_len, buf, size, &v,
                         &p->lease);
    case 3: return shd_lack(t->dict, p->lease);
    case 4: return shd_lnack(t->dict, p->lease);
    case 5:
        return shd_lmove(t->dict, left, t->key, t->key_len,
                         (int)play_draw(p, 2), "leases", 6, buf, size, &v);
    case 6:
        return shd_lmove(t->dict, left, "leases", 6, (int)play_draw(p, 2),
                         t->key, t->key_len, buf, size, &v);
    default:
        return shd_list_read(t->dict, t->key, t->key_len, SHD_SCAN_EXPIRED,
                             play_draw(p, 4), 4, buf, size, values, at, &n,
                             &length);
    }
}

static int on_key(struct play *p, const struct target *t, const void *value,
                  size_t len, void *buf, size_t size)
{
    struct shd_value v;
    uint64_t length;
    uint32_t forced;
    double sum;
    int64_t ttl;

    switch (play_draw(p, 12)) {
    case 0: return shd_delete(t->dict, t->key, t->key_len);
    case 1:
        return shd_incr(t->dict, t->key, t->key_len, 1, 1, 5, 0, &sum,
                        &forced);
    case 2: return shd_take(t->dict, t->key, t->key_len, buf, size, &v);
    case 3:
    case 4:
        return shd_append(t->dict, (int)play_draw(p, 2), t->key, t->key_len,
                          value, len, value, len, 0, &length, &forced);
    case 5: return shd_expire(t->dict, t->key, t->key_len, 1500);
    case 6: return shd_touch(t->dict, t->key, t->key_len, SHD_KEEP_TTL);
    case 7: return shd_get(t->dict, t->key, t->key_len, buf, size, &v);
    case 8: return shd_get_stale(t->dict, t->key, t->key_len, buf, size, &v);
    case 9: return shd_ttl(t->dict, t->key, t->key_len, &ttl);
    default:
        return shd_store(t->dict, (uint32_t)play_draw(p, 7), t->key,
                         t->key_len,
                         play_draw(p, 4) == 0 ? SHD_NUMBER : SHD_STRING, value,
                         len, 3, (int64_t)play_draw(p, 3) * 1000,
                         (int32_t)play_draw(p, 2), &forced);
    }
}

/* Small ones, more than fit, each of which is read once, or not. */
static int small_crowd(struct play *p, const struct target *t)
{
    uint64_t rounds = 300 + play_draw(p, 500), read = play_draw(p, 3);
    struct shd_value v;
    char key[24], buf[8];
    int rc = shd_dict_resize(t->dict, (12 + play_draw(p, 16)) << 10);

    for (uint64_t i = 0; i < rounds; i++) {
        int n = snprintf(key, sizeof(key), "c%d", (int)i);

        rc = play_answer(p, shd_set(t->dict, key, (size_t)n, key, 4, 0));
        if (rc == SHD_OK && (read == 0 || (read == 1 && i % 4 != 0)))
            rc = play_answer(p, shd_get(t->dict, key, (size_t)n, buf,
                                        sizeof(buf), &v));
    }
    return rc;
}

/* More than fit, of which all, some or none are read in between. */
static int crowd(struct play *p, const struct target *t)
{
    uint64_t read = play_draw(p, 3), rounds = 20 + play_draw(p, 180);
    size_t len = 200 + play_draw(p, 3000);
    void *value = some_bytes(len);
    struct shd_value v;
    char key[24];
    int rc = SHD_OK;

    for (uint64_t i = 0; i < rounds; i++) {
        int n = snprintf(key, sizeof(key), "crowd%d", (int)i);

        rc = shd_set(t->dict, key, (size_t)n, value, len, 0);
        for (uint64_t k = i < 40 ? 0 : i - 40; read != 0 && k <= i; k += read) {
            n = snprintf(key, sizeof(key), "crowd%d", (int)k);
            (void)play_answer(p, shd_get(t->dict, key, (size_t)n, value, len,
                                         &v));
        }
    }
    free(value);
    return rc;
}

/* All keys, one after the other, or as they were at one time. */
static int walk(struct play *p, const struct target *t)
{
    static unsigned char key[65535];
    unsigned char buf[64];
    struct shd_value v;
    shd_keys *keys = NULL;
    size_t len = 0;
    int rc;

    if (play_draw(p, 2) == 0) {
        rc = shd_keys_get(t->dict, play_draw(p, 50), &keys);
        if (rc == SHD_OK)
            shd_keys_free(keys);
        return rc;
    }
    rc = shd_scan(t->dict, t->key, t->key_len, SHD_SCAN_EXPIRED, key,
                  play_draw(p, 8) == 0 ? 5 : sizeof(key), &len, buf,
                  sizeof(buf), &v);
    for (int i = 0; rc == SHD_OK && i < 100; i++) {
        unsigned char *after = some_bytes(len);
        size_t after_len = len;

        memcpy(after, key, len);
        rc = shd_scan(t->dict, after, after_len, 0, key, sizeof(key), &len, buf,
                      sizeof(buf), &v);
        free(after);
    }
    return rc;
}

static int on_all(struct play *p, const struct target *t)
{
    struct shd_dict_account a = {.struct_size = sizeof(a)};
    struct shd_shard_info shard = {.struct_size = sizeof(shard)};
    struct shd_entry_info entry = {.struct_size = sizeof(entry)};
    struct shd_repair done = {.struct_size = sizeof(done)};
    struct shd_hold hold = {.struct_size = sizeof(hold)};
    uint64_t n, how = play_draw(p, 256), holder;
    char report[200];

    if (how >= 176) {
        switch (how % 5) {
        case 0:
        case 1: return walk(p, t);
        case 2: return crowd(p, t);
        case 3: return shd_reap(p->segment, NULL);
        default: break;
        }
        holder = workers_incarnation((uint32_t)play_draw(p, WORKERS));
        for (uint32_t i = 0; i < 12; i++)
            (void)play_answer(p, shd_worker_hold(p->segment,
                                                 holder, i, &hold));
        return SHD_OK;
    }
    switch (how % 8) {
    case 0: return shd_flush_all(t->dict);
    case 1: return shd_flush_expired(t->dict, play_draw(p, 3), &n);
    case 2: return shd_dict_resize(t->dict, (8 + play_draw(p, 128)) << 10);
    case 3: return shd_dict_account(t->dict, &a);
    case 4: return shd_shard_info(t->dict, (uint32_t)play_draw(p, 4), &shard);
    case 5: return shd_entry_info(t->dict, t->key, t->key_len, &entry);
    case 6: return shd_segment_check(p->segment, report, sizeof(report));
    default:
        return shd_segment_repair(p->segment, &done, report, sizeof(report));
    }
}

static struct {
    struct play *p;
    struct target *t;
    uint32_t left;
} later;

static void damage_now(const void *at, size_t bytes)
{
    (void)at;
    (void)bytes;
    damage(later.p, later.t);
    if (later.left-- > 0 && play_draw(later.p, 2) == 0)
        workers_interrupt(1 + play_draw(later.p, 64), damage_now);
}

static void operate(struct play *p, const struct target *t)
{
    size_t len = some_len(p), size = some_len(p);
    void *value = some_bytes(len), *buf = some_bytes(size);
    int rc;

    switch (play_draw(p, 8)) {
    case 0: rc = on_all(p, t); break;
    case 1: rc = on_condition(p, t, value, len); break;
    case 2:
    case 3: rc = on_list(p, t, value, len, buf, size); break;
    default: rc = on_key(p, t, value, len, buf, size); break;
    }
    (void)play_answer(p, rc);
    free(buf);
    free(value);
}

/* A worker has died: who comes by finds it so, maybe damaged. */
static void came_to_its_end(struct play *p, const struct target *t,
                            bool damages)
{
    workers_interrupt(0, NULL);
    if (damages && play_draw(p, 3) == 0)
        damage(p, t);
    if (play_draw(p, 2) == 0)
        (void)play_answer(p, shd_reap(p->segment, NULL));
}

/* From list to list, of several shards, by workers who die of it. */
static void move_about(struct play *p, struct target *t, bool damages)
{
    struct shd_value v;
    char buf[64], to[16];

    for (volatile uint64_t n = 1 + play_draw(p, 6); n > 0; n--) {
        int len = snprintf(to, sizeof(to), "key%d",
                           (int)play_draw(p, 14) * 8 + 2);
        int left = (int)play_draw(p, 4);

        if (workers_try(play_draw(p, 2) * (1 + play_draw(p, 400)))) {
            (void)play_answer(p, shd_lmove(t->dict, left & 1, t->key,
                                           t->key_len, left / 2, to,
                                           (size_t)len, buf,
                                           sizeof(buf) - play_draw(p, 3) / 2 *
                                                             60,
                                           &v));
            workers_done();
        }
        switch (play_draw(p, 6)) {
        case 0: (void)play_answer(p, shd_reap(p->segment, NULL)); break;
        case 1:
            (void)play_answer(p, shd_delete(t->dict, to, (size_t)len));
            break;
        case 2:
            (void)play_answer(p, shd_expire(t->dict, to, (size_t)len, 1));
            clock_test_advance(20);
            break;
        case 3:
            if (damages)
                damage(p, t);
            break;
        default: break;
        }
    }
    (void)play_answer(p, shd_reap(p->segment, NULL));
}

static bool is_list(const struct target *t)
{
    const struct cell *c = (const void *)words_at(t, t->ref);

    return c != NULL && (c->meta & CELL_TYPE_MASK) == SHD_LIST;
}

void aim_op(struct play *p, bool damages)
{
    struct target t;
    uint64_t byte = play_draw(p, 256), which = byte % 4, n;
    volatile uint64_t times;

    t.dict = which < 2 ? tall
                       : p->dict[which == 2 ? PLAY_SMALL : PLAY_SHARDED];
    if (t.dict == NULL)
        return;
    p->ops++;
    p->doing = "aim";
    t.d = &t.dict->dict;
    n = play_draw(p, 256);
    t.ref = entry_number(&t, n);
    for (int i = 0; byte >= MOVES && i < 40 && t.ref != 0 && !is_list(&t); i++)
        t.ref = entry_number(&t, ++n);
    if (t.ref == 0 || !take_key(&t))
        return;
    times = damages ? play_draw(p, 4) : 0;
    if (times == 3) {
        later.p = p;
        later.t = &t;
        later.left = 8;
        workers_interrupt(1 + play_draw(p, play_draw(p, 4) == 0 ? 3000 : 250),
                          damage_now);
        times = 0;
    }
    for (; times > 0; times--)
        damage(p, &t);
    for (times = 1 + play_draw(p, 8) % 4 / 3 + play_draw(p, 8) / 6; times > 0;
         times--) {
        if (workers_try(play_draw(p, 6) == 0 ? 1 + play_draw(p, 200) : 0)) {
            operate(p, &t);
            workers_done();
        } else {
            came_to_its_end(p, &t, damages);
        }
    }
    if (byte >= CROWDS)
        (void)play_answer(p, small_crowd(p, &t));
    else if (byte >= MOVES)
        move_about(p, &t, damages);
    workers_interrupt(0, NULL);
    free(t.key);
}
