/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What processes that are killed write down of what they did and saw must be
 * explained by some order of whole operations, key by key, and for a queue, a
 * lock, a leader, a mailbox, a list of jobs that are leased and a topic: one
 * after the other, each after all that had
 * ended before it began; of a process that was killed the operation in flight
 * done, before the process's end, or not.
 *
 * That this test can fail is shown by histories made by hand, by recorded ones
 * that are changed so that they cannot have been, and by tests/planted.
 */
#include "tests/histories/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 60u
#define LOOK_MOST 5000000u /* pairs, of one key's history */
#define FAILURES_SHOWN 3u

static struct recorded recorded;
static uint64_t checked, undecided, looked, mutated[MUTATIONS];
static uint32_t failures;

static const char *const OBJECTS[] = {"a queue", "a lock", "a leader",
                                      "a mailbox", "a list of jobs",
                                      "a topic"};

static void say(const char *what, const struct history *h, uint32_t stuck)
{
    if (++failures > FAILURES_SHOWN)
        return;
    printf("  FAIL %s: no order of whole operations gives this (the longest "
           "has %u of its %u); tests/histories/run --check FILE looks at it "
           "again\n",
           what, stuck, h->count);
    history_print(h);
}

/* Each recorded history, and one that cannot have been made of it. */
static void judge(uint64_t random)
{
    static struct history wrong;

    for (uint32_t k = 0; k < KEYS; k++) {
        const struct history *h = &recorded.of[k];
        unsigned mutation, m = 0;
        uint32_t stuck;
        enum verdict v = history_check(h, LOOK_MOST, &stuck, &looked);

        checked++;
        undecided += v == UNDECIDED;
        if (v == IMPOSSIBLE)
            say(k < DICT_KEYS ? "a key" : OBJECTS[k - DICT_KEYS], h, stuck);
        if (v != POSSIBLE)
            continue;
        do {
            mutation = (unsigned)((random >> 8) + k + m) % MUTATIONS;
            wrong = *h;
        } while (!wrong_mutate(&wrong, mutation, random) && ++m < MUTATIONS);
        if (m == MUTATIONS)
            continue;
        mutated[mutation]++;
        if (history_check(&wrong, LOOK_MOST, &stuck, &(uint64_t){0}) !=
            POSSIBLE)
            continue;
        failures++;
        printf("  FAIL %s went unnoticed\n", MUTATION_NAMES[mutation]);
        history_print(&wrong);
    }
}

static int check_file(const char *path)
{
    static char text[HISTORY_MAX * 80];
    static struct history h;
    FILE *f = fopen(path, "r");
    uint32_t stuck;
    enum verdict v;

    if (f == NULL) {
        perror(path);
        return 2;
    }
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    (void)fclose(f);
    if (!history_parse(text, &h)) {
        printf("%s: line %u is none\n", path, h.count + 1);
        return 2;
    }
    v = history_check(&h, UINT64_MAX, &stuck, &looked);
    printf("%s: %s, %u of %u\n", path,
           v == POSSIBLE ? "possible" : "impossible", stuck, h.count);
    return v == POSSIBLE ? 0 : 1;
}

static void print_table(uint64_t rounds)
{
    uint64_t all = 0;

    for (unsigned i = 0; i < MUTATIONS; i++)
        all += mutated[i];
    printf("  %12" PRIu64 "  rounds of 4 processes\n"
           "  %12" PRIu64 "  operations\n"
           "  %12" PRIu64 "  of them of queues, locks, leaders, mailboxes,"
           " leased jobs, topics\n"
           "  %12" PRIu64 "  locks had of the dead\n"
           "  %12" PRIu64 "  posts refused, to the dead\n"
           "  %12" PRIu64 "  kills\n"
           "  %12" PRIu64 "  operations cut off by one\n"
           "  %12" PRIu64 "  histories, of one key or object each\n"
           "  %12" PRIu64 "  of them too wide to be decided\n"
           "  %12" PRIu64 "  states looked at\n"
           "  %12" PRIu64 "  histories made wrong\n",
           rounds, recorded.operations, recorded.objects, recorded.inherited,
           recorded.refused, recorded.kills, recorded.cut_off,
           checked, undecided, looked, all);
}

static int run_all(uint64_t seed, uint64_t rounds_max, uint64_t seconds)
{
    time_t began = time(NULL);
    uint32_t good, bad;
    uint64_t rounds = 0;

    wrong_by_hand(&good, &bad);
    if (!record_open())
        failures++;
    while (failures == 0 &&
           (seconds > 0 ? (uint64_t)(time(NULL) - began) < seconds
                        : rounds < rounds_max)) {
        rounds++;
        if (record_round(seed + rounds, &recorded))
            judge((seed + rounds) * 0x9e3779b97f4a7c15ull);
        else
            failures++;
    }
    print_table(rounds);
    for (unsigned i = 0; i < MUTATIONS; i++) {
        if (mutated[i] > 0)
            good++;
        else if (failures++ == 0)
            printf("  FAIL there was no place for %s\n", MUTATION_NAMES[i]);
    }
    if (undecided > 0) {
        printf("  FAIL some histories could not be decided\n");
        failures++;
    }
    good += failures == 0;
    bad += failures > 0;
    printf("%u passed, %u failed\n", good, bad);
    return bad > 0 || good == 0;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, rounds = ROUNDS, seconds = 0;

    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--check") == 0)
            return check_file(argv[i + 1]);
        if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--rounds") == 0)
            rounds = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtoull(argv[i + 1], NULL, 10);
        else
            argc = 0;
    }
    if (argc % 2 != 1) {
        fprintf(stderr, "usage: histories [--seed N] [--rounds N | --seconds "
                        "N] | --check FILE\n");
        return 2;
    }
    return run_all(seed, rounds, seconds);
}
