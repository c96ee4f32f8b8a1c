/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations of two or three workers beside each other, in every order of
 * their accesses with one or two changes of turn (and a sample of those with
 * three), with a real SIGKILL of who was interrupted or not.
 *
 * For each schedule: the segment's bytes are put back, the parties are forked
 * and registered, and take turns as the schedule says. Afterwards the living
 * run to their ends one by one, and then
 *   - every invariant holds;
 *   - the results and the state are those of the operations run one after the
 *     other, in some order in which none comes before another that had ended
 *     before it began; of who was killed, the operation in flight is done or
 *     not begun, and the death is in that order too, for it gives back what was
 *     held: anywhere after it happened, for nobody has to notice at once.
 * A flush, and others that are rows of transactions, are held to that as well
 * where the case is small enough for it to be true.
 *
 * That all of this can fail is shown by tests/planted.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/api/handle.h"
#include "tests/interleave/cases.h"
#include "tests/interleave/world.h"

#define OPS_MAX (PARTIES_MAX * PARTY_OPS_MAX + 1)
#define REFERENCES_MAX 4096u
#define DEATH 128u /* of that party, in an order */
#define STEPS_MAX 4u
#define FAILURES_SHOWN 3u
#define NOBODY UINT32_MAX
/* Without --full, of each case: the points at which one party is interrupted
 * (all, if it makes no more accesses), and schedules with more changes. */
#define POINTS 70u
#define SAMPLED_TWO 120u
#define SAMPLED_THREE 80u
/* With it; all schedules with two changes, unless they are more. */
#define TWO_MAX 150000u
#define SAMPLED_FULL 20000u

/* Who has the turn, for how many accesses; then who dies. */
struct schedule {
    uint32_t steps;
    uint32_t who[STEPS_MAX];
    uint64_t accesses[STEPS_MAX];
    uint32_t victim;
};

/* What some order of whole operations gives. */
struct reference {
    uint32_t ops, done[PARTIES_MAX];
    uint8_t order[OPS_MAX]; /* the party each operation is of; + DEATH */
    uint32_t victim;
    char result[OPS_MAX][WORLD_RESULT_MAX];
    uint64_t digest;
};

struct run {
    const struct interleave_case *c;
    struct world world;
    uint32_t parties;
    uint32_t ops[PARTIES_MAX];
    char op[PARTIES_MAX][PARTY_OPS_MAX][WORLD_OP_MAX];
    uint64_t solo[PARTIES_MAX]; /* accesses, when nobody is beside it */
    unsigned char *image;
    size_t image_bytes;
    struct reference *reference;
    uint32_t references;
    bool deaths_matter; /* there is something between workers */
    unsigned failures;
    uint64_t schedules, deaths, left_out;
};

static struct run run;
static bool full;
static uint64_t seed = 1;

static uint64_t random_below(uint64_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (seed >> 33) % n;
}

static void print_schedule(const struct schedule *s)
{
    for (uint32_t i = 0; i < s->steps; i++)
        printf("%s%u:%" PRIu64, i > 0 ? "," : "", s->who[i], s->accesses[i]);
    if (s->victim != NOBODY)
        printf(",kill:%u", s->victim);
}

static void say(const struct schedule *s, const char *what)
{
    run.failures++;
    if (run.failures > FAILURES_SHOWN)
        return;
    printf("    %s\n      repeat: tests/interleave/run --case \"%s\" "
           "--schedule ",
           what, run.c->name);
    print_schedule(s);
    printf("\n");
    for (uint32_t p = 0; p < run.parties; p++) {
        const struct party *party = party_at(p);

        for (uint32_t i = 0; i < party->ops_begun; i++)
            printf("      party %u, %s: %s\n", p, run.op[p][i],
                   i < party->ops_ended ? party->result[i] : "(cut off)");
    }
}

/* ---- the segment ------------------------------------------------------------ */

static bool build(void)
{
    struct shd_segment_options so = {.struct_size = sizeof(so)};
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    uint64_t incarnation;
    struct segment *s;

    so.size_bytes = (run.c->kib * 2 + 256) * 1024ull;
    so.workers_max = 8;
    so.objects_max = 6;
    so.locks_max = 12;
    if (shd_segment_create(NULL, &so, &run.world.segment) != SHD_OK)
        return false;
    s = &run.world.segment->segment;
    s->hash_seed = 7;
    segment_header(s)->hash_seed = 7;
    o.capacity_bytes = run.c->kib * 1024ull;
    o.shards = run.c->shards;
    if (shd_worker_join(run.world.segment, &incarnation) != SHD_OK ||
        shd_dict_open(run.world.segment, "dict", &o, &run.world.dict) !=
            SHD_OK)
        return false;
    run.image_bytes = s->size;
    run.image = malloc(s->size);
    /* The image is written back over all of it. */
    if (run.image == NULL || segment_commit(s, 0, s->size) != SHD_OK ||
        world_prepare(&run.world, run.c->setup) != 0)
        return false;
    party_segment(s->base, s->size);
    memcpy(run.image, s->base, s->size);
    return true;
}

static void put_back(void)
{
    memcpy(run.world.segment->segment.base, run.image, run.image_bytes);
}

static bool parse_parties(void)
{
    for (run.parties = 0;
         run.parties < PARTIES_MAX && run.c->party[run.parties] != NULL;
         run.parties++) {
        const char *rest = run.c->party[run.parties];
        uint32_t n = 0;

        while (n < PARTY_OPS_MAX &&
               (rest = world_next(rest, run.op[run.parties][n])) != NULL)
            n++;
        run.ops[run.parties] = n;
    }
    return run.parties > 1;
}

/* In a party, before its turn: its own view of the dict, so that it does not
 * know what the conductor has learned, and a registration. */
static void prepare(uint32_t i)
{
    (void)shd_dict_close(run.world.dict);
    if (shd_dict_open(run.world.segment, "dict", NULL, &run.world.dict) !=
            SHD_OK ||
        shd_worker_join(run.world.segment, &party_at(i)->incarnation) !=
            SHD_OK)
        _exit(1);
}

static const uint64_t *worker(uint32_t party)
{
    return &party_at(party < PARTIES_MAX ? party : 0)->incarnation;
}

static void play(uint32_t i)
{
    char result[WORLD_RESULT_MAX];

    for (uint32_t k = 0; k < run.ops[i]; k++) {
        party_op_begins();
        if (world_run(&run.world, run.op[i][k], result) != 0)
            _exit(1);
        party_op_ends(result);
    }
}

/* ---- what is allowed ---------------------------------------------------------- */

static bool start_all(void);

/* One operation after the other, each to its end. */
static bool play_in_order(struct reference *r)
{
    uint32_t at[PARTIES_MAX] = {0};

    if (!start_all())
        return false;
    for (uint32_t i = 0; i < r->ops; i++) {
        uint32_t p = r->order[i];

        if ((p & DEATH) != 0) {
            party_kill(p & ~DEATH);
            continue;
        }
        if (party_one(p) != PARTY_STOPPED)
            return false;
        memcpy(r->result[i], party_at(p)->result[at[p]++],
               WORLD_RESULT_MAX);
    }
    return true;
}

static bool add_reference(const struct reference *order)
{
    struct reference *r = &run.reference[run.references];
    bool good;

    if (run.references == REFERENCES_MAX)
        return false;
    *r = *order;
    good = play_in_order(r);
    party_end(run.parties);
    if (!good || shd_reap(run.world.segment, NULL) != SHD_OK ||
        world_digest(&run.world, &r->digest) != 0)
        return false;
    run.references++;
    return true;
}

static bool all_orders(struct reference *r);

/* And all that begin with this one. */
static bool orders_after(struct reference *r, uint32_t what)
{
    bool good;

    r->order[r->ops++] = (uint8_t)what;
    good = all_orders(r);
    r->ops--;
    return good;
}

/* All merges of all beginnings of the parties' operations, with the death of
 * nobody, or of one who makes no more after it. Only what is between workers
 * takes note of a death. */
static bool all_orders(struct reference *r)
{
    bool good = add_reference(r);

    for (uint32_t p = 0; good && p < run.parties; p++) {
        if (p == r->victim)
            continue;
        if (r->done[p] < run.ops[p]) {
            r->done[p]++;
            good = orders_after(r, p);
            r->done[p]--;
        }
        if (good && r->victim == NOBODY && run.deaths_matter) {
            r->victim = p;
            good = orders_after(r, p | DEATH);
            r->victim = NOBODY;
        }
    }
    return good;
}

/* Of who was killed in it, an operation is in the reference or not. */
static bool same_operations(const struct reference *r)
{
    for (uint32_t p = 0; p < run.parties; p++) {
        const struct party *party = party_at(p);

        if (r->done[p] < party->ops_ended || r->done[p] > party->ops_begun)
            return false;
    }
    return true;
}

static bool same_results(const struct reference *r)
{
    uint32_t at[PARTIES_MAX] = {0};

    for (uint32_t i = 0; i < r->ops; i++) {
        const struct party *party = party_at(r->order[i] & ~DEATH);
        uint32_t k;

        if ((r->order[i] & DEATH) != 0)
            continue;
        k = at[r->order[i]]++;
        if (k < party->ops_ended &&
            strcmp(party->result[k], r->result[i]) != 0)
            return false;
    }
    return true;
}

/* None comes before one that had ended before it began. */
static bool possible_order(const struct reference *r)
{
    uint32_t at[PARTIES_MAX] = {0};
    uint64_t latest = 0;

    for (uint32_t i = 0; i < r->ops; i++) {
        const struct party *party = party_at(r->order[i] & ~DEATH);
        uint32_t k;

        if ((r->order[i] & DEATH) != 0) {
            /* Those that ended before it come before what notices. */
            if (party->killed == 0)
                return false;
            if (party->killed > latest)
                latest = party->killed;
            continue;
        }
        k = at[r->order[i]]++;
        if (k < party->ops_ended && party->ended[k] < latest)
            return false;
        if (party->began[k] > latest)
            latest = party->began[k];
    }
    return true;
}

/* Where an operation makes room it is a row of transactions: cut off, it may
 * have evicted and not stored. */
static bool same_state(const struct reference *r, uint64_t digest)
{
    bool cut_off = false;

    for (uint32_t p = 0; p < run.parties; p++)
        cut_off |= party_at(p)->ops_ended < party_at(p)->ops_begun;
    return r->digest == digest || (run.c->flags & INTERLEAVE_LOOSE) != 0 ||
           (cut_off && (run.c->flags & INTERLEAVE_STEPS) != 0);
}

static bool allowed(uint64_t digest)
{
    for (uint32_t i = 0; i < run.references; i++) {
        const struct reference *r = &run.reference[i];

        if (same_state(r, digest) && same_operations(r) && same_results(r) &&
            possible_order(r))
            return true;
    }
    return false;
}

/* ---- schedules ------------------------------------------------------------------ */

static bool start_all(void)
{
    put_back();
    for (uint32_t p = 0; p < run.parties; p++) {
        if (party_start(p, prepare, play) != 0)
            return false;
    }
    return true;
}

/* Each to its end, one that is blocked after the others. */
static const char *finish(uint32_t first)
{
    uint32_t left = 0, moved = 1;

    for (uint32_t p = 0; p < run.parties; p++)
        left += party_at(p)->status < PARTY_DONE;
    while (left > 0 && moved > 0) {
        moved = 0;
        for (uint32_t i = 0; i < run.parties; i++) {
            uint32_t p = (first + i) % run.parties;
            struct party *party = party_at(p);
            uint64_t before = party->accesses;
            uint32_t status;

            if (party->status >= PARTY_DONE)
                continue;
            status = party_go_on(p, PARTY_UNLIMITED);
            if (status == PARTY_BROKEN)
                return "a party died by itself, or hangs";
            left -= status == PARTY_DONE;
            moved += status == PARTY_DONE || party->accesses > before;
        }
    }
    return left > 0 ? "those that are left wait for each other" : NULL;
}

static const char *judge(void)
{
    static char why[500];
    char report[400] = "";
    uint64_t digest;
    int rc = shd_reap(run.world.segment, NULL);

    if (rc == SHD_OK)
        rc = shd_segment_check(run.world.segment, report, sizeof(report));
    if (rc != SHD_OK) {
        snprintf(why, sizeof(why), "check gave %s: %s", shd_strerror_name(rc),
                 report[0] != '\0' ? report : shd_last_error());
        return why;
    }
    if (world_digest(&run.world, &digest) != 0)
        return "the state cannot be read";
    return allowed(digest) ? NULL : "no order of whole operations gives this";
}

/* The accesses its last step could make: fewer than asked for, and there is
 * nothing further to interrupt. */
static uint64_t run_schedule(const struct schedule *s)
{
    const char *wrong = NULL;
    uint64_t made = 0;
    uint32_t next = 0;

    run.schedules++;
    if (!start_all()) {
        say(s, "a party could not be started");
        return 0;
    }
    for (uint32_t i = 0; i < s->steps && wrong == NULL; i++) {
        struct party *party = party_at(s->who[i]);
        uint64_t before = party->accesses;

        if (party_go_on(s->who[i], s->accesses[i]) == PARTY_BROKEN)
            wrong = "a party died by itself, or hangs";
        made = party->accesses - before;
        next = (s->who[i] + 1) % run.parties;
    }
    if (wrong == NULL && s->victim != NOBODY) {
        party_kill(s->victim);
        run.deaths++;
    }
    if (wrong == NULL)
        wrong = finish(next);
    party_end(run.parties);
    if (wrong == NULL)
        wrong = judge();
    if (wrong != NULL)
        say(s, wrong);
    return made;
}

/* Somebody is interrupted once, after one of his accesses, and killed or
 * not. */
static void one_change(void)
{
    for (uint32_t a = 0; a < run.parties; a++) {
        struct schedule s = {.steps = 1, .who = {a}, .victim = NOBODY};
        uint64_t n = run.solo[a], points = n;

        if (!full && points > POINTS)
            points = POINTS;
        run.left_out += 2 * (n - points);
        for (uint64_t i = 0; i < points; i++) {
            /* One in each of as many equal parts. */
            uint64_t from = n * i / points, to = n * (i + 1) / points;

            s.accesses[0] = from + 1 + random_below(to - from);
            s.victim = NOBODY;
            (void)run_schedule(&s);
            s.victim = a;
            (void)run_schedule(&s);
        }
    }
}

static uint32_t victim_of(const struct schedule *s, uint32_t i)
{
    return i < s->steps ? s->who[i] : NOBODY;
}

/* b is interrupted after each of its accesses, until it is blocked or at its
 * end. */
static void two_changes_at(uint32_t a, uint64_t at, uint32_t b)
{
    struct schedule s = {.steps = 2, .who = {a, b}, .accesses = {at}};

    for (uint64_t k = 1;; k++) {
        uint64_t made = 0;

        s.accesses[1] = k;
        for (uint32_t v = 0; v < 3; v++) {
            s.victim = victim_of(&s, v);
            made = run_schedule(&s);
        }
        if (made < k)
            return;
    }
}

static void sample(uint32_t steps, uint64_t n)
{
    struct schedule s = {.steps = steps};

    while (n-- > 0) {
        for (uint32_t i = 0; i < steps; i++) {
            do {
                s.who[i] = (uint32_t)random_below(run.parties);
            } while (i > 0 && s.who[i] == s.who[i - 1]);
            s.accesses[i] = 1 + random_below(run.solo[s.who[i]]);
        }
        s.victim = victim_of(&s, (uint32_t)random_below(steps + 1));
        (void)run_schedule(&s);
    }
}

static void two_changes(uint32_t a, uint32_t b)
{
    uint64_t all = 3 * run.solo[a] * run.solo[b];

    if (!full || all > TWO_MAX) {
        uint64_t n = full ? SAMPLED_FULL : SAMPLED_TWO;

        sample(2, n);
        run.left_out += all > n ? all - n : 0;
        return;
    }
    for (uint64_t k = 1; k <= run.solo[a]; k++)
        two_changes_at(a, k, b);
}

/* ---- cases ---------------------------------------------------------------------- */

/* Elements on a lease: they are between workers too. */
static bool any_leases(const struct interleave_case *c)
{
    for (uint32_t p = 0; p < PARTIES_MAX && c->party[p] != NULL; p++) {
        if (strstr(c->party[p], "ltake") != NULL ||
            strstr(c->party[p], "rtake") != NULL)
            return true;
    }
    return false;
}

static bool set_up(const struct interleave_case *c)
{
    struct schedule alone = {.steps = 1, .victim = NOBODY};
    struct reference none = {.victim = NOBODY};

    memset(&run, 0, sizeof(run));
    run.c = c;
    run.world.worker = worker;
    run.reference = mmap(NULL, REFERENCES_MAX * sizeof(*run.reference),
                         PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                         -1, 0);
    if (run.reference == MAP_FAILED || !parse_parties() || !build())
        return false;
    run.deaths_matter = run.world.queue != NULL || run.world.leader != NULL ||
                        run.world.mailbox != NULL || run.world.topic != NULL ||
                        any_leases(c);
    if (!all_orders(&none))
        return false;
    for (uint32_t p = 0; p < run.parties; p++) {
        alone.who[0] = p;
        alone.accesses[0] = PARTY_UNLIMITED;
        run.solo[p] = run_schedule(&alone);
    }
    return true;
}

static void tear_down(void)
{
    if (run.world.segment != NULL)
        (void)shd_segment_close(run.world.segment);
    free(run.image);
    if (run.reference != NULL && run.reference != MAP_FAILED)
        (void)munmap(run.reference, REFERENCES_MAX * sizeof(*run.reference));
}

static bool run_case(const struct interleave_case *c)
{
    bool good = set_up(c);

    if (!good) {
        printf("    could not be set up: %s\n", shd_last_error());
    } else {
        one_change();
        for (uint32_t a = 0; a < run.parties; a++) {
            for (uint32_t b = 0; b < run.parties; b++) {
                if (a != b)
                    two_changes(a, b);
            }
        }
        sample(3, full ? SAMPLED_FULL : SAMPLED_THREE);
        good = run.failures == 0;
    }
    printf("%s  %-44s %7" PRIu64 " schedules, %7" PRIu64
           " deaths, %8" PRIu64 " left out\n",
           good ? "ok    " : "FAILED", c->name, run.schedules, run.deaths,
           run.left_out);
    fflush(stdout);
    tear_down();
    return good;
}

static const struct interleave_case *find(const char *name)
{
    for (size_t i = 0; i < CASE_COUNT; i++) {
        if (strcmp(CASES[i].name, name) == 0)
            return &CASES[i];
    }
    return NULL;
}

/* ---- the command ----------------------------------------------------------------- */

static bool parse_schedule(const char *text, struct schedule *s)
{
    memset(s, 0, sizeof(*s));
    s->victim = NOBODY;
    for (const char *p = text; p != NULL && *p != '\0';) {
        if (sscanf(p, "kill:%u", &s->victim) != 1) {
            if (s->steps == STEPS_MAX ||
                sscanf(p, "%u:%" SCNu64, &s->who[s->steps],
                       &s->accesses[s->steps]) != 2 ||
                s->who[s->steps] >= PARTIES_MAX)
                return false;
            s->steps++;
        }
        p = strchr(p, ',');
        p += p != NULL;
    }
    return s->victim == NOBODY || s->victim < PARTIES_MAX;
}

static int repeat(const char *name, const char *text)
{
    const struct interleave_case *c = find(name);
    struct schedule s;

    if (c == NULL || !parse_schedule(text, &s)) {
        fprintf(stderr, "interleave: no such case, or a bad schedule "
                        "(WHO:ACCESSES,...[,kill:WHO])\n");
        return 2;
    }
    if (!set_up(c)) {
        printf("could not be set up: %s\n", shd_last_error());
        return 1;
    }
    (void)run_schedule(&s);
    printf("%u passed, %u failed\n", run.failures == 0, run.failures > 0);
    return run.failures > 0;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: interleave [--full] [--seed N] [--part I/N] "
            "[--case NAME [--schedule S]]\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *only = NULL, *schedule = NULL;
    uint32_t part = 0, parts = 1, good = 0, bad = 0;
    uint64_t schedules = 0, deaths = 0, left_out = 0;

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(argv[i], "--full") == 0)
            full = true;
        else if (value == NULL)
            return usage();
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--case") == 0)
            only = argv[++i];
        else if (strcmp(argv[i], "--schedule") == 0)
            schedule = argv[++i];
        else if (strcmp(argv[i], "--part") == 0 &&
                 sscanf(value, "%u/%u", &part, &parts) == 2 && part < parts)
            i++;
        else
            return usage();
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (only != NULL && schedule != NULL)
        return repeat(only, schedule);
    for (size_t i = 0; i < CASE_COUNT; i++) {
        if (only != NULL ? strcmp(only, CASES[i].name) != 0
                         : i % parts != part)
            continue;
        if (run_case(&CASES[i]))
            good++;
        else
            bad++;
        schedules += run.schedules;
        deaths += run.deaths;
        left_out += run.left_out;
    }
    printf("%" PRIu64 " schedules, %" PRIu64 " of them with a death, %" PRIu64
           " with up to two changes of turn left out\n",
           schedules, deaths, left_out);
    printf("%u passed, %u failed\n", good, bad);
    return bad > 0 || good == 0;
}
