/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every instruction of the released library that changes a segment, as the
 * last thing a worker did.
 *
 * tests/crash cuts operations off at the stores of the source; here it is
 * those of the binary: in the order the optimizer has put them, merged or made
 * into vectors, and those of libc's memcpy and mutexes.
 *
 * For each case of tests/crash/cases.c: the structure is built in segment A. A
 * child registers as a worker and runs the operation, and stepping.h keeps a
 * journal of what each instruction changed. From that journal, for each of
 * these instructions: segment B gets the bytes as they were behind it, with
 * the locks marked as the kernel marks those of the dead. This process, a live
 * worker of B, comes next, by the lock's ordinary way or by a reap. Then
 *   - every invariant holds, and no worker's slot but ours is taken;
 *   - everything stored is as before the operation or as after it (key by key
 *     where the operation is a row of transactions by contract), and never
 *     again as before once it was as after;
 *   - behind the last one it is as after the operation;
 *   - with everything deleted, every byte is free again.
 *
 * Recoveries are stepped through in the same way: A gets the bytes, a process
 * recovers, and for each of its instructions this one comes third.
 *
 * That the bytes are the right ones is shown in two ways: some of the workers
 * are really killed, and the kernel must leave what was computed; and some
 * operations are stepped through by ptrace, instruction for instruction, which
 * must give the same journal.
 */
#include "tests/step/step.h"
#include "tests/crash/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FAILURES_SHOWN 3u

/* Without --full: so many of 100 cases, other ones for each build. */
#define SHARE 53u
/* Without --full, about so many a case, by the seed: states (also those of a
 * recovery), and recoveries that are stepped through. Always the first and
 * last ones. */
#define STATES 120u
#define STATES_EDGE 30u
#define RECOVERIES 2u
#define ONE_REFERENCE_IN 40u
/* With --full: recoveries where neither this instruction nor the one before
 * touched a guard. They fill memory that nothing leads to. */
#define ONE_FILLING_IN 64u
/* Always: of the states of recoveries, those whose recovery is again. */
#define ONE_SECOND_IN 2000u
#define REFERENCE_WRITES 1500u /* longer ones are not compared */

struct told *told;
static const char *build_name = "?", *only_case;
static uint64_t seed = 1, share = SHARE, only[DEPTH_MAX];
static bool full, quiet, until_found, only_reference;

extern const char __executable_start, etext; /* the linker's */

static void say_where(const struct run *r)
{
    uint64_t start = (uint64_t)(uintptr_t)&__executable_start;

    if (told->at[0] != 0 && told->ip >= start &&
        told->ip < (uint64_t)(uintptr_t)&etext)
        printf("    behind the instruction at %#" PRIx64
               " (addr2line -e build/step-%s/tests/step/step)\n",
               told->ip - start, build_name);
    printf("    again: tests/step/run --build %s --case \"%s\"", build_name,
           r->name);
    if (seed != 1)
        printf(" --seed %" PRIu64, seed);
    if (full && told->at[0] == 0)
        printf(" --full");
    for (unsigned i = 0; i <= told->depth && told->at[i] != 0; i++)
        printf("%s%" PRIu64, i == 0 ? " --instruction " : ",", told->at[i]);
    printf("\n");
}

void step_say(struct run *r, const char *what)
{
    if (!told->failed) {
        snprintf(told->what, sizeof(told->what), "%s", what);
        told->found_at = told->at[0];
    }
    told->failed = true;
    if (quiet || ++r->failures > FAILURES_SHOWN)
        return;
    printf("    \"%s\" after \"%s\": %s\n", r->operation, r->setup, what);
    say_where(r);
    fflush(stdout);
}

/* So many of so many, and the same ones for the same seed, build, case and
 * place. */
static bool chosen(const struct run *r, uint64_t of, uint64_t place,
                   uint64_t many)
{
    uint64_t h = XXH3_64bits_withSeed(r->name, strlen(r->name), seed);

    h = XXH3_64bits_withSeed(build_name, strlen(build_name), h + place);
    return h % of < many;
}

/* ---- two segments ------------------------------------------------------ */

static bool make_segment(struct run *r, struct world *w)
{
    struct shd_segment_options so = {.struct_size = sizeof(so)};
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    struct segment *s;

    so.size_bytes = (r->c->kib * 2 + 256) * 1024ull;
    so.workers_max = 8;
    so.objects_max = 4;
    /* The registry's, the catalogue's, those of this dict and two others. */
    so.locks_max = 4 + (r->c->shards != 0 ? r->c->shards : 1);
    if (shd_segment_create(NULL, &so, &w->segment) != SHD_OK)
        return false;
    s = &w->segment->segment;
    s->hash_seed = 7;
    segment_header(s)->hash_seed = 7;
    o.capacity_bytes = r->c->kib * 1024ull;
    o.capacity_max_bytes = r->c->kib * 2048ull;
    o.shards = r->c->shards;
    o.entries_hint = r->c->hint;
    /* The one who comes next is a worker, in A as in B, for the bytes of A
     * will be those of B. */
    if (shd_worker_join(w->segment, NULL) != SHD_OK ||
        shd_dict_open(w->segment, "crash", &o, &w->dict) != SHD_OK ||
        shd_dict_info(w->dict, &info) != SHD_OK)
        return false;
    r->fresh_free = info.free_bytes;
    r->bytes = s->size;
    return segment_commit(s, 0, s->size) == SHD_OK;
}

unsigned char *step_bytes(const struct world *w)
{
    return w->segment->segment.base;
}

static bool prepare_memory(struct run *r)
{
    for (unsigned i = 0; i < DEPTH_MAX; i++) {
        struct level *l = &r->level[i];

        l->image = calloc(1, r->bytes);
        l->now = calloc(1, r->bytes);
        l->journal = stepping_journal_new();
        if (l->image == NULL || l->now == NULL || l->journal == NULL)
            return false;
    }
    return true;
}

static size_t last_used(const unsigned char *p, size_t n)
{
    while (n > 0 && p[n - 1] == 0)
        n--;
    return (n + SEGMENT_PAGE - 1) & ~(size_t)(SEGMENT_PAGE - 1);
}

/* Beyond r->used there are only zeroes in all images. */
static void uses(struct run *r, size_t bytes)
{
    bytes = (bytes + SEGMENT_PAGE - 1) & ~(size_t)(SEGMENT_PAGE - 1);
    if (bytes > r->used)
        r->used = bytes;
}

/* ---- deaths ------------------------------------------------------------ */

static bool is_taken(const struct run *r, unsigned depth, uint64_t k)
{
    uint64_t all = r->level[depth].journal->moments;

    if (only[0] != 0)
        return only[depth] == 0 || only[depth] == k;
    return full || all <= STATES || k <= STATES_EDGE ||
           k + STATES_EDGE > all ||
           chosen(r, all, told->at[0] * 6007 + k, STATES - 2 * STATES_EDGE);
}

static bool goes_deeper(struct run *r, unsigned depth, uint64_t k)
{
    uint64_t place = told->at[0] * 7919 + k;

    if (depth + 1 == DEPTH_MAX)
        return false;
    if (only[0] != 0)
        return only[depth + 1] != 0;
    if (depth > 0)
        return chosen(r, ONE_SECOND_IN, place, 1);
    if (!full)
        return chosen(r, r->taken[0], place, RECOVERIES);
    return r->in_guard || r->was_in_guard ||
           chosen(r, ONE_FILLING_IN, place, 1);
}

/* The registry's lock is taken by joining, so where it was the dead one's,
 * joining is part of the recovery. */
static const char *recovery(const struct run *r, const unsigned char *image)
{
    const struct segment *s = &r->b.segment->segment;
    const struct guard *g = (const void *)(image + s->guards_at);

    return g[GUARD_REGISTRY].lock != 0
               ? "join;?del never-there;reap"
               : "?del never-there;reap";
}

static bool step_through(struct run *r, unsigned depth, const char *script,
                         unsigned must);

static bool die_at(struct run *r, unsigned depth, unsigned *must,
                   const struct stepping_moment *m, uint64_t k)
{
    struct level *l = &r->level[depth];
    unsigned verdict;
    bool good = true;

    memcpy(step_bytes(&r->b), l->now, r->used);
    stepping_die(m, step_bytes(&r->b));
    if (depth == 0)
        told->counts.states++;
    else
        told->counts.nested++;
    verdict = judge(r, (k + depth) % 2 != 0);
    if (verdict == 0)
        return false;
    if ((r->c->flags & CASE_STEPS) == 0 && (verdict & *must) == 0) {
        step_say(r, depth > 0
                        ? "the recovery has undone what was done, or done "
                          "what was undone"
                        : "what was done is undone");
        return false;
    }
    /* From the commit on it stays so. */
    if (depth == 0 && (verdict & IS_BEFORE) == 0)
        *must = IS_AFTER;
    if (goes_deeper(r, depth, k)) {
        struct level *next = l + 1;

        memcpy(next->image, l->now, r->used);
        stepping_die(m, next->image);
        good = step_through(r, depth + 1, recovery(r, next->image), verdict);
        told->depth = depth;
    }
    return good;
}

/* Runs the script in A from the level's image. */
bool step_record(struct run *r, unsigned depth, const char *script,
                 struct stepping_journal *j)
{
    const struct stepping_moment *m = NULL;
    uint64_t n;
    int rc;

    memcpy(step_bytes(&r->a), r->level[depth].image, r->used);
    stepping_record(j, r->level[depth].image);
    r->a.runs_as = depth == 0 ? r->workers[1] : 0;
    rc = script_run_apart(&r->a, script, 0, NULL, &n);
    r->a.runs_as = r->workers[1];
    if (rc != 0 || j->lost) {
        step_say(r, "stepping through it failed");
        return false;
    }
    while ((m = stepping_next(j, m)) != NULL) {
        for (uint32_t i = 0; i < m->changes; i++)
            uses(r, m->change[i].at + 8);
    }
    return true;
}

/* Where in a guard that is; or nowhere, far away. */
size_t step_in_guard(const struct run *r, size_t at)
{
    const struct segment *s = &r->a.segment->segment;
    size_t n = at - s->guards_at;

    if (at < s->guards_at || n >= s->locks_max * sizeof(struct guard))
        return SIZE_MAX;
    return n % sizeof(struct guard);
}

static void look_at_guard(struct run *r, const struct stepping_moment *m)
{
    r->was_in_guard = r->in_guard;
    r->in_guard = m->changes == 0;
    for (uint32_t i = 0; i < m->changes; i++)
        r->in_guard |= step_in_guard(r, m->change[i].at) != SIZE_MAX;
}

/* And has its worker die behind each instruction that changed something. */
static bool step_through(struct run *r, unsigned depth, const char *script,
                         unsigned must)
{
    struct level *l = &r->level[depth];
    const struct stepping_moment *m = NULL;
    uint64_t k = 0;
    bool good = true;

    told->depth = depth;
    if (!step_record(r, depth, script, l->journal))
        return false;
    told->counts.writes += l->journal->writes;
    if (depth == 0)
        told->counts.changes += l->journal->moments;
    r->taken[depth] = l->journal->moments;
    if (r->taken[depth] > STATES)
        r->taken[depth] = STATES;
    memcpy(l->now, l->image, r->used);
    while ((m = stepping_next(l->journal, m)) != NULL) {
        told->at[depth] = ++k;
        told->ip = m->ip;
        (void)alarm(300);
        stepping_apply(m, l->now);
        if (depth == 0)
            look_at_guard(r, m);
        if (is_taken(r, depth, k) && !die_at(r, depth, &must, m, k)) {
            good = false;
            if (quiet || r->failures > FAILURES_SHOWN)
                break;
        }
    }
    told->at[depth] = 0;
    return good;
}

/* ---- cases ------------------------------------------------------------- */

/* What is leased, awaited or subscribed to belongs to a worker: where the
 * scene has such, the one that will die has joined before. */
static bool belongs_to_worker(const struct crash_case *c)
{
    static const char *const WORDS[] = {
        ";as ",    "qack",    "qnack",   "qextend", "qcommit", "qcancel",
        "acquire", "request", "release", "cancel ", "extend ", "unsub ",
        "sub ",    ";qtake",  ";ltake",  ";rtake",  "lack",    "lnack"};

    for (size_t i = 0; i < sizeof(WORDS) / sizeof(WORDS[0]); i++) {
        if (strstr(c->setup, WORDS[i]) != NULL ||
            strstr(c->operation, WORDS[i]) != NULL)
            return true;
    }
    return false;
}

/* Its liveness byte is held by a file description of its own, until a process
 * comes that is this worker. */
static bool enlist(struct run *r, int *holder)
{
    shd_segment *h = r->a.segment;
    struct segment own = h->segment;
    uint32_t index;
    char link[40];

    r->workers[0] = h->env.incarnation;
    h->env.incarnation = 0;
    if (shd_worker_join(h, &r->workers[1]) != SHD_OK)
        return false;
    h->env.incarnation = r->workers[0];
    index = r->workers[1] & 0xffff;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", own.fd);
    own.fd = *holder = open(link, O_RDWR | O_CLOEXEC);
    return own.fd >= 0 &&
           segment_liveness_unlock(&h->segment, index) == SHD_OK &&
           segment_liveness_lock(&own, index) == SHD_OK;
}

static bool set_scene(struct run *r)
{
    int holder = -1;
    bool good;

    r->a.incarnation = r->workers;
    r->a.dies_at_end = true;
    if (belongs_to_worker(r->c) && !enlist(r, &holder))
        return false;
    r->a.holder = r->workers[1];
    good = script_run(&r->a, r->setup) == 0;
    r->a.holder = 0;
    r->a.runs_as = r->workers[1];
    if (holder >= 0)
        (void)close(holder);
    return good;
}

static bool prepare(struct run *r)
{
    struct level *l = &r->level[0];
    uint64_t n;

    if (!make_segment(r, &r->a) || !make_segment(r, &r->b) ||
        !prepare_memory(r)) {
        printf("    it could not be built: %s\n", shd_last_error());
        return false;
    }
    trace_segment(step_bytes(&r->a), r->bytes);
    if (!set_scene(r))
        return false;
    memcpy(l->image, step_bytes(&r->a), r->bytes);
    uses(r, last_used(l->image, r->bytes));
    /* It is run once to see what comes of it. */
    stepping_record(NULL, NULL);
    if (script_run_apart(&r->a, r->operation, 0, NULL, &n) != 0)
        return false;
    uses(r, last_used(step_bytes(&r->a), r->bytes));
    memcpy(l->now, step_bytes(&r->a), r->bytes);
    return judge_read(r, l->image, true, &r->before) &&
           judge_read(r, l->now, false, &r->after);
}

static bool same_is_same(struct run *r)
{
    char why[200];
    bool same = state_compare(&r->before, &r->after, why, sizeof(why)) == 0;

    if (same == ((r->c->flags & CASE_SAME) != 0))
        return true;
    step_say(r, same ? "it changes nothing" : why);
    return false;
}

/* Behind the last instruction everything has been done. */
static bool ends_as_after(struct run *r)
{
    memcpy(step_bytes(&r->b), r->level[0].now, r->used);
    if (!judge_read(r, r->level[0].now, true, &r->now))
        return false;
    if ((judge_compare(r) & IS_AFTER) != 0)
        return true;
    step_say(r, "when it had returned, it was not done");
    return false;
}

/* What was taken for unused by all must be so. */
static bool rest_is_unused(struct run *r)
{
    if (last_used(step_bytes(&r->b) + r->used, r->bytes - r->used) == 0)
        return true;
    step_say(r, "this test has missed a part of the segment");
    return false;
}

static void run_case_here(struct run *r)
{
    bool good = prepare(r) && same_is_same(r);

    if (!good)
        told->failed = true;
    if (!good)
        return;
    if (only_reference)
        good = step_record(r, 0, r->operation, r->level[0].journal);
    else
        good = step_through(r, 0, r->operation,
                            IS_BEFORE | IS_AFTER | IS_BETWEEN);
    if (good && only[0] != 0 && only[1] == 0)
        (void)truth_kill(r, only[0]);
    if (!good || only[0] != 0)
        return;
    if (!only_reference && !(ends_as_after(r) && rest_is_unused(r)))
        return;
    if (r->level[0].journal->moments == 0) {
        step_say(r, "it changes no byte");
        return;
    }
    if (!truth_kill_some(r, seed))
        return;
    if (only_reference || full || chosen(r, ONE_REFERENCE_IN, 0, 1))
        if (r->level[0].journal->writes <= REFERENCE_WRITES)
            (void)truth_by_ptrace(r);
}

static volatile sig_atomic_t interrupted;

static void interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static void substitute(char *to, size_t room, const char *from, uint32_t n)
{
    size_t at = 0;

    for (; *from != '\0' && at + 12 < room; from++) {
        if (*from == '#')
            at += (size_t)snprintf(to + at, room - at, "%" PRIu32, n);
        else
            to[at++] = *from;
    }
    to[at] = '\0';
}

static _Noreturn void case_process(struct run *r)
{
    (void)signal(SIGTERM, SIG_DFL);
    (void)signal(SIGINT, SIG_DFL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        _exit(1);
    run_case_here(r);
    fflush(stdout);
    /* The segments are anonymous, and end with this process. */
    _exit(told->failed ? 1 : 0);
}

/* In a process of its own: what a damaged segment does to it is told. */
static bool run_case(struct run *r)
{
    int status;
    pid_t pid;

    told->counts.cases++;
    told->failed = false;
    told->depth = 0;
    memset(told->at, 0, sizeof(told->at));
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        case_process(r);
    while (pid > 0 && waitpid(pid, &status, 0) != pid) {
        if (interrupted)
            (void)kill(pid, SIGKILL);
    }
    if (pid < 0 || interrupted) {
        printf("    %s\n", pid < 0 ? "no fork" : "interrupted");
        return false;
    }
    if (!WIFEXITED(status)) {
        char what[80];

        snprintf(what, sizeof(what),
                 "the process that came next died of signal %d",
                 WTERMSIG(status));
        r->failures = 0;
        step_say(r, what);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (!quiet)
        printf("  FAIL %s\n", r->name);
    return false;
}

static bool is_wanted(const struct run *r)
{
    if (only_case != NULL)
        return strcmp(only_case, r->name) == 0;
    return chosen(r, 100, 0, share);
}

/* False: enough. */
static bool run_number(struct run *r, const struct crash_case *c, uint32_t n,
                       uint64_t *failed)
{
    memset(r, 0, sizeof(*r));
    r->c = c;
    substitute(r->name, sizeof(r->name), c->name, n);
    substitute(r->setup, sizeof(r->setup), c->setup, n);
    substitute(r->operation, sizeof(r->operation), c->operation, n);
    if (!is_wanted(r) || run_case(r))
        return true;
    (*failed)++;
    if (until_found && told->failed)
        printf("  FOUND in \"%s\", change %" PRIu64 ": %s\n", r->name,
               told->found_at, told->what);
    return !interrupted && !until_found;
}

/* Which store of a subscription is its last one is told for the traced
 * library: what is a dead one's name here is not. Mail to the worker itself:
 * who asks the kernel about a lock of its own is told that it is free, so in
 * this process it is dead. So are answers that are cut off, and how far a
 * deletion came. And what is damaged has no state before. */
static bool is_for_traced(const struct crash_case *c)
{
    return strstr(c->setup, "dead 250 sub") != NULL ||
           strstr(c->setup, "post other 0") != NULL ||
           strstr(c->setup, "serve other") != NULL ||
           strstr(c->setup, "ltake a;dead # del") != NULL ||
           strstr(c->operation, "post other 0") != NULL ||
           (c->flags & CASE_REPAIR) != 0;
}

/* How many there are. */
static uint64_t run_all(uint64_t *failed)
{
    struct run *r = malloc(sizeof(*r));
    bool more = r != NULL;
    uint64_t all = 0;

    for (size_t i = 0; i < CASE_COUNT; i++) {
        const struct crash_case *c = &CASES[i];

        if (is_for_traced(c))
            continue;
        all += c->to - c->from + 1;
        for (uint32_t n = c->from; more && n <= c->to; n++)
            more = run_number(r, c, n, failed);
    }
    free(r);
    return all;
}

static int usage(void)
{
    fprintf(
        stderr,
        "usage: step [--build NAME] [--case CASE] [--instruction K[,J[,I]]]"
        "\n            [--full] [--share PERCENT] [--seed N] [--ptrace] "
        "\n            [--until-found]\n");
    return 2;
}

static bool numbers(const char *text)
{
    for (unsigned i = 0; i < DEPTH_MAX; i++) {
        char *end;

        only[i] = strtoull(text, &end, 10);
        if (only[i] == 0 || (*end != ',' && *end != '\0'))
            return false;
        if (*end == '\0')
            return true;
        text = end + 1;
    }
    return false;
}

static bool arguments(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(argv[i], "--full") == 0) {
            full = true;
            share = 100;
        } else if (strcmp(argv[i], "--ptrace") == 0)
            only_reference = true;
        else if (strcmp(argv[i], "--until-found") == 0)
            quiet = until_found = true;
        else if (value == NULL)
            return false;
        else if (strcmp(argv[i], "--build") == 0)
            build_name = argv[++i];
        else if (strcmp(argv[i], "--case") == 0)
            only_case = argv[++i];
        else if (strcmp(argv[i], "--share") == 0)
            share = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--instruction") != 0 || !numbers(argv[++i]))
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    uint64_t failed = 0, all, passed;
    const struct counts *c;

    if (!arguments(argc, argv))
        return usage();
    told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (told == MAP_FAILED)
        return 1;
    /* What has been covered is told all the same. */
    (void)sigaction(SIGTERM, &(struct sigaction){.sa_handler = interrupt},
                    NULL);
    (void)sigaction(SIGINT, &(struct sigaction){.sa_handler = interrupt},
                    NULL);
    all = run_all(&failed);
    c = &told->counts;
    passed = c->cases - failed;
    printf(
        "  %s: %" PRIu64 " of %" PRIu64 " cases, %" PRIu64
        " instructions that write stepped over; recovered from behind %" PRIu64
        " of the %" PRIu64 " that change something, and behind %" PRIu64
        " of recoveries; %" PRIu64 " outcomes differ; %" PRIu64
        " real deaths; %" PRIu64 " cases (%" PRIu64
        " instructions) by ptrace\n",
        build_name, c->cases, all, c->writes, c->states, c->changes, c->nested,
        c->distinct, c->kills, c->references, c->steps);
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}
