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
#include <sys/mman.h>
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
}

/* What of a full dict is in use. */
static void sample(struct world *w)
{
    if (pages_free(&w->d->pages) == 0)
        utilisation_add(w, &w->record->full, 0);
}

static void report(const struct world *w)
{
    const struct record *r = w->record;

    printf("  ok   %-15s %8" PRIu64 " plain %7" PRIu64 " safe %6" PRIu64
           " pushes; refused %6" PRIu64 " (at most %" PRIu64
           " bytes free beyond, %" PRIu64 " compared)\n",
           w->config->name, r->plain, r->safe, r->pushes, r->refused,
           r->worst_refused.n, r->checked);
    printf("       a store at worst: %" PRIu64 " evictions, %" PRIu64
           " expirations, %" PRIu64 " moves, %" PRIu64 " transactions, %.2f "
           "ms, %.2f ms of CPU\n",
           r->worst_evictions.n, r->worst_expirations.n, r->worst_moves.n,
           r->worst_transactions.n, (double)r->worst_ns.n / 1e6,
           (double)r->worst_cpu_ns.n / 1e6);
    printf("       one of a single cell: %" PRIu64 " evictions, %.2f ms, %.2f "
           "ms of CPU\n",
           r->worst_small_evictions.n, (double)r->worst_small_ns.n / 1e6,
           (double)r->worst_small_cpu_ns.n / 1e6);
    if (r->full.n > 0)
        printf("       no page free: %.1f %% of the pages' bytes in use; "
               "evicting: %.1f %%\n",
               100 * r->full.sum / (double)r->full.n,
               100 * r->evicting.sum / (double)r->evicting.n);
    fflush(stdout);
}

/* ---- the worst of all ------------------------------------------------- */

static void say_worst(const char *what, double unit, int places, size_t member,
                      const struct record *records)
{
    const struct worst *most = NULL;
    size_t of = 0;

    for (size_t i = 0; i < CONFIG_COUNT; i++) {
        const struct worst *its =
            (const struct worst *)(const void *)((const char *)&records[i] +
                                                 member);

        if (its->mood != NULL && (most == NULL || its->n > most->n)) {
            most = its;
            of = i;
        }
    }
    if (most == NULL)
        return;
    printf("  %-34s %12.*f  %s, \"%s\", operation %" PRIu64 ", %" PRIu64
           " bytes\n",
           what, places, (double)most->n / unit, CONFIGS[of].name, most->mood,
           most->op, most->len);
}

static void say_least_used(const struct record *records)
{
    double sum = 0, least = 1;
    uint64_t n = 0;
    size_t of = 0;

    for (size_t i = 0; i < CONFIG_COUNT; i++) {
        const struct utilisation *u = &records[i].evicting;

        if (u->n == 0)
            continue;
        sum += u->sum;
        n += u->n;
        if (u->sum / (double)u->n <= least) {
            least = u->sum / (double)u->n;
            of = i;
        }
    }
    if (n > 0)
        printf("  %-34s %12.1f  least in %s: %.1f %%\n",
               "in use when a store evicts, %", 100 * sum / (double)n,
               CONFIGS[of].name, 100 * least);
}

#define WORST(what, unit, places, member)                                     \
    say_worst(what, unit, places, offsetof(struct record, member), records)

/* Each with the dict, what was done to it, the operation's number and the
 * bytes of the value: with --only and --ops one more than that it comes again,
 * but for the times. */
static void summary(const struct record *records)
{
    uint64_t plain = 0, safe = 0, refused = 0;

    for (size_t i = 0; i < CONFIG_COUNT; i++) {
        plain += records[i].plain;
        safe += records[i].safe + records[i].pushes;
        refused += records[i].refused;
    }
    printf("%" PRIu64 " plain stores, none refused; %" PRIu64
           " safe ones and pushes, %" PRIu64 " refused, each rightly\n",
           plain, safe, refused);
    WORST("free beyond what was refused", 1, 0, worst_refused);
    WORST("evictions by a store", 1, 0, worst_evictions);
    WORST("  by one of a single cell", 1, 0, worst_small_evictions);
    WORST("moves by a store", 1, 0, worst_moves);
    WORST("a store, ms", 1e6, 2, worst_ns);
    WORST("  of the processor", 1e6, 2, worst_cpu_ns);
    WORST("  one of a single cell", 1e6, 2, worst_small_ns);
    WORST("  of the processor", 1e6, 2, worst_small_cpu_ns);
    say_least_used(records);
}

/* ---- running ---------------------------------------------------------- */

static _Noreturn void run(const struct config *c, struct record *record,
                          uint64_t seed, uint64_t ops, double seconds)
{
    struct world *w = calloc(1, sizeof(*w));
    const struct mood *mood = &MOODS[0];
    uint64_t mood_ends = 0;

    if (w == NULL)
        _exit(1);
    w->config = c;
    w->record = record;
    w->seed = w->random = seed;
    begin(w);
    w->until = real_seconds() + seconds;
    if (c->beside) {
        beside(w);
        printf("  ok   %-15s %8" PRIu64 " plain by processes at once; a store "
               "at worst: %.2f ms, %.2f ms of CPU\n",
               c->name, w->record->plain, (double)w->record->worst_ns.n / 1e6,
               (double)w->record->worst_cpu_ns.n / 1e6);
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
static bool run_apart(const struct config *c, struct record *record,
                      uint64_t seed, uint64_t ops, double seconds)
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
        run(c, record, seed, ops, seconds);
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
    struct record *records =
        mmap(NULL, CONFIG_COUNT * sizeof(*records), PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (records == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
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
        if (run_apart(&CONFIGS[i], &records[i], seed, ops, seconds))
            passed++;
        else
            failed++;
    }
    if (failed == 0)
        summary(records);
    printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}
