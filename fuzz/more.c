/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/more.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LONGEST 120000u

static shd_dict *some_dict(struct play *p, bool looked)
{
    uint64_t n = play_draw(p, 3) == 0 ? PLAY_SHARDED : PLAY_SMALL;

    return looked && p->looked[n] != NULL ? p->looked[n] : p->dict[n];
}

static void *bytes_of(size_t size)
{
    unsigned char *b = malloc(size + (size == 0));

    if (b == NULL)
        abort();
    for (size_t i = 0; i < size; i++)
        b[i] = (unsigned char)(i * 7 + (i >> 8));
    return b;
}

/* Those that play.c makes, so that both have them in common; some are long. */
static size_t some_key(struct play *p, char *key)
{
    uint64_t n = play_draw(p, 128);
    int digits = snprintf(key, 24, "key%d", (int)n);
    size_t len = n % 16 == 5 ? 1200 + n : n % 8 == 3 ? 60 : (size_t)digits;

    for (size_t i = (size_t)digits; i < len; i++)
        key[i] = (char)('a' + n % 26);
    return len;
}

static size_t some_len(struct play *p)
{
    static const size_t LENS[] = {0, 5, 200, 900, 3000, 4500, 9000, 20000};

    switch (play_draw(p, 4)) {
    case 0: return play_draw(p, LONGEST);
    case 1: return 66000 + play_draw(p, 5000);
    default: return LENS[play_draw(p, 8)];
    }
}

/* ---- long values -------------------------------------------------------------- */

static void change_long(struct play *p, shd_dict *d)
{
    char key[1400];
    size_t key_len = some_key(p, key), len = some_len(p), size = some_len(p);
    unsigned char *value = bytes_of(len), *buffer = bytes_of(size);
    struct shd_value v;
    uint64_t version, length;
    uint32_t forced;
    int rc;

    p->doing = "long";
    switch (play_draw(p, 8)) {
    case 0:
    case 1:
        rc = shd_store(d, SHD_SET, key, key_len, SHD_STRING, value, len, 0,
                       (int64_t)play_draw(p, 3) * 1000,
                       (int32_t)play_draw(p, 2), &forced);
        break;
    case 2:
        rc = shd_push(d, (int)play_draw(p, 2), key, key_len, SHD_STRING, value,
                      len, 0, &length);
        break;
    case 3:
        rc = shd_pop(d, (int)play_draw(p, 2), key, key_len, buffer, size, &v);
        break;
    case 4:
        rc = shd_append(d, (int)play_draw(p, 2), key, key_len, value,
                        len / 2, value, len, 0, &length, &forced);
        break;
    case 5:
        rc = shd_get_versioned(d, key, key_len, buffer, size, &v, &version);
        if (rc == SHD_OK)
            rc = shd_store_versioned(d, key, key_len, SHD_STRING, value, len,
                                     0, 0, 0, &version, &forced);
        break;
    case 6:
        rc = shd_cas(d, key, key_len, SHD_STRING, value, len, 0, SHD_STRING,
                     value, len / 2, 0, 0, 0, &forced);
        break;
    default:
        rc = shd_take(d, key, key_len, buffer, size, &v);
        break;
    }
    (void)play_answer(p, rc);
    free(buffer);
    free(value);
}

static void read_long(struct play *p, shd_dict *d)
{
    char key[1400];
    size_t key_len = some_key(p, key), size = some_len(p);
    unsigned char *buffer = bytes_of(size);
    struct shd_value v;

    p->doing = "read long";
    if (play_answer(p, shd_get(d, key, key_len, buffer, size, &v)) == SHD_OK &&
        v.type == SHD_STRING && v.len > size)
        play_fail(p, "%llu bytes in a buffer of %zu",
                  (unsigned long long)v.len, size);
    free(buffer);
}

static int make_room(struct play *p, shd_dict *d)
{
    uint64_t freed;

    (void)play_answer(p, shd_dict_resize(d, 512 << 10));
    (void)play_answer(p, shd_flush_all(d));
    return play_answer(p, shd_flush_expired(d, 0, &freed));
}

/* A list whose elements are longer than what is copied at once. */
static void long_list(struct play *p, shd_dict *d)
{
    static const char key[] = "long list";
    size_t len = 66000 + play_draw(p, 5000), size = some_len(p);
    unsigned char *value = bytes_of(len), *buffer = bytes_of(size);
    struct shd_value v;
    uint64_t length;

    p->doing = "long list";
    if (make_room(p, d) == SHD_OK)
        for (uint64_t n = 1 + play_draw(p, 4); n > 0; n--) {
            int left = (int)play_draw(p, 2);

            (void)play_answer(p, shd_push(d, left, key, sizeof(key),
                                          SHD_STRING, value,
                                          n % 3 == 0 ? 10 : len, 0, &length));
            if (play_draw(p, 2) == 0)
                (void)play_answer(p, shd_pop(d, left, key, sizeof(key), buffer,
                                             size, &v));
        }
    (void)play_answer(p,
                      shd_pop(d, 0, key, sizeof(key), buffer, size, &v));
    free(buffer);
    free(value);
}

/* All pages have an owner; then some are given back, and looked for. */
static void fill_pages(struct play *p, shd_dict *d)
{
    unsigned char *value = bytes_of(LONGEST);
    char key[8] = "fill";
    uint32_t forced;

    p->doing = "fill";
    if (make_room(p, d) == SHD_OK)
        for (uint64_t n = 4 + play_draw(p, 12); n > 0; n--) {
            size_t len = play_draw(p, 3) != 0 ? 60000 + play_draw(p, 60000)
                                              : 4000 + play_draw(p, 100);

            key[4] = (char)('a' + play_draw(p, 8));
            if (play_draw(p, 4) == 0)
                (void)play_answer(p, shd_delete(d, key, 5));
            else
                (void)play_answer(p, shd_store(d, SHD_SET, key, 5, SHD_STRING,
                                               value, len, 0, 0, 0, &forced));
        }
    free(value);
}

/* ---- what is looked at ---------------------------------------------------------- */

static void read_list(struct play *p, shd_dict *d)
{
    struct shd_value values[6];
    size_t at[6];
    char key[1400];
    size_t key_len = some_key(p, key), size = some_len(p);
    unsigned char *buffer = bytes_of(size);
    uint64_t length = 0, from = play_draw(p, 8);
    uint32_t n = 0, max = (uint32_t)play_draw(p, 7);
    int rc = shd_list_read(d, key, key_len,
                           play_draw(p, 2) == 0 ? SHD_SCAN_EXPIRED : 0, from,
                           max, buffer, size, values, at, &n, &length);

    p->doing = "list_read";
    if (play_answer(p, rc) == SHD_OK) {
        if (n > max)
            play_fail(p, "%u of %u elements", n, max);
        for (uint32_t i = 0; i < n; i++)
            if (values[i].type == SHD_STRING &&
                (at[i] > size || values[i].len > size - at[i]))
                play_fail(p, "an element outside of the buffer");
    }
    free(buffer);
}

/* However damaged: each goes on from the last one, to an end. */
static void look_at_leases(struct play *p, shd_dict *d)
{
    struct shd_lease_info l = {.struct_size = sizeof(l)}, last = l;
    char key[1400];
    size_t len;

    p->doing = "lease_next";
    while (play_answer(p, shd_lease_next(d, &l, key, sizeof(key), &len)) ==
           SHD_OK) {
        if (len > sizeof(key))
            play_fail(p, "a lease's key outside of the buffer");
        if (l.shard < last.shard ||
            (l.shard == last.shard &&
             (l.holder < last.holder ||
              (l.holder == last.holder && l.lease <= last.lease))))
            play_fail(p, "a walk over leases that goes back");
        last = l;
    }
}

static void look(struct play *p, shd_dict *d)
{
    struct shd_shard_info shard = {.struct_size = sizeof(shard)};
    struct shd_entry_info entry = {.struct_size = sizeof(entry)};
    char key[1400];
    size_t key_len = some_key(p, key);

    p->doing = "shard_info";
    (void)play_answer(p, shd_shard_info(d, (uint32_t)play_draw(p, 5), &shard));
    p->doing = "entry_info";
    (void)play_answer(p, shd_entry_info(d, key, key_len, &entry));
    look_at_leases(p, d);
}

static void store_many(struct play *p, shd_dict *d)
{
    static char keys[5][1400];
    const void *key[5], *bytes[5];
    size_t lens[5], len = some_len(p) % 9001;
    struct shd_value v[5] = {{0}};
    unsigned char *value = bytes_of(len);
    int32_t codes[5];
    uint32_t n = 1 + (uint32_t)play_draw(p, 5), forced;

    p->doing = "set_multi";
    for (uint32_t i = 0; i < n; i++) {
        lens[i] = some_key(p, keys[i]);
        key[i] = play_draw(p, 32) == 0 ? NULL : keys[i];
        bytes[i] = value;
        v[i].type = play_draw(p, 5) == 0 ? SHD_NIL : SHD_STRING;
        v[i].len = v[i].type == SHD_STRING ? len : 0;
        v[i].flags = (int32_t)play_draw(p, 2);
    }
    (void)play_answer(p, shd_set_multi(d,
                                       SHD_SET | (play_draw(p, 2) == 0
                                                      ? SHD_SAFE
                                                      : 0u),
                                       n, key, lens, v, bytes, codes,
                                       &forced));
    free(value);
}

static void save(struct play *p)
{
    static int fd = -1;
    char path[24];

    p->doing = "save";
    if (fd < 0)
        fd = memfd_create("saved", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0)
        abort();
    snprintf(path, sizeof(path), "fd:%d", fd);
    (void)play_answer(p, shd_segment_save(play_draw(p, 2) == 0 ||
                                                  p->readonly == NULL
                                              ? p->segment
                                              : p->readonly,
                                          path, NULL, NULL));
}

/* ---- dicts of all forms ---------------------------------------------------------- */

static uint64_t some_capacity(struct play *p)
{
    switch (play_draw(p, 8)) {
    case 0: return 0;
    case 1: return play_draw(p, 9000);
    case 2: return 4ull << (18 + play_draw(p, 12));
    case 3: return UINT64_MAX >> play_draw(p, 40);
    default: return 8192 + (play_draw(p, 32) << 12);
    }
}

static void open_one(struct play *p)
{
    static const char *const NAMES[] = {"one", "two", "small", "queue", "",
                                        "a/b"};
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    const char *name = NAMES[play_draw(p, 6)];
    shd_dict *d;
    uint64_t ends;
    int rc;

    p->doing = "open one";
    o.capacity_bytes = some_capacity(p);
    o.capacity_max_bytes = play_draw(p, 3) == 0 ? 0
                           : play_draw(p, 3) == 0
                               ? some_capacity(p)
                               : o.capacity_bytes + (play_draw(p, 8) << 14);
    o.shards = play_draw(p, 3) == 0 ? (uint32_t)play_draw(p, 600)
                                    : 1u << play_draw(p, 4);
    o.shards = play_draw(p, 4) == 0 ? 0 : o.shards;
    o.entries_hint = play_draw(p, 2) == 0 ? 0 : play_draw(p, 1 << 12);
    rc = play_answer(p, shd_dict_open(p->segment, name,
                                      play_draw(p, 8) == 0 ? NULL : &o, &d));
    ends = play_draw(p, 4);
    if (rc != SHD_OK)
        return;
    if (ends > 0)
        change_long(p, d);
    if (ends > 1)
        (void)play_answer(p, shd_dict_resize(d, some_capacity(p)));
    (void)play_answer(p, shd_dict_close(d));
    /* Those that everybody uses stay. */
    if (ends > 2 && (name[0] == 'o' || name[0] == 't'))
        (void)play_answer(p, shd_dict_destroy(p->segment, name));
}

void more_op(struct play *p)
{
    uint64_t what = play_draw(p, 20);
    shd_dict *d = some_dict(p, what >= 6);

    p->ops++;
    if (what < 3)
        open_one(p);
    else if (what == 3)
        save(p);
    else if (d == NULL)
        play_open(p);
    else if (what < 6)
        store_many(p, d);
    else if (what < 8)
        read_list(p, d);
    else if (what == 8)
        look(p, d);
    else if (what < 11)
        read_long(p, d);
    else if (p->dict[PLAY_SMALL] == NULL || p->dict[PLAY_SHARDED] == NULL)
        play_open(p);
    else if (what == 16 || what == 17)
        long_list(p, p->dict[PLAY_SHARDED]);
    else if (what == 18)
        fill_pages(p, p->dict[PLAY_SHARDED]);
    else
        change_long(p, some_dict(p, false));
}
