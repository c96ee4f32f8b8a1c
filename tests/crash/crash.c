/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every store of an operation, as the last thing a worker did; then every
 * store of the recovery from that, and of the recovery from that.
 *
 * For each case (cases.c) the structure is built, and the operation runs once
 * to its end while its stores are recorded. From then on nothing is run twice
 * to come to a state: any prefix of the recorded stores is put there, the
 * worker is declared dead (kernel.h: its locks are marked, its liveness byte
 * is free), and another worker comes next, in one of these ways:
 *
 *   0  it reaps
 *   1  it changes something under the same lock, and reaps
 *   2  it is new: it joins, reads, and reaps
 *   3  as 1, and the kernel has not marked the dead one's locks
 *
 * Its stores are recorded too: their prefixes are the next level's states, in
 * which it dies as well and a third worker comes next, and so on. After each
 *   - every lock is free, its log empty and its counter even, further on than
 *     before;
 *   - every invariant holds;
 *   - everything stored is as before the operation or as after it (key by key
 *     where the operation is a row of transactions by contract); once a prefix
 *     is long enough that it is as after, it is so for every longer one and in
 *     every way of coming next; and what one recovery decided, no other
 *     recovery decides otherwise;
 *   - with everything deleted, every byte is free again, and every dead
 *     worker's slot.
 * Each of these states is come to, but not all is run again for each:
 *   - A recovery does what it does because of the words that it reads. One
 *     that would read what one before has read, word for word, makes the same
 *     stores: they are put there, and it is not run (recall.h). What comes of
 *     them is a state like any other, and is looked at like any other.
 *   - Most states end in the same bytes as one before. A fingerprint of 128
 *     bits (over all words but those that only say who held a lock when, and
 *     the logs, which are empty) tells so, and they are not checked again. A
 *     check too depends on nothing but what it reads.
 *   - Where all of the second level is looked at: of two prefixes that differ
 *     only in words which nothing that followed the first has read (no
 *     recovery, no recovery of that, no check after either) the second is
 *     looked at itself, and what would follow it is counted (`alike`), not
 *     repeated.
 * Nobody is asked to believe that. One in 64 of what is known is run all the
 * same, and must come to the same. Recoveries and checks are run a second time
 * with other bytes in all words of the segment that they were not seen to
 * read, and must come to the same. Two that read the same must read on at the
 * same place. And with `--blind 4`, loads of 4 bytes are not seen, which must
 * be noticed: tests/crash/run looks that it is.
 *
 * Where the operation is a repair of what is damaged, there is nothing before
 * it to compare with: whoever comes next repairs it too, and what is stored in
 * the end is as after a repair that nothing cut off.
 *
 * What the process itself remembers (struct dict, the incarnation) is put back
 * before every run to what a worker has that attached before the operation.
 *
 * That the recorded stores are all there are is checked by comparing bytes;
 * that the deaths are as real ones, by killing children for real at some of
 * the same stores and comparing bytes. That this test can fail is shown by
 * tests/planted.
 */
#include "tests/crash/crash.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANG_S 120u

struct options crash_options;
struct shared *crash_shared;
struct totals *crash_mine;
time_t crash_deadline;

/* ---- all of them ---------------- */

static bool is_chosen(const struct crash_case *c)
{
    return crash_options.only == NULL ||
           strcmp(crash_options.only, c->name) == 0;
}

static bool is_number_chosen(uint32_t n)
{
    return crash_options.number < 0 || (uint32_t)crash_options.number == n;
}

/* Case number i of those chosen, each number counted; NULL: there are less. */
static const struct crash_case *case_number(uint32_t i, uint32_t *n)
{
    uint32_t at = 0;

    for (size_t c = 0; c < CASE_COUNT; c++) {
        for (*n = CASES[c].from; *n <= CASES[c].to; ++*n) {
            if (is_chosen(&CASES[c]) && is_number_chosen(*n) &&
                at++ % crash_options.parts == crash_options.part && i-- == 0)
                return &CASES[c];
        }
    }
    return NULL;
}

/* What a pass over a case does. With --seconds all are to have had their first
 * stores before one has all, and all have had all before there are samples of
 * what is deeper, at other places each time. */
static void options_of_pass(uint32_t pass)
{
    static const uint32_t OF[PASSES][LEVELS] = {
        {1, 160, 0}, {1, 1, 0}, {5, 5, 5}};

    if (crash_options.seconds > 0)
        memcpy(crash_options.every, OF[pass < PASSES ? pass : PASSES - 1],
               sizeof(OF[0]));
}

/* Takes a case of those that have had the fewest passes: the one with the
 * fewest stores. NULL: each has had all that it is to have. */
static struct turn *next_turn(uint32_t cases, uint32_t *pass)
{
    for (;;) {
        struct turn *best = NULL;

        for (uint32_t i = 0; i < cases; i++) {
            struct turn *t = &crash_shared->turn[i];

            if (best == NULL || t->passes < best->passes ||
                (t->passes == best->passes && t->stores < best->stores))
                best = t;
        }
        *pass = __atomic_load_n(&best->passes, __ATOMIC_RELAXED);
        if (*pass > 0 && crash_options.seconds == 0)
            return NULL;
        if (__atomic_compare_exchange_n(&best->passes, pass, *pass + 1, false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return best;
    }
}

/* What was done since `before` is of that pass of that case. */
static void account(struct turn *t, uint32_t pass, const struct totals *before,
                    bool good)
{
    for (uint32_t level = 0; level < LEVELS; level++) {
        t->states[pass][level] +=
            crash_mine->states[level] - before->states[level];
        t->left_out[pass][level] +=
            crash_mine->left_out[level] - before->left_out[level];
    }
    t->stores = crash_mine->stores - before->stores;
    t->whole[pass] |= good && !crash_is_over();
    t->failed |= !good;
}

static _Noreturn void job(uint32_t number, uint32_t cases)
{
    struct turn *t;
    uint32_t pass;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        _exit(1);
    crash_mine = &crash_shared->of[number];
    while (!crash_is_over() && (t = next_turn(cases, &pass)) != NULL) {
        struct totals before = *crash_mine;
        uint32_t n;
        const struct crash_case *c =
            case_number((uint32_t)(t - crash_shared->turn), &n);

        options_of_pass(pass);
        crash_mine->name = c->name;
        crash_mine->number = n;
        account(t, pass < PASSES ? pass : PASSES - 1, &before,
                states_run_case(c, n, pass));
        crash_mine->name = NULL;
    }
    exit(0); /* not _exit: a build that counts branches writes them down */
}

/* What a job was at when it ended itself, or was ended. */
static void tell_end(const struct totals *t, const char *how, int number)
{
    char at[80];

    crash_at_print(&t->at, at, sizeof(at));
    printf("  FAIL %s, number %u: %s %d\n"
           "      again: crash --only '%s' --number %u --at %s\n",
           t->name != NULL ? t->name : "(none)", t->number, how, number,
           t->name != NULL ? t->name : "", t->number, at);
}

static uint64_t progress(void)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < crash_options.jobs; i++)
        n += crash_shared->of[i].states[0] + crash_shared->of[i].states[1] +
             crash_shared->of[i].states[2] + crash_shared->of[i].kills +
             crash_shared->of[i].checks.run;
    return n;
}

/* Waits for all jobs; true if each came to its end by itself. */
static bool wait_for(const pid_t *pid)
{
    uint32_t left = crash_options.jobs;
    bool good = true;
    uint64_t before = 0;
    time_t moved = time(NULL);

    while (left > 0) {
        for (uint32_t i = 0; i < crash_options.jobs; i++) {
            int status;

            if (crash_shared->of[i].ended ||
                waitpid(pid[i], &status, WNOHANG) == 0)
                continue;
            crash_shared->of[i].ended = true;
            left--;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                continue;
            tell_end(&crash_shared->of[i], "ended by signal",
                     WIFSIGNALED(status) ? WTERMSIG(status) : 0);
            crash_shared->of[i].failed++;
            good = false;
        }
        if (progress() != before)
            moved = time(NULL);
        before = progress();
        if (time(NULL) - moved > HANG_S) {
            for (uint32_t i = 0; i < crash_options.jobs; i++) {
                if (!crash_shared->of[i].ended)
                    (void)kill(pid[i], SIGKILL);
            }
        }
        (void)usleep(20000);
    }
    return good;
}

static void add_effort(struct effort *sum, const struct effort *e)
{
    sum->run += e->run;
    sum->recalled += e->recalled;
    sum->doubted += e->doubted;
    sum->disturbed += e->disturbed;
}

/* The pass over all cases that counts: a later one that was cut off may have
 * done less than an earlier one. What is left out is of what there is, as far
 * as it is known. */
static void add_turn(struct totals *sum, const struct turn *t)
{
    uint64_t last = t->states[PASSES - 1][2];

    sum->passed += t->whole[0] && !t->failed;
    sum->failed += t->failed;
    sum->in_full += t->whole[crash_options.seconds > 0];
    sum->stores += t->stores;
    for (uint32_t level = 0; level < LEVELS; level++) {
        uint64_t most = 0, there = 0;

        for (uint32_t pass = 0; pass + 1 < PASSES; pass++) {
            uint64_t n = t->states[pass][level];

            most = n > most ? n : most;
            n += t->left_out[pass][level];
            there = n > there ? n : there;
        }
        sum->states[level] += most;
        sum->left_out[level] += there - most;
    }
    sum->states[2] += last;
}

static void add_up(struct totals *sum, uint32_t cases)
{
    memset(sum, 0, sizeof(*sum));
    for (uint32_t i = 0; i < cases; i++)
        add_turn(sum, &crash_shared->turn[i]);
    for (uint32_t i = 0; i < crash_options.jobs; i++) {
        const struct totals *t = &crash_shared->of[i];

        sum->alike += t->alike;
        sum->known += t->known;
        add_effort(&sum->recoveries, &t->recoveries);
        add_effort(&sum->checks, &t->checks);
        sum->kills += t->kills;
        sum->failed += t->failed;
    }
}

/* Of processor, of the jobs that have ended. */
static double used(void)
{
    struct rusage u;

    if (getrusage(RUSAGE_CHILDREN, &u) != 0)
        return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void row(const char *what, double n, const char *more)
{
    printf("  %-40s  %12.0f%s\n", what, n, more);
}

static void effort_rows(const char *what, const struct effort *e)
{
    char text[60], more[60];

    snprintf(text, sizeof(text), "%s that were run", what);
    snprintf(more, sizeof(more), "  (%" PRIu64 " though known)", e->doubted);
    row(text, (double)e->run, more);
    snprintf(text, sizeof(text), "%s known by all they read", what);
    row(text, (double)e->recalled, "");
    snprintf(text, sizeof(text), "%s run among other bytes", what);
    row(text, (double)e->disturbed, "");
}

static void print_table(const struct totals *sum, uint32_t cases, double took)
{
    double operations = 0, all = 0, processor = used();
    char what[60], more[60];

    for (size_t c = 0; c < CASE_COUNT; c++)
        operations += is_chosen(&CASES[c]);
    row("operations", operations, "");
    row("cases of them", cases, "");
    row("stores of the operations", (double)sum->stores, "");
    row("cases that there was no time for", cases - sum->passed - sum->failed,
        "");
    if (crash_options.every[1] == 1 || crash_options.seconds > 0)
        row("cases two deep in full", sum->in_full, "");
    for (uint32_t level = 0; level < LEVELS; level++) {
        all += (double)sum->states[level];
        snprintf(what, sizeof(what), "states after %u death%s", level + 1,
                 level == 0 ? "" : "s");
        snprintf(more, sizeof(more), "  (%" PRIu64 " left out)",
                 sum->left_out[level]);
        row(what, (double)sum->states[level],
            level + 1 < LEVELS ? more : "  (a sample)");
    }
    row("states", all, "");
    row("alike in all that is read after them", (double)sum->alike, "");
    effort_rows("recoveries", &sum->recoveries);
    row("states whose bytes were known", (double)sum->known, "");
    effort_rows("checks", &sum->checks);
    row("states compared with real deaths", (double)sum->kills, "");
    row("seconds", took, "");
    row("seconds of processor", processor, "");
    row("states a second of processor", all / (processor > 0 ? processor : 1),
        "");
}

static double seconds(void)
{
    struct timespec t;

    (void)timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The jobs stop where they are; what they have done is still told. */
static void interrupt(int signal)
{
    (void)signal;
    crash_shared->interrupted = true;
}

static bool run_all(void)
{
    struct totals sum;
    pid_t pid[JOBS_MAX];
    uint32_t cases = 0, n;
    double start = seconds();
    bool good;

    while (case_number(cases, &n) != NULL)
        cases++;
    if (cases == 0) {
        printf("  there is no such case\n0 passed, 1 failed\n");
        return false;
    }
    crash_shared =
        mmap(NULL, sizeof(*crash_shared) + cases * sizeof(struct turn),
             PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (crash_shared == MAP_FAILED) {
        perror("mmap");
        return false;
    }
    crash_deadline = time(NULL) + crash_options.seconds;
    (void)signal(SIGTERM, interrupt);
    (void)signal(SIGINT, interrupt);
    for (uint32_t i = 0; i < crash_options.jobs; i++) {
        fflush(stdout);
        pid[i] = fork();
        if (pid[i] < 0) {
            perror("fork");
            exit(1);
        }
        if (pid[i] == 0)
            job(i, cases);
    }
    good = wait_for(pid);
    add_up(&sum, cases);
    print_table(&sum, cases, seconds() - start);
    if (crash_shared->interrupted) {
        printf("  interrupted\n");
        sum.failed++;
    }
    printf("%u passed, %u failed\n", sum.passed, sum.failed);
    return good && sum.failed == 0 && sum.passed > 0;
}

/* ---- the command line ---------------- */

static int usage(void)
{
    fprintf(
        stderr,
        "usage: crash [--only CASE [--number N] [--at K.WAY[:K.WAY...]]]\n"
        "             [--full | --seconds N | --every A,B,C] [--jobs N]\n"
        "             [--kills N] [--part I/N] [--blind BYTES]\n"
        "  --at       only this prefix, of it that of the recovery, ...\n"
        "  --full     all prefixes two deep, a sample of the third level;\n"
        "             else each prefix of an operation in one way, in turn\n"
        "  --seconds  all cases one deep, then all of them two deep in full,\n"
        "             then other samples, as long as there is time\n"
        "  --every    A,B,C: of each level's prefixes one of so many, at\n"
        "             random; 0: none. As it is: 1,160,800; --full: 1,1,50\n"
        "  --jobs     processes at a time; the processors there are\n"
        "  --kills    real deaths to compare with, a case\n"
        "  --part     one in N of the cases, from number I on\n"
        "  --blind    a mistake of this test, which it must find: loads of so\n"
        "             many bytes are not seen\n");
    return 2;
}

static bool parse_at(const char *text)
{
    struct at *at = &crash_options.at;

    while (at->depth < LEVELS) {
        char *end;

        at->k[at->depth] = (uint32_t)strtoul(text, &end, 10);
        if (end == text || *end != '.')
            return false;
        text = end + 1;
        at->way[at->depth] = (uint32_t)strtoul(text, &end, 10);
        if (end == text || at->way[at->depth] >= WAYS)
            return false;
        at->depth++;
        if (*end == '\0')
            return true;
        if (*end != ':')
            return false;
        text = end + 1;
    }
    return false;
}

static bool parse_number(const char *text, uint32_t *n)
{
    char *end;

    *n = (uint32_t)strtoul(text, &end, 10);
    return end != text && *end == '\0';
}

/* I/N, I from 1 on */
static bool parse_part(const char *text)
{
    int n = 0;

    return sscanf(text, "%" SCNu32 "/%" SCNu32 "%n", &crash_options.part,
                  &crash_options.parts, &n) == 2 &&
           text[n] == '\0' && crash_options.part-- > 0 &&
           crash_options.part < crash_options.parts;
}

static bool parse_every(const char *text)
{
    int n = 0;

    return sscanf(text, "%" SCNu32 ",%" SCNu32 ",%" SCNu32 "%n",
                  &crash_options.every[0], &crash_options.every[1],
                  &crash_options.every[2], &n) == 3 &&
           text[n] == '\0' && crash_options.every[0] > 0;
}

static bool parse(int argc, char **argv)
{
    static const uint32_t FULL[LEVELS] = {1, 1, 50};
    static const uint32_t QUICK[LEVELS] = {1, 160, 800};
    uint32_t number;

    memcpy(crash_options.every, QUICK, sizeof(QUICK));
    crash_options.number = -1;
    crash_options.kills = 2;
    crash_options.one_way = true;
    crash_options.doubt = 64;
    crash_options.parts = 1;
    crash_options.jobs = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(name, "--full") == 0) {
            memcpy(crash_options.every, FULL, sizeof(FULL));
            crash_options.one_way = false;
            continue;
        }
        i++;
        if (strcmp(name, "--only") == 0 && *value != '\0')
            crash_options.only = value;
        else if (strcmp(name, "--at") == 0 && parse_at(value))
            crash_options.jobs = 1;
        else if (strcmp(name, "--part") == 0 && parse_part(value))
            continue;
        else if (strcmp(name, "--blind") == 0 && parse_number(value, &number))
            trace_blind(number);
        else if (strcmp(name, "--number") == 0 && parse_number(value, &number))
            crash_options.number = (int64_t)number;
        else if (strcmp(name, "--every") == 0 && parse_every(value))
            crash_options.one_way = false;
        else if (strcmp(name, "--seconds") == 0 &&
                 parse_number(value, &crash_options.seconds)) {
            memcpy(crash_options.every, FULL, sizeof(FULL));
            crash_options.one_way = false;
        } else if ((strcmp(name, "--jobs") != 0 ||
                    !parse_number(value, &crash_options.jobs)) &&
                   (strcmp(name, "--kills") != 0 ||
                    !parse_number(value, &crash_options.kills)))
            return false;
    }
    if (crash_options.jobs < 1 || crash_options.jobs > JOBS_MAX)
        crash_options.jobs = 1;
    return crash_options.at.depth == 0 || crash_options.only != NULL;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv))
        return usage();
    /* A worker has a logical id, so that `drain` means it. */
    if (setenv("SHDICT_WORKER", "1", 1) != 0)
        return 1;
    return run_all() ? 0 : 1;
}
