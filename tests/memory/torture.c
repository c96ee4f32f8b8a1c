/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fragmentation torture: dicts of many shapes, driven from one bad state into
 * the next, each store held to what it can count on (torture.h). What it cost
 * is printed; latencies are not judged.
 */
#include "tests/memory/torture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED_DEFAULT 20261121ull
#define SECONDS_DEFAULT 20.0
#define CHECK_EVERY 500
#define KIB 1024ull
#define MIB (1024 * KIB)

static const struct config CONFIGS[] = {
    /* name, capacity, shards, entries hint, keys, beside */
    {"8K", 8 * KIB, 1, 0, 60, false},
    {"12K", 12 * KIB, 1, 0, 60, false},
    {"24K-2-shards", 24 * KIB, 2, 0, 150, false},
    {"64K", 64 * KIB, 1, 0, 900, false},
    {"96K-one-tree", 96 * KIB, 1, 1, 1200, false},
    {"128K-16-shards", 128 * KIB, 16, 0, 2000, false},
    {"512K-4-shards", 512 * KIB, 4, 0, 6000, false},
    {"512K-64-shards", 512 * KIB, 64, 0, 6000, false},
    {"1M", 1 * MIB, 1, 0, 10000, false},
    {"2M-256-shards", 2 * MIB, 256, 0, 20000, false},
    {"4M", 4 * MIB, 0, 0, 40000, false},
    {"16M", 16 * MIB, 0, 0, 120000, false},
    {"beside-1-shard", 96 * KIB, 1, 0, 3000, true},
    {"beside-16-shards", 512 * KIB, 16, 0, 3000, true},
};
#define CONFIG_COUNT (sizeof(CONFIGS) / sizeof(CONFIGS[0]))

static void begin(struct world *w)
{
    struct shd_segment_options so = {.struct_size = sizeof(so)};
    struct shd_dict_options o = {.struct_size = sizeof(o)};

    w->doing = "the beginning";
    w->mood = "none";
    so.size_bytes = w->config->capacity * 2 + 16 * MIB;
    so.workers_max = 8;
    so.objects_max = 4;
    so.locks_max = 300;
    if (shd_segment_create(NULL, &so, &w->segment) != SHD_OK)
        fail(w, "%s", shd_last_error());
    /* The kernel's random number would make failures come but once. */
    w->segment->segment.hash_seed = w->seed;
    segment_header(&w->segment->segment)->hash_seed = w->seed;
    o.shards = w->config->shards;
    o.capacity_bytes = w->config->capacity;
    o.entries_hint = w->config->hint;
    if (shd_dict_open(w->segment, "torture", &o, &w->dict) != SHD_OK)
        fail(w, "%s", shd_last_error());
    w->d = &w->dict->dict;
    w->value_max = dict_value_max(w->d, 1);
    w->live = calloc(w->d->shards, sizeof(*w->live));
    w->pool = malloc(w->value_max + 8192);
    w->buffer = malloc(w->value_max + 8);
    if (w->live == NULL || w->pool == NULL || w->buffer == NULL)
        fail(w, "no memory for the test");
    for (size_t i = 0; i < w->value_max + 8192; i++)
        w->pool[i] = (unsigned char)below(w, 256);
    w->record.utilisation_min = 1;
}

/* How much of a full dict's pages is in cells that are handed out. */
static void sample(struct world *w)
{
    struct record *r = &w->record;
    uint64_t bytes = 0;
    double part;

    if (pages_free(&w->d->pages) != 0)
        return;
    for (uint32_t i = 0; i < w->d->shards; i++)
        bytes += w->d->shard[i].slab.bytes;
    part = (double)bytes / ((double)pages_count(&w->d->pages) * PAGE_BYTES);
    r->utilisation_sum += part;
    r->utilisation_n++;
    if (part < r->utilisation_min)
        r->utilisation_min = part;
}

static void report(const struct world *w)
{
    const struct record *r = &w->record;

    printf("  ok   %-15s %8" PRIu64 " plain %7" PRIu64 " safe %6" PRIu64
           " pushes; refused %6" PRIu64 " (at most %" PRIu64
           " bytes free, %" PRIu64 " compared)\n",
           w->config->name, r->plain, r->safe, r->pushes, r->refused,
           r->worst_refused_free, r->checked);
    printf("       a store at worst: %" PRIu64 " evictions, %" PRIu64
           " expirations, %" PRIu64 " moves, %" PRIu64 " transactions, %.2f "
           "ms, %.2f ms of CPU\n",
           r->worst_evictions, r->worst_expirations, r->worst_moves,
           r->worst_transactions, (double)r->worst_ns / 1e6,
           (double)r->worst_cpu_ns / 1e6);
    printf("       one of a single cell: %" PRIu64 " evictions, %.2f ms, %.2f "
           "ms of CPU\n",
           r->worst_small_evictions, (double)r->worst_small_ns / 1e6,
           (double)r->worst_small_cpu_ns / 1e6);
    if (r->utilisation_n > 0)
        printf("       full: %.1f %% of its pages' bytes in use, at least "
               "%.1f %%\n",
               100 * r->utilisation_sum / (double)r->utilisation_n,
               100 * r->utilisation_min);
    fflush(stdout);
}

static _Noreturn void run(const struct config *c, uint64_t seed, uint64_t ops,
                          double seconds)
{
    struct world *w = calloc(1, sizeof(*w));
    const struct mood *mood = &MOODS[0];
    uint64_t mood_ends = 0;

    if (w == NULL)
        _exit(1);
    w->config = c;
    w->seed = w->random = seed;
    begin(w);
    w->until = real_seconds() + seconds;
    if (c->beside) {
        beside(w);
        printf("  ok   %s\n", c->name);
        fflush(stdout);
        _exit(0);
    }
    for (; w->op < ops; w->op++) {
        if (w->op % 64 == 0 && real_seconds() > w->until)
            break;
        if (w->op == mood_ends) {
            mood = &MOODS[below(w, MOOD_COUNT)];
            mood_ends = w->op + 100 + below(w, 1500);
            w->mood = mood->name;
            if (mood->begin != NULL)
                mood->begin(w);
        }
        mood->step(w);
        if (w->op % 16 == 0)
            sample(w);
        if (w->op % CHECK_EVERY == 0)
            check(w);
    }
    check(w);
    report(w);
    _exit(0);
}

/* Each dict in a process of its own: a crash fails only it. */
static bool run_apart(const struct config *c, uint64_t seed, uint64_t ops,
                      double seconds)
{
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child < 0) {
        perror("fork");
        return false;
    }
    if (child == 0)
        run(c, seed, ops, seconds);
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            perror("waitpid");
            return false;
        }
    }
    if (WIFSIGNALED(status))
        printf("  FAIL %s: killed by signal %d\n    again: tests/memory/run "
               "--only %s --seed %" PRIu64 " --seconds 100000\n",
               c->name, WTERMSIG(status), c->name, seed);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: torture [--seconds N | --hours N] [--seed S] [--only "
            "DICT] [--ops N]\n"
            "  --seconds N  for all dicts together, default %.0f\n"
            "  --ops N      at most so many operations a dict\n",
            SECONDS_DEFAULT);
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t seed = SEED_DEFAULT, ops = UINT64_MAX;
    double seconds = SECONDS_DEFAULT;
    const char *only = NULL;
    unsigned passed = 0, failed = 0;

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 >= argc)
            return usage();
        if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--ops") == 0)
            ops = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--hours") == 0)
            seconds = strtod(argv[i + 1], NULL) * 3600;
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else
            return usage();
    }
    if (only == NULL)
        seconds /= (double)CONFIG_COUNT;
    /* To see a failure again time is no bound. */
    if (ops != UINT64_MAX)
        seconds = 1e9;
    printf("torture: seed %" PRIu64 "\n", seed);
    for (size_t i = 0; i < CONFIG_COUNT; i++) {
        if (only != NULL && strcmp(only, CONFIGS[i].name) != 0)
            continue;
        if (run_apart(&CONFIGS[i], seed, ops, seconds))
            passed++;
        else
            failed++;
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}
