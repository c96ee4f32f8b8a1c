/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shdict-bench-count - what tools/bench/count counts.
 *
 *   shdict-bench-count lines
 *
 * says where the segment lies and where `mark` is, and runs each operation a
 * few times, storing to `mark` before each; valgrind's tool lackey writes down
 * every store in between.
 *
 *   shdict-bench-count get KEYS
 *   shdict-bench-count grown KEYS
 *
 * fills a dict, or one that was made for a 64th of it and resized, and then
 * lets callgrind count CALLS gets of keys that are there.
 *
 * Every key has been read before: what a first hit writes (its mark) is not
 * counted.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <valgrind/callgrind.h>

#include "shm/api/handle.h"
#include "shm/dict/dict.h"
#include "shm/shdict.h"

#define KEYS 200u
#define CALLS 1024u
#define TIMES 8u

static volatile uint64_t mark;

static void expect(int rc, const char *what)
{
    if (rc == SHD_OK)
        return;
    fprintf(stderr, "shdict-bench-count: %s: %s (%s)\n", what,
            shd_strerror(rc), shd_last_error());
    exit(1);
}

static size_t key_of(char *to, uint64_t n)
{
    return (size_t)snprintf(to, 32, "key:%" PRIu64, n);
}

static shd_dict *fill(shd_segment *s, uint64_t keys, uint64_t made_for)
{
    uint64_t capacity = (4u << 20) + keys * 192;
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = capacity / made_for,
                                 .capacity_max_bytes = capacity};
    char key[32], value[32] = "";
    shd_dict *d;

    expect(shd_dict_open(s, "bench", &o, &d), "dict");
    if (made_for > 1)
        expect(shd_dict_resize(d, capacity), "resize");
    for (uint64_t i = 0; i < keys; i++)
        expect(shd_set(d, key, key_of(key, i), value, 32, 0), "filling");
    return d;
}

static void get(shd_dict *d, uint64_t n)
{
    char key[32], buf[64];
    struct shd_value v;

    expect(shd_get(d, key, key_of(key, n), buf, sizeof(buf), &v), "get");
}

static void gets(shd_segment *s, uint64_t keys, uint64_t made_for)
{
    shd_dict *d = fill(s, keys, made_for);
    static char text[CALLS][32];
    static size_t lens[CALLS];
    struct shd_value v;
    char buf[64];

    /* Each once before: its mark is set, and what is mapped is mapped. */
    for (uint64_t i = 0; i < CALLS; i++) {
        get(d, i * 2654435761u % keys);
        lens[i] = key_of(text[i], i * 2654435761u % keys);
    }
    CALLGRIND_ZERO_STATS;
    for (uint64_t i = 0; i < CALLS; i++)
        expect(shd_get(d, text[i], lens[i], buf, sizeof(buf), &v), "get");
    CALLGRIND_DUMP_STATS_AT("get");
}

/* ---- lines ------------------------------------------------------------- */

enum { GET, MISS, SAME, SET, RESIZE, ADD, DELETE, INCR, PUSH, POP, OPS };

static const char *const names[OPS] = {
    "get, a hit again", "get, a miss", "set, one key again",
    "set, another key", "set, another size", "add, a new key",
    "delete", "incr, one key again", "rpush", "lpop"};

static void run(shd_dict *d, int op, uint32_t turn)
{
    static char key[32], value[128], buf[128];
    struct shd_value v;
    uint64_t n;
    double sum;
    size_t len = op == ADD || op == DELETE
                     ? (size_t)snprintf(key, 32, "new:%u", turn)
                     : key_of(key, op == SAME ? 7 : turn * 37 % KEYS);
    int rc = SHD_OK;

    value[0] = (char)turn;
    mark = (uint64_t)op + 1;
    switch (op) {
    case GET:
        rc = shd_get(d, key, len, buf, sizeof(buf), &v);
        break;
    case MISS:
        rc = shd_get(d, "nobody", 6, buf, sizeof(buf), &v) == SHD_NOTFOUND
                 ? SHD_OK
                 : SHD_CORRUPT;
        break;
    case SAME:
    case SET:
        rc = shd_set(d, key, len, value, 32, 0);
        break;
    case RESIZE:
        rc = shd_set(d, key, len, value, 100, 0);
        break;
    case ADD:
        rc = shd_store(d, SHD_ADD, key, len, SHD_STRING, value, 32, 0, 0, 0,
                       NULL);
        break;
    case DELETE:
        rc = shd_delete(d, key, len);
        break;
    case INCR:
        rc = shd_incr(d, "counter", 7, 1, 1, 0, 0, &sum, NULL);
        break;
    case PUSH:
        rc = shd_push(d, 0, "list", 4, SHD_STRING, value, 32, 0, &n);
        break;
    default:
        rc = shd_pop(d, 1, "list", 4, buf, sizeof(buf), &v);
        break;
    }
    mark = 0;
    expect(rc, names[op]);
}

static void lines(shd_segment *s)
{
    shd_dict *d = fill(s, KEYS, 1);
    const struct segment *g = &s->segment;

    for (uint32_t i = 0; i < KEYS; i++)
        get(d, i);
    expect(shd_push(d, 0, "list", 4, SHD_STRING, "x", 1, 0, NULL), "list");
    run(d, INCR, 0);
    printf("mark %" PRIxPTR "\n", (uintptr_t)&mark);
    printf("segment %" PRIxPTR " %" PRIx64 "\n", (uintptr_t)g->base, g->size);
    printf("counters %" PRIx64 " %" PRIx64 "\n", g->counters_at,
           g->extents_at);
    printf("lock %" PRIx64 " %zx\n",
           (uint64_t)((unsigned char *)d->dict.guards - g->base),
           d->dict.shards * sizeof(struct guard));
    printf("shard %" PRIx64 " %zx\n",
           (uint64_t)((unsigned char *)d->dict.shard - g->base),
           d->dict.shards * sizeof(struct shard));
    printf("table %" PRIx64 " %" PRIx64 "\n",
           (uint64_t)((unsigned char *)d->dict.pages.table - g->base),
           (uint64_t)d->dict.pages.max * sizeof(struct page));
    printf("cells %" PRIx64 " %" PRIx64 "\n", d->dict.pages.at,
           (uint64_t)d->dict.pages.max * PAGE_BYTES);
    for (int op = 0; op < OPS; op++)
        printf("op %d %s\n", op + 1, names[op]);
    fflush(stdout);
    for (int op = 0; op < OPS; op++)
        for (uint32_t turn = 0; turn < TIMES; turn++)
            run(d, op, turn);
}

int main(int argc, char **argv)
{
    struct shd_segment_options o = {.struct_size = sizeof(o)};
    shd_segment *s;
    uint64_t keys = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;

    o.size_bytes = (256u << 20) + keys * 512;
    expect(shd_segment_create(NULL, &o, &s), "segment");
    s->segment.hash_seed = 0x5eed5eed5eed5eedull;
    if (argc == 2 && strcmp(argv[1], "lines") == 0) {
        lines(s);
    } else if (keys > 0 && strcmp(argv[1], "get") == 0) {
        gets(s, keys, 1);
    } else if (keys > 0 && strcmp(argv[1], "grown") == 0) {
        gets(s, keys, 64);
    } else {
        fprintf(stderr, "usage: shdict-bench-count lines | get KEYS | grown "
                        "KEYS\n");
        return 2;
    }
    expect(shd_segment_close(s), "close");
    return 0;
}
