/* SPDX-License-Identifier: BSD-2-Clause */
/* What workers do to a dict: each mood begins where the last one left it. */
#include "tests/memory/torture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANY UINT32_MAX

static uint64_t some_key(struct world *w)
{
    return below(w, w->config->keys);
}

/* Any size there is, the small ones as often as the large. */
static size_t any_size(struct world *w)
{
    static const uint32_t upto[] = {8, 64, 300, 1000, 2100, 4100, 9000};
    uint64_t k = below(w, 8);

    if (k == 7 && below(w, w->value_max < 800000 ? 16 : 256) == 0)
        return below(w, w->value_max + 1);
    if (k == 7)
        return below(w, w->value_max < 800000 ? w->value_max / 8 + 2 : 100000);
    return below(w, upto[k] < w->value_max ? upto[k] : w->value_max);
}

static void new_sizes(struct world *w)
{
    for (uint32_t i = 0; i < SIZES; i++)
        w->sizes[i] = any_size(w);
}

static void drift(struct world *w)
{
    size_t top = w->value_max < 9000 ? w->value_max : 9000;
    size_t centre = (size_t)(w->drift++ / 4 % (2 * top));

    if (centre >= top)
        centre = 2 * top - centre - 1;
    plain(w, some_key(w), ANY, centre / 2 + below(w, centre + 2), 0);
}

/* One size for long, then another one. */
static void calcify(struct world *w)
{
    size_t size = w->sizes[w->op / 512 % SIZES];

    if (!safe(w, some_key(w), ANY, size, 0)) {
        for (int i = 0; i < 20; i++)
            drop(w, some_key(w), ANY);
        if (below(w, 4) == 0)
            plain(w, some_key(w), ANY, size, 0);
    }
}

static void huge_and_tiny(struct world *w)
{
    if (below(w, w->value_max < 800000 ? 40 : 400) == 0)
        plain(w, some_key(w), ANY,
              w->value_max / (1 + below(w, 4)) - below(w, 16), 0);
    else if (below(w, w->value_max < 800000 ? 100 : 1000) == 0)
        (void)safe(w, some_key(w), ANY, w->value_max / 2, 0);
    else
        plain(w, some_key(w), ANY, below(w, 20), 0);
}

static void refill_after_expiry(struct world *w)
{
    size_t size = w->sizes[w->op / 700 % SIZES];

    if (w->op % 700 == 0)
        forward(10000);
    if (below(w, 3) == 0)
        (void)safe(w, some_key(w), ANY, size, (int64_t)(1 + below(w, 9000)));
    else
        plain(w, some_key(w), ANY, below(w, 2) == 0 ? size : any_size(w),
              (int64_t)below(w, 9000));
    if (below(w, 50) == 0)
        forward(below(w, 3000));
}

static void another_shard(struct world *w)
{
    w->hot = (uint32_t)below(w, w->d->shards);
    new_sizes(w);
}

static void one_hot_shard(struct world *w)
{
    size_t size = w->sizes[below(w, SIZES)];

    if (below(w, 3) == 0)
        (void)safe(w, some_key(w), w->hot, size, 0);
    else
        plain(w, some_key(w), w->hot, size, 0);
    if (below(w, 16) == 0)
        drop(w, some_key(w), w->hot);
}

static void drop_list(struct world *w, uint64_t n)
{
    char key[KEY_ROOM] = "l";
    size_t len = 1 + key_make(w, n, ANY, key + 1);
    struct shd_value v;
    int rc = below(w, 2) == 0 ? shd_delete(w->dict, key, len)
                              : shd_pop(w->dict, (int)below(w, 2), key, len,
                                        w->buffer, w->value_max, &v);

    w->doing = "a list's end";
    if (rc != SHD_OK && rc != SHD_NOTFOUND)
        fail(w, "%s", shd_last_error());
}

static void lists(struct world *w)
{
    uint64_t lists_max = w->config->keys / 8 + 2;

    /* One of them is long. */
    if (!push(w, below(w, 2) * below(w, lists_max),
              below(w, 8) == 0 ? any_size(w) : below(w, 60)) &&
        below(w, 2) == 0) {
        for (int i = 0; i < 8; i++)
            drop_list(w, below(w, lists_max));
    }
    if (below(w, 30) == 0)
        plain(w, some_key(w), ANY, any_size(w), 0);
    if (below(w, 60) == 0)
        (void)safe(w, some_key(w), ANY, any_size(w), 0);
}

/* In a child that dies with the lock in its hands. */
static _Noreturn void die_at_work(struct world *w, uint32_t shard,
                                  uint64_t steps, int slot)
{
    struct shard *s = &w->d->shard[shard];
    struct guard *g = dict_guard(w->d, shard);
    struct chain_source source = {.second = w->pool, .second_len = 100000};
    const struct chain_site site = {.pages = &w->d->pages,
                                    .slab = &s->slab,
                                    .guard = g,
                                    .owner = dict_owner(shard),
                                    .pending = &s->pending[slot],
                                    .built = &s->chains};
    uint64_t left = source.second_len;
    struct txn t;
    uint32_t ref;

    if (handle_writer(w->segment) != SHD_OK ||
        dict_lock(w->d, shard) != SHD_OK)
        _exit(1);
    while (steps-- > 0 &&
           chain_build_step(&site, chain_class(left), &left) == SHD_OK)
        ;
    txn_begin(&t, &w->segment->segment, g, SLAB_ALLOC_WORDS);
    if (slab_alloc(&w->d->pages, &s->slab, &t, dict_owner(shard), 3, PAGE_NONE,
                   &ref) == SHD_CORRUPT)
        _exit(1);
    kill(getpid(), SIGKILL);
    _exit(1);
}

static void dead_workers(struct world *w)
{
    if (below(w, 100) == 0) {
        uint32_t shard = (uint32_t)below(w, w->d->shards);
        uint64_t steps = below(w, 25);
        int slot = (int)below(w, 2), status;
        pid_t pid;

        w->doing = "a worker's death";
        fflush(stdout);
        pid = fork();
        if (pid < 0)
            fail(w, "fork failed");
        if (pid == 0)
            die_at_work(w, shard, steps, slot);
        if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) ||
            WTERMSIG(status) != SIGKILL)
            fail(w, "a worker did not die as it should");
    }
    if (below(w, 2) == 0)
        (void)safe(w, some_key(w), ANY, any_size(w), 0);
    else
        plain(w, some_key(w), ANY, any_size(w), 0);
}

static void anything(struct world *w)
{
    switch (below(w, 7)) {
    case 0:
        (void)safe(w, some_key(w), ANY, any_size(w),
                   (int64_t)(below(w, 2) * below(w, 5000)));
        break;
    case 1:
        (void)push(w, below(w, 30), any_size(w) % 5000);
        break;
    case 2:
        drop(w, some_key(w), ANY);
        break;
    case 3:
        incr(w, some_key(w));
        break;
    default:
        plain(w, some_key(w), ANY, any_size(w), 0);
    }
    if (below(w, 100) == 0)
        forward(below(w, 1000));
}

/* The old value has to go before the new one fits, or just not. */
static void one_key_alone(struct world *w)
{
    size_t most = w->value_max, size = most - below(w, most / 2 + 1);

    if (w->value_max >= 800000 && below(w, 20) != 0)
        return;
    if (below(w, 8) == 0)
        size = most - below(w, 40);
    if (below(w, 4) == 0)
        (void)safe(w, below(w, 2), ANY, size / (1 + below(w, 3)), 0);
    else
        plain(w, below(w, 2), ANY, size, 0);
    if (below(w, 3) == 0)
        plain(w, some_key(w), ANY, any_size(w), 0);
}

/* Holes in every page, then one thing that needs whole ones. */
static void holes(struct world *w)
{
    size_t size = below(w, 60);

    for (uint64_t i = 0; i < 40 && safe(w, some_key(w), ANY, size, 0); i++)
        ;
    for (int i = 0; i < 40; i++)
        drop(w, some_key(w), ANY);
    (void)safe(w, some_key(w), ANY, 4000 + below(w, 9000), 0);
}

const struct mood MOODS[] = {
    {"drifting sizes", NULL, drift},
    {"calcified classes", new_sizes, calcify},
    {"huge and tiny", NULL, huge_and_tiny},
    {"refill after expiry", new_sizes, refill_after_expiry},
    {"one hot shard", another_shard, one_hot_shard},
    {"lists", NULL, lists},
    {"dead workers", NULL, dead_workers},
    {"holes", NULL, holes},
    {"one key alone", NULL, one_key_alone},
    {"anything", NULL, anything},
};
const size_t MOOD_COUNT = sizeof(MOODS) / sizeof(MOODS[0]);
