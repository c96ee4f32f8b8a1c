/* SPDX-License-Identifier: BSD-2-Clause */
/* The beginning of a world, and its end. */
#include "tests/model/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t key_padding(struct world *w, uint32_t k)
{
    switch (w->config->form) {
    case KEY_MIXED:
        return k % 16 == 3 ? 1 + below(w, 200) : 0;
    case KEY_LONG:
        return k % 8 == 3 ? 1 + below(w, 5000) : k == 5 ? KEY_MAX - 2 : 0;
    default:
        return 0;
    }
}

/* "17", or "17:" and random bytes; or one byte. */
static void make_keys(struct world *w)
{
    uint32_t n = w->config->keys;

    w->keys = calloc(n, sizeof(*w->keys));
    w->entries = calloc(n, sizeof(*w->entries));
    if (w->keys == NULL || w->entries == NULL)
        fail(w, "no memory for the test");
    for (uint32_t k = 0; k < n; k++) {
        size_t padding = key_padding(w, k);
        unsigned char *b = malloc(padding + 16);
        int len;

        if (b == NULL)
            fail(w, "no memory for the test");
        w->keys[k].bytes = b;
        if (w->config->form == KEY_BYTE) {
            b[0] = (unsigned char)k;
            w->keys[k].len = 1;
            continue;
        }
        len = sprintf((char *)b, padding > 0 ? "%" PRIu32 ":" : "%" PRIu32, k);
        memcpy(b + len, w->pool + below(w, POOL_BYTES - padding), padding);
        w->keys[k].len = (size_t)len + padding;
    }
}

void begin(struct world *w, uint64_t room_bytes, uint32_t locks)
{
    struct shd_segment_options so = {.struct_size = sizeof(so)};
    struct shd_dict_options o = {.struct_size = sizeof(o)};

    so.size_bytes = w->config->capacity * 2 + room_bytes;
    so.workers_max = 4;
    so.objects_max = 4;
    so.locks_max = locks;
    w->doing = "begin";
    expect(w, shd_segment_create(NULL, &so, &w->segment), SHD_OK);
    /* The kernel's random number would make failures come but once. */
    w->segment->segment.hash_seed = w->seed;
    segment_header(&w->segment->segment)->hash_seed = w->seed;
    o.shards = w->config->shards;
    o.capacity_bytes = w->config->capacity;
    o.capacity_max_bytes = 2 * w->config->capacity;
    o.entries_hint = w->config->hint;
    expect(w, shd_dict_open(w->segment, "model", &o, &w->dict), SHD_OK);
    refresh(w);
    w->value_max = w->info.value_max_bytes;
    w->fresh_free = w->info.free_bytes;
    if (w->value_max == 0 || w->value_max > w->config->capacity)
        fail(w, "value_max_bytes is %" PRIu64, w->value_max);
    w->pool = malloc(POOL_BYTES + w->value_max + 64);
    w->buffer_size = w->value_max + 4096 + 65536;
    w->buffer = malloc(w->buffer_size + 1);
    w->key_buffer = malloc(KEY_MAX);
    if (w->pool == NULL || w->buffer == NULL || w->key_buffer == NULL)
        fail(w, "no memory for the test");
    for (size_t i = 0; i < POOL_BYTES + w->value_max; i += 8) {
        uint64_t r = next(w);
        memcpy(w->pool + i, &r, 8);
    }
    make_keys(w);
}

void check_segment(struct world *w)
{
    char report[512] = "";
    int rc = shd_segment_check(w->segment, report, sizeof(report));

    w->doing = "check";
    w->checks++;
    if (rc != SHD_OK)
        fail(w, "%s: %s", name_of(rc), report);
}

void end(struct world *w)
{
    uint64_t freed = 0;
    bool by_flush = (w->seed & 1) != 0;

    audit(w);
    w->doing = "end";
    if (by_flush) {
        expect(w, shd_flush_all(w->dict), SHD_OK);
        expect(w, shd_flush_expired(w->dict, 0, &freed), SHD_OK);
    } else {
        for (uint32_t k = 0; k < w->config->keys; k++) {
            int rc = shd_delete(w->dict, w->keys[k].bytes, w->keys[k].len);
            w->key = k;
            expect(w, rc, naive_delete(entry(w, k), now()));
        }
    }
    refresh(w);
    if (w->info.entries != 0)
        fail(w, "%" PRIu64 " entries are left", w->info.entries);
    if (w->info.free_bytes != w->fresh_free)
        fail(w, "a leak: %" PRIu64 " bytes free, %" PRIu64
             " when it was fresh", w->info.free_bytes, w->fresh_free);
    if (w->info.cells_bytes != 0)
        fail(w, "%" PRIu64 " bytes in cells of an empty dict",
             w->info.cells_bytes);
    check_segment(w);
}
