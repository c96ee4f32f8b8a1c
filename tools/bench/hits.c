/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shdict-bench-hits - how often a dict that is full has what it is asked for,
 * beside a strict LRU that is given the same memory.
 *
 * A load is a sequence of keys; what is asked for and missing is stored, as a
 * cache does. The same sequence goes through the dict and through simulated
 * caches that evict exactly the least recently used item, and nothing else,
 * until the next one fits. They differ in what an item is charged:
 *
 *   lru      what the same item takes of the dict's cells (measured: it is
 *            stored in an empty dict), of the bytes of all the dict's pages.
 *            The simulation packs perfectly: no page is cut, none is partly
 *            used, no shard has its own. So what is compared is the policy,
 *            and the dict pays for its pages and shards.
 *   stock    what ngx.shared.DICT charges, 68 bytes + key + value rounded up
 *            to a power of two (beyond 2048 to pages of 4096), of the whole
 *            capacity: what the same memory gives with the original.
 *   ideal    32 bytes + key + value, of the whole capacity: an allocator
 *            and an index that cost nothing. For information.
 *
 * A row fails if the dict's hit ratio is below lru's or stock's, by more than
 * 0.05 points: which keys share a shard is random, and moves it by that.
 * Rows of dicts with fewer pages than there are sizes of cells are printed and
 * not judged: of 13 pages, each for cells of one size, an LRU that packs by the
 * byte may make more.
 */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/shdict.h"

#define KEY_BYTES 16u
#define VALUE_MAX 4096u
#define ENTRY_BYTES 32u
#define STOCK_BYTES 68u
#define PAGE 4096u
#define SAME 0.05
#define FEW_PAGES_BYTES (128u << 10)

static void die(const char *what, int rc)
{
    fprintf(stderr, "shdict-bench-hits: %s: %s (%s)\n", what, shd_strerror(rc),
            shd_last_error());
    exit(2);
}

static void *allocate(size_t n, size_t size)
{
    void *p = calloc(n, size);

    if (p == NULL) {
        perror("shdict-bench-hits");
        exit(2);
    }
    return p;
}

/* ---- loads ------------------------------------------------------------ */

static uint64_t random_state, seed = 20261121;

static uint64_t random64(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static double random_unit(void)
{
    return (double)(random64() >> 11) * 0x1p-53;
}

enum shape {
    STEADY,  /* the same popularity throughout */
    SCANS,   /* a fifth of the operations goes through keys never seen again,
                in runs as long as a tenth of what fits */
    LOOP,    /* a fifth goes round and round keys, twice what fits */
    DRIFT,   /* each rank's key changes, one after the other, twice over */
    SWITCH,  /* all keys change at once, four times */
    SHAPES   /* of them all */
};

static const char *const shape_name[] = {"steady", "scans", "loop", "drift",
                                         "switch"};

struct row {
    double zipf;
    enum shape shape;
    uint64_t capacity;
    uint32_t shards;
    uint32_t value; /* bytes; 0: 8 to 4096, each doubling as likely */
};

struct load {
    uint32_t *key; /* [ops] numbers */
    uint32_t ops;
    uint32_t keys;  /* numbers are below */
    uint32_t space; /* keys in use at a time */
    uint16_t *value; /* [keys] bytes */
};

/* The value's length is the key's: a key always has the same. */
static uint16_t value_of(const struct row *r)
{
    if (r->value != 0)
        return (uint16_t)r->value;
    return (uint16_t)(8.0 * pow(512.0, random_unit()));
}

/* Cumulated popularity of the ranks. */
static double *make_ranks(uint32_t space, double zipf)
{
    double *sum = allocate(space, sizeof(double));
    double all = 0;

    for (uint32_t i = 0; i < space; i++)
        sum[i] = all += pow(i + 1.0, -zipf);
    for (uint32_t i = 0; i < space; i++)
        sum[i] /= all;
    return sum;
}

static uint32_t pick_rank(const double *sum, uint32_t space)
{
    double u = random_unit();
    uint32_t low = 0, high = space - 1;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (sum[middle] < u)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The key of a rank at a time: the ranks are dealt to keys, and those that
 * change get keys that were not there before. */
static uint32_t key_of(const struct row *r, const struct load *l,
                       const uint32_t *dealt, uint32_t op, uint32_t rank)
{
    uint32_t key = dealt[rank];
    uint64_t turns = 0;

    if (r->shape == DRIFT)
        turns = (2ull * op * l->space / l->ops + l->space - key) / l->space;
    else if (r->shape == SWITCH)
        turns = 5ull * op / l->ops;
    return (uint32_t)(key + turns * l->space);
}

static struct load make_load(const struct row *r, uint32_t fits, uint32_t ops)
{
    struct load l = {.ops = ops, .space = fits * 10};
    double *sum = make_ranks(l.space, r->zipf);
    uint32_t *dealt = allocate(l.space, sizeof(uint32_t));
    uint32_t run = fits / 10 + 1, others = 0;

    l.keys = l.space * 6 + ops / 5 + 2 * run;
    l.key = allocate(ops, sizeof(uint32_t));
    l.value = allocate(l.keys, sizeof(uint16_t));
    for (uint32_t i = 0; i < l.keys; i++)
        l.value[i] = value_of(r);
    for (uint32_t i = 0; i < l.space; i++) {
        uint32_t j = (uint32_t)(random64() % (i + 1));

        dealt[i] = dealt[j];
        dealt[j] = i;
    }
    for (uint32_t i = 0; i < ops; i++) {
        bool other = i / run % 5 == 4;

        if (other && r->shape == SCANS)
            l.key[i] = l.space * 6 + others++;
        else if (other && r->shape == LOOP)
            l.key[i] = l.space * 5 + others++ % (fits * 2);
        else
            l.key[i] = key_of(r, &l, dealt, i, pick_rank(sum, l.space));
    }
    free(sum);
    free(dealt);
    return l;
}

/* ---- strict LRU ------------------------------------------------------- */

struct lru {
    uint32_t *prev, *next; /* [keys + 1]; [keys] is both ends */
    uint32_t end;
    uint64_t room;
};

static void lru_unlink(struct lru *c, uint32_t k)
{
    c->next[c->prev[k]] = c->next[k];
    c->prev[c->next[k]] = c->prev[k];
}

static void lru_push(struct lru *c, uint32_t k)
{
    c->next[k] = c->next[c->end];
    c->prev[k] = c->end;
    c->prev[c->next[k]] = k;
    c->next[c->end] = k;
}

/* Hits after the first quarter of the load. charge[] is by value length. */
static uint32_t lru_run(const struct load *l, const uint32_t *charge,
                        uint64_t room)
{
    struct lru c = {allocate(l->keys + 1, 4), allocate(l->keys + 1, 4),
                    l->keys, room};
    uint8_t *in = allocate(l->keys, 1);
    uint32_t hits = 0;

    c.prev[c.end] = c.next[c.end] = c.end;
    for (uint32_t i = 0; i < l->ops; i++) {
        uint32_t k = l->key[i], cost = charge[l->value[k]];

        if (in[k]) {
            hits += i >= l->ops / 4;
            lru_unlink(&c, k);
            lru_push(&c, k);
            continue;
        }
        while (c.room < cost) {
            uint32_t last = c.prev[c.end];

            lru_unlink(&c, last);
            in[last] = 0;
            c.room += charge[l->value[last]];
        }
        c.room -= cost;
        in[k] = 1;
        lru_push(&c, k);
    }
    free(c.prev);
    free(c.next);
    free(in);
    return hits;
}

/* ---- the dict --------------------------------------------------------- */

static const unsigned char value_bytes[VALUE_MAX];

static shd_dict *make_dict(shd_segment *s, const struct row *r)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .shards = r->shards,
                                 .capacity_bytes = r->capacity};
    shd_dict *d;
    int rc = shd_dict_open(s, "hits", &o, &d);

    if (rc != SHD_OK)
        die("dict", rc);
    return d;
}

static void drop_dict(shd_segment *s, shd_dict *d)
{
    int rc = shd_dict_close(d);

    if (rc == SHD_OK)
        rc = shd_dict_destroy(s, "hits");
    if (rc != SHD_OK)
        die("destroy", rc);
}

static struct shd_dict_info info_of(shd_dict *d)
{
    struct shd_dict_info i = {.struct_size = sizeof(i)};
    int rc = shd_dict_info(d, &i);

    if (rc != SHD_OK)
        die("info", rc);
    return i;
}

static void make_key(char key[KEY_BYTES], uint32_t n)
{
    static const char digit[] = "0123456789abcdef";

    memcpy(key, "key:0000", 8);
    for (unsigned i = 0; i < 8; i++)
        key[8 + i] = digit[n >> i * 4 & 15];
}

static void put(shd_dict *d, uint32_t k, uint32_t len)
{
    char key[KEY_BYTES];
    int rc;

    make_key(key, k);
    rc = shd_set(d, key, sizeof(key), value_bytes, len, 0);
    if (rc != SHD_OK)
        die("set", rc);
}

static uint32_t dict_run(shd_dict *d, const struct load *l)
{
    unsigned char buf[VALUE_MAX];
    uint32_t hits = 0;

    for (uint32_t i = 0; i < l->ops; i++) {
        uint32_t k = l->key[i];
        struct shd_value v;
        char key[KEY_BYTES];
        int rc;

        make_key(key, k);
        rc = shd_get(d, key, sizeof(key), buf, sizeof(buf), &v);
        if (rc == SHD_OK)
            hits += i >= l->ops / 4;
        else if (rc == SHD_NOTFOUND)
            put(d, k, l->value[k]);
        else
            die("get", rc);
    }
    return hits;
}

/* ---- what an item is charged ------------------------------------------ */

static uint32_t cells_charge[VALUE_MAX + 1];
static uint32_t stock_charge[VALUE_MAX + 1];
static uint32_t ideal_charge[VALUE_MAX + 1];

static void make_charges(shd_segment *s)
{
    const struct row r = {.capacity = 1 << 20, .shards = 1};
    shd_dict *d = make_dict(s, &r);

    for (uint32_t len = 0; len <= VALUE_MAX; len++) {
        uint32_t bytes = STOCK_BYTES + KEY_BYTES + len, power = 8;

        put(d, 0, len);
        cells_charge[len] = (uint32_t)info_of(d).cells_bytes;
        while (power < bytes)
            power *= 2;
        stock_charge[len] =
            power <= PAGE / 2 ? power : (bytes + PAGE - 1) / PAGE * PAGE;
        ideal_charge[len] = ENTRY_BYTES + KEY_BYTES + len;
    }
    drop_dict(s, d);
}

/* Items of the row's sizes that fit, by what they take of cells. */
static uint32_t count_fitting(const struct row *r, uint64_t room)
{
    double each = 0;

    if (r->value != 0)
        return (uint32_t)(room / cells_charge[r->value]);
    for (int i = 0; i < 1000; i++)
        each += cells_charge[(uint32_t)(8.0 * pow(512.0, i / 1000.0))] / 1e3;
    return (uint32_t)((double)room / each);
}

/* ---- the table -------------------------------------------------------- */

struct result {
    double ours, lru, stock, ideal;
};

static struct result run_row(shd_segment *s, const struct row *r,
                             uint32_t turnover)
{
    shd_dict *d = make_dict(s, r);
    uint64_t room = info_of(d).pages * PAGE;
    uint32_t fits = count_fitting(r, room);
    struct load l;
    struct result out;
    double counted;

    random_state = seed;
    l = make_load(r, fits, fits * turnover);
    counted = (l.ops - l.ops / 4) / 100.0;
    out.ours = dict_run(d, &l) / counted;
    out.lru = lru_run(&l, cells_charge, room) / counted;
    out.stock = lru_run(&l, stock_charge, r->capacity) / counted;
    out.ideal = lru_run(&l, ideal_charge, r->capacity) / counted;
    drop_dict(s, d);
    free(l.key);
    free(l.value);
    return out;
}

static bool print_row(const struct row *r, const struct result *x)
{
    bool judged = r->value != 0 || r->capacity >= FEW_PAGES_BYTES;
    bool good = x->ours >= x->lru - SAME && x->ours >= x->stock - SAME;
    char value[16] = "8-4096";

    if (r->value != 0)
        snprintf(value, sizeof(value), "%u", r->value);
    printf("%4.1f  %-6s  %6s  %6lluk  %6u  %7.2f  %7.2f %+6.2f  %7.2f  %7.2f"
           "%s\n",
           r->zipf, shape_name[r->shape], value,
           (unsigned long long)r->capacity >> 10, r->shards, x->ours, x->lru,
           x->ours - x->lru, x->stock, x->ideal,
           good     ? ""
           : judged ? "  BELOW"
                    : "  below, few pages");
    fflush(stdout);
    return good || !judged;
}

static void usage(FILE *to)
{
    fputs("usage: shdict-bench-hits [--quick | --brief] [--load NAME] "
          "[--turnover N] [--seed N]\n"
          "Hit ratios in per cent, of a full dict and of strict LRU caches of "
          "the same size.\n"
          "Each load asks for ten times as many keys as fit. Exit 1 if a row "
          "is below.\n"
          "  --quick       small dicts only\n"
          "  --brief       a few of their rows\n"
          "  --load NAME   steady, scans, loop, drift or switch only\n"
          "  --turnover N  operations for each item that fits (default 100)\n"
          "  --seed N      another sequence of keys\n"
          "\n"
          "  ours   the dict\n"
          "  lru    strict LRU, an item charged what it takes of the dict's "
          "cells,\n"
          "         of the bytes of the dict's pages; packed perfectly\n"
          "  stock  strict LRU, an item charged what ngx.shared.DICT charges, "
          "of the\n"
          "         whole capacity\n"
          "  ideal  strict LRU, 32 bytes + key + value, of the whole capacity; "
          "for\n"
          "         information\n",
          to);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"quick", no_argument, NULL, 'q'},
        {"brief", no_argument, NULL, 'b'},
        {"load", required_argument, NULL, 'l'},
        {"turnover", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    static const double zipfs[] = {0.7, 0.8, 0.9, 1.0, 1.1, 1.2};
    static const struct {
        uint64_t capacity;
        uint32_t shards;
    } sizes[] = {{64 << 10, 1}, {1 << 20, 1}, {2 << 20, 8}, {8 << 20, 4}};
    static const uint32_t values[] = {32, 0};
    uint32_t only = SHAPES;
    uint32_t turnover = 100, rows = 0, below = 0, n_sizes = 4, step = 1;
    shd_segment *segment;
    int c, rc;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'q') {
            n_sizes = 3;
        } else if (c == 'b') {
            n_sizes = 3;
            step = 4;
        } else if (c == 'l') {
            for (only = STEADY; only < SHAPES; only++)
                if (strcmp(optarg, shape_name[only]) == 0)
                    break;
            only += only == SHAPES; /* there is none of that name */
        } else if (c == 't') {
            turnover = (uint32_t)atoi(optarg);
        } else if (c == 's') {
            seed = strtoull(optarg, NULL, 0);
        } else {
            usage(c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    if (optind != argc || only > SHAPES || turnover < 1 || turnover > 10000) {
        usage(stderr);
        return 2;
    }
    rc = shd_segment_create(NULL, NULL, &segment);
    if (rc != SHD_OK)
        die("segment", rc);
    make_charges(segment);
    printf("zipf  load     value     size  shards     ours      lru   diff    "
           "stock    ideal\n");
    for (uint32_t s = 0; s < n_sizes; s++)
        for (uint32_t v = 0; v < 2; v++)
            for (uint32_t h = STEADY; h <= SWITCH; h++)
                for (uint32_t z = (s + h) % step; z < 6; z += step) {
                    if (only != SHAPES && only != h)
                        continue;
                    struct row r = {zipfs[z], (enum shape)h,
                                    sizes[s].capacity, sizes[s].shards,
                                    values[v]};
                    struct result x = run_row(segment, &r, turnover);

                    rows++;
                    below += !print_row(&r, &x);
                }
    printf("%u rows, %u below strict LRU\n", rows, below);
    return below != 0;
}
