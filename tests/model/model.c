/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on a dict and on a naive map beside it; every result must
 * be the same.
 *
 * Time stands still between operations (the linker puts the frozen clock of
 * clock.c under base/clock.c) and moves by clock_test_advance(), and the
 * seed decides everything else too, the segment's hash seed included: so a
 * failure comes again with the command that is printed with it, and an expiry
 * is never "about" now.
 *
 * A dict that has room for everything must agree with the map exactly. Where
 * the dict is too small for its keys, the map cannot know who had to go; it
 * learns (shd_ttl marks nothing as used), and holds the dict to this:
 *   - an entry may be gone only if a counter of removals has moved since it
 *     was last seen, and no more may be gone than were removed;
 *   - what is there is what was stored last;
 *   - an operation with SHD_SAFE, and a push, removes nothing that lives;
 *   - a failed operation leaves the old value;
 *   - what fits value_max_bytes never fails a plain store;
 *   - forcible is 1 when, and only when, something live was removed.
 * At the end everything is deleted, and every byte must be free again.
 *
 * Beside them queues, topics and mailboxes, see ipc.h.
 */
#include "tests/model/ipc.h"
#include "tests/model/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPS_DEFAULT 10200000ull
#define SEED_DEFAULT 20240607ull

/* ---- configurations: data --------------------------------------------- */

static const struct mix MIX_NUMBERS = {"numbers", 100, 0, 0, 0, 0, 0};
static const struct mix MIX_SMALL = {"small", 30, 10, 60, 0, 0, 0};
static const struct mix MIX_MEDIUM = {"0..2000", 10, 5, 25, 60, 0, 0};
static const struct mix MIX_LARGE = {"..64K", 5, 5, 20, 30, 40, 0};
static const struct mix MIX_LARGEST = {"..value_max", 5, 5, 30, 30, 20, 10};

#define KIB 1024ull
#define MIB (1024 * KIB)

static const struct config CONFIGS[] = {
    {"8K-numbers", 8 * KIB, 0, 0, 12, KEY_PLAIN, &MIX_NUMBERS, 0, 0, 60,
     true},
    {"8K-full", 8 * KIB, 0, 0, 120, KEY_MIXED, &MIX_SMALL, 15, 6, 90, true},
    {"8K-largest", 8 * KIB, 0, 0, 40, KEY_BYTE, &MIX_LARGEST, 5, 6, 60, true},
    {"64K-roomy", 64 * KIB, 0, 0, 60, KEY_PLAIN, &MIX_SMALL, 20, 12, 120,
     false},
    {"64K-full", 64 * KIB, 0, 0, 1500, KEY_MIXED, &MIX_SMALL, 20, 20, 120,
     true},
    {"64K-medium", 64 * KIB, 0, 0, 200, KEY_PLAIN, &MIX_MEDIUM, 20, 20, 80,
     true},
    {"64K-largest", 64 * KIB, 0, 0, 60, KEY_BYTE, &MIX_LARGEST, 5, 20, 30,
     true},
    {"1M-roomy", 1 * MIB, 0, 0, 600, KEY_MIXED, &MIX_SMALL, 20, 15, 100,
     false},
    {"1M-tall-trees", 1 * MIB, 0, 1, 600, KEY_MIXED, &MIX_SMALL, 10, 15, 60,
     false},
    {"1M-full", 1 * MIB, 0, 0, 4000, KEY_MIXED, &MIX_MEDIUM, 20, 60, 60,
     true},
    {"1M-large", 1 * MIB, 0, 0, 120, KEY_LONG, &MIX_LARGE, 10, 30, 25, true},
    {"1M-largest", 1 * MIB, 0, 0, 100, KEY_BYTE, &MIX_LARGEST, 5, 30, 10,
     true},
    {"8M-roomy", 8 * MIB, 0, 0, 4000, KEY_MIXED, &MIX_SMALL, 20, 20, 60,
     false},
    {"8M-full", 8 * MIB, 0, 0, 40000, KEY_MIXED, &MIX_MEDIUM, 10, 40, 40,
     true},
    {"2M-16-shards", 2 * MIB, 16, 0, 60000, KEY_PLAIN, &MIX_SMALL, 20, 40,
     40, true},
    {"512K-4-shards", 512 * KIB, 4, 0, 1500, KEY_MIXED, &MIX_MEDIUM, 15, 40,
     40, true},
    {"64M-roomy", 64 * MIB, 0, 0, 50000, KEY_MIXED, &MIX_SMALL, 10, 30, 40,
     false},
    {"64M-full", 64 * MIB, 0, 0, 12000, KEY_MIXED, &MIX_LARGE, 5, 40, 15,
     true},
};
#define CONFIG_COUNT (sizeof(CONFIGS) / sizeof(CONFIGS[0]))

/* ---- running ------------------------------------------------------------ */

static _Noreturn void run(const struct config *c, uint64_t seed,
                          uint64_t ops_asked)
{
    struct world *w = calloc(1, sizeof(*w));
    double started = seconds();
    uint64_t ops = ops_asked * c->share / 1000, every;

    if (w == NULL)
        _exit(1);
    w->config = c;
    w->seed = w->random = seed;
    w->ops_asked = ops_asked;
    begin(w, w->config->capacity + 16 * MIB, 256);
    every = ops / 40 + 1;
    while (w->op < ops) {
        random_op(w);
        if (w->op % every == 0)
            check_segment(w);
    }
    end(w);
    printf("  ok   %-14s %8" PRIu64 " operations, %7" PRIu64
           " evicted, %6" PRIu64 " expired, %6" PRIu64 " no memory, %5" PRIu64
           " too big, %4" PRIu64 " walks, %4" PRIu64 " resizes, %2" PRIu64
           " checks, %.1f s\n",
           c->name, w->op, w->info.evictions, w->info.expirations, w->nomem,
           w->toobig, w->walks, w->info.resizes, w->checks, seconds() - started);
    fflush(stdout);
    _exit(0);
}

/* Each configuration, one of the two, in a process of its own: a crash fails
 * only it. */
static bool run_apart(const struct config *c, const struct ipc_config *ipc,
                      uint64_t seed, uint64_t ops)
{
    const char *name = c != NULL ? c->name : ipc->name;
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child < 0) {
        perror("fork");
        return false;
    }
    if (child == 0) {
        /* With time standing still, a wait that is bounded never ends. */
        (void)alarm(1800);
        if (c != NULL)
            run(c, seed, ops);
        else
            ipc_run(ipc, seed, ops);
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            perror("waitpid");
            return false;
        }
    }
    if (WIFSIGNALED(status))
        printf("    killed by signal %d (%s)\n    again: tests/model/run "
               "--only %s --seed %" PRIu64 " --ops %" PRIu64 "\n",
               WTERMSIG(status), strsignal(WTERMSIG(status)), name, seed,
               ops);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        printf("  FAIL %s\n", name);
        return false;
    }
    return true;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: model [--seed N] [--ops N] [--only CONFIGURATION]\n"
            "  --ops N  operations over all configurations, default %llu\n",
            OPS_DEFAULT);
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t seed = SEED_DEFAULT, ops = OPS_DEFAULT;
    const char *only = NULL;
    unsigned passed = 0, failed = 0;

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 >= argc)
            return usage();
        if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--ops") == 0)
            ops = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else
            return usage();
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    printf("model: seed %" PRIu64 ", %" PRIu64 " operations\n", seed, ops);
    for (size_t i = 0; i < CONFIG_COUNT; i++) {
        if (only != NULL && strcmp(only, CONFIGS[i].name) != 0)
            continue;
        if (run_apart(&CONFIGS[i], NULL, seed, ops))
            passed++;
        else
            failed++;
    }
    for (size_t i = 0; IPC_CONFIGS[i].name != NULL; i++) {
        if (only != NULL && strcmp(only, IPC_CONFIGS[i].name) != 0)
            continue;
        if (run_apart(NULL, &IPC_CONFIGS[i], seed, ops))
            passed++;
        else
            failed++;
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}
