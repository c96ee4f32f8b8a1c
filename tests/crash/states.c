/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/crash/crash.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- states ---------------- */

/* A waiter that died may have had the wake-up that was another's. */
static bool all_are_kicked(struct run *r)
{
    const struct segment *s = &r->world.segment->segment;

    for (uint32_t i = 0; i < catalogue_guards(s); i++) {
        char what[80];

        if (kernel_kicked(&guard_at(s, i)->lock))
            continue;
        snprintf(what, sizeof(what),
                 "the reap woke not all that wait for "
                 "lock %u",
                 i);
        crash_say(r, what);
        return false;
    }
    return true;
}

/* Something under the queue's lock, if there is one. */
static int touch_queue(struct run *r)
{
    shd_queue *q;
    int rc = shd_queue_open(r->world.segment, "q", NULL, &q);

    if (rc != SHD_OK)
        return rc;
    rc = shd_queue_ack(q, 0);
    (void)shd_queue_close(q);
    return rc == SHD_LOST ? SHD_NOTFOUND : rc;
}

/* It may be found damaged until then. */
static int repair(struct run *r, int rc)
{
    if (rc == SHD_CORRUPT || rc == SHD_GONE)
        rc = SHD_NOTFOUND;
    if (rc == SHD_NOTFOUND) {
        rc = script_repair(&r->world);
        if (rc == SHD_OK)
            rc = SHD_NOTFOUND;
    }
    return rc;
}

/* Is who joins after a prefix of so many stores one that was forked? */
static bool is_forked(uint32_t k)
{
    return (k & 8) != 0;
}

static bool recover(struct run *r, enum way way)
{
    char text[8];
    struct shd_value v;
    int rc = SHD_NOTFOUND;

    if (way == CHANGE || way == UNMARKED) {
        rc = shd_delete(r->world.dict, "never there", 11);
        if (rc == SHD_NOTFOUND)
            rc = touch_queue(r);
    } else if (way == JOIN) {
        /* One that was forked looks for the dead when it joins. */
        r->world.segment->env.incarnation = 0;
        r->world.segment->forked = is_forked(r->at.k[r->at.depth - 1]);
        rc = shd_worker_join(r->world.segment, NULL);
        if (rc != SHD_OK)
            return crash_failed_call(r, "join", rc);
        rc = shd_get(r->world.dict, "never there", 11, text, sizeof(text), &v);
    }
    if ((r->c->flags & CASE_REPAIR) != 0)
        rc = repair(r, rc);
    if (rc != SHD_NOTFOUND)
        return crash_failed_call(r, "the next call", rc);
    rc = shd_reap(r->world.segment, NULL);
    return rc == SHD_OK ? all_are_kicked(r) : crash_failed_call(r, "reap", rc);
}

/* What one prefix and way decided must agree with the others'. */
static bool agrees(struct run *r, uint64_t content, bool whole)
{
    bool steps = (r->c->flags & CASE_STEPS) != 0;

    if (whole && content != r->content_after) {
        crash_say(r, "it had returned, and is undone");
        return false;
    }
    if (steps || r->content_before == r->content_after)
        return true;
    if (content == r->content_after) {
        r->committed = true;
    } else if (r->committed) {
        crash_say(r, "a shorter prefix was done, and this one is undone");
        return false;
    }
    return true;
}

/* ---- recoveries that are known ---------------- */

/* Who recovers, and in which way: all that it depends on besides the segment.
 */
static uint32_t kind_of(const struct run *r, uint32_t level, enum way way)
{
    return (level * WAYS + (uint32_t)way) * 2 +
           (way == JOIN && is_forked(r->at.k[level]));
}

/* Makes the stores that a recovery would make here; false, and the segment is
 * as it was: it must be run. */
static bool recalled(struct run *r, uint32_t kind, struct trace *next,
                     uint64_t *content)
{
    struct recalled known;
    bool good;

    if (crash_options.at.depth > 0 ||
        !recall_find(r->recoveries, kind, &known))
        return false;
    if (crash_random(r) % crash_options.doubt == 0)
        return false;
    trace_record(next);
    for (uint32_t i = 0; i < known.count; i++)
        trace_put(known.store[i].at, known.store[i].value,
                  known.store[i].flags);
    trace_record(NULL);
    good = known.found[0] == catalogue_guards(&r->world.segment->segment) &&
           judge_is_known(r, known.found[1], content);
    if (good) {
        crash_mine->recoveries.recalled++;
        if (r->marking != NULL &&
            !recall_mark(r->recoveries, known.name, &r->marking->marks))
            r->marking->valid = false;
        return true;
    }
    trace_rewind(next, next->count);
    next->count = 0;
    return false;
}

static bool same_stores(const struct trace *t, const struct recalled *known)
{
    if (t->count != known->count)
        return false;
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->word[i].at != known->store[i].at ||
            t->word[i].new != known->store[i].value ||
            t->word[i].flags != known->store[i].flags)
            return false;
    }
    return true;
}

/* A recovery was run, and made the stores of t: is it as what is known says,
 * if it says something? Then it is known. The stores have been taken back. */
static bool learn(struct run *r, uint32_t kind, const struct trace *t,
                  const uint64_t found[2])
{
    struct recalled known;

    if (recall_find(r->recoveries, kind, &known)) {
        crash_mine->recoveries.doubted++;
        if (same_stores(t, &known) && known.found[1] == found[1])
            return true;
        crash_say(r, "a recovery made other stores than one before it that "
                     "read the same");
        return false;
    }
    if (r->recovery_reads.unclear)
        return true;
    if (recall_learn(r->recoveries, kind, &r->recovery_reads, t, found))
        return true;
    crash_say(r, "a recovery read another word than one before it that had "
                 "read the same until then");
    return false;
}

/* The recovery that was run last, and made the stores of t: does it make them
 * whatever is in the words that it did not read? */
static bool depends_on_no_more(struct run *r, uint32_t level, enum way way,
                               const struct trace *t)
{
    struct trace *again = &r->again;
    const struct reads *reads = &r->recovery_reads;
    uint64_t seed = crash_random(r);
    bool good;

    if (r->recovery_reads.unclear || crash_options.at.depth > 0 ||
        r->disturbed[level][way]++ % DISTURBED_OF != 0)
        return true;
    crash_mine->recoveries.disturbed++;
    trace_disturb(reads, t, seed);
    again->count = 0;
    kernel_begin(crash_alive_after(level + 1));
    crash_become(r, RECOVERER + level);
    trace_record(again);
    good = recover(r, way);
    trace_record(NULL);
    trace_rewind(again, again->count);
    trace_disturb(reads, t, seed);
    if (good && again->count == t->count) {
        for (uint32_t i = 0; good && i < t->count; i++)
            good = again->word[i].at == t->word[i].at &&
                   again->word[i].flags == t->word[i].flags &&
                   again->word[i].new == t->word[i].new;
        if (good)
            return true;
    }
    crash_say(r, "a recovery does something else where words differ that it "
                 "is not seen to read");
    return false;
}

/* Whoever comes next in that way; its stores are left in the segment, and are
 * level + 1's. *run: the recovery was run. */
static bool next_comes(struct run *r, uint32_t level, enum way way,
                       uint64_t *content, uint64_t *kernel, bool *run)
{
    struct trace *next = &r->level[level + 1];
    bool good;

    *run = !recalled(r, kind_of(r, level, way), next, content);
    if (!*run)
        return true;
    crash_mine->recoveries.run++;
    trace_record(next);
    trace_reads(&r->recovery_reads);
    crash_become(r, RECOVERER + level);
    good = recover(r, way);
    trace_reads(NULL);
    trace_record(NULL);
    *kernel = kernel_state();
    return good && judge(r, content);
}

/* The segment is as after a prefix of level's stores: whoever did them dies,
 * and the next comes in that way. *content: what is stored then. */
static bool death(struct run *r, uint32_t level, uint32_t k, enum way way,
                  uint64_t *content)
{
    const struct segment *s = &r->world.segment->segment;
    struct trace *dying = &r->death[level], *next = &r->level[level + 1];
    uint64_t found[2];
    bool good, run;

    r->at.depth = level + 1;
    r->at.k[level] = k;
    r->at.way[level] = way;
    crash_mine->at = r->at;
    crash_mine->states[level]++;
    judge_note_counters(r);
    dying->count = next->count = 0;
    kernel_begin(crash_alive_after(level + 1));
    if (way != UNMARKED) {
        trace_record(dying);
        kernel_die(s, OPERATOR + level);
        trace_record(NULL);
    }
    good = next_comes(r, level, way, content, &found[1], &run);
    found[0] = catalogue_guards(s);
    trace_rewind(next, next->count);
    if (good && run)
        good = learn(r, kind_of(r, level, way), next, found) &&
               depends_on_no_more(r, level, way, next);
    return good;
}

static void undo_death(struct run *r, uint32_t level)
{
    trace_rewind(&r->death[level], r->death[level].count);
}

static bool wanted(struct run *r, uint32_t level, uint32_t k, enum way way)
{
    uint32_t every = crash_options.every[level];

    if (crash_options.at.depth > 0)
        return level < crash_options.at.depth &&
               crash_options.at.k[level] == k &&
               crash_options.at.way[level] == way;
    if (level > 0 &&
        way != ((level == 1 ? r->turn : r->at.k[level - 1]) + k) % WAYS)
        return false;
    if (level == 0 && crash_options.one_way && way != k % WAYS) {
        crash_mine->left_out[0] += r->first_pass;
        return false;
    }
    if (level == 1 && (r->c->flags & CASE_NEST) != 0 && every != 0)
        return true;
    if (every == 1 || (every > 1 && crash_random(r) % every == 0))
        return true;
    crash_mine->left_out[level] += r->first_pass;
    return false;
}

/* ---- states that are alike ---------------- */

static void mark_word(const struct twin *t, const void *p)
{
    const char *base = trace_at(0);

    t->marks.of[((const char *)p - base) / 8] = t->marks.mark;
}

/* What this test reads by itself. */
static void mark_guards(struct run *r, const struct twin *t)
{
    const struct segment *s = &r->world.segment->segment;

    mark_word(t, &segment_header(s)->guards_used);
    for (uint32_t i = 0; i < s->locks_max; i++) {
        const struct guard *g = guard_at(s, i);

        mark_word(t, &g->lock);
        mark_word(t, &g->seq);
        mark_word(t, &g->state);
        mark_word(t, &g->damaged);
    }
}

static bool has_memory(struct run *r, struct twin *t)
{
    size_t words = r->image_bytes / 8;

    if (t->marks.of == NULL)
        t->marks.of = calloc(words, sizeof(*t->marks.of));
    if (t->marks.except == NULL)
        t->marks.except = calloc(words, sizeof(*t->marks.except));
    if (r->stored == NULL)
        r->stored = calloc(words, sizeof(*r->stored));
    return t->marks.of != NULL && t->marks.except != NULL && r->stored != NULL;
}

/* A prefix of k stores is looked at that is like none before: all that is read
 * from now on is noted. */
static void begin_twin(struct run *r, struct twin *t, uint32_t k)
{
    t->valid = has_memory(r, t);
    if (!t->valid)
        return;
    t->marks.mark = t->marks.except_mark = ++r->marks;
    t->checks_count = 0;
    t->k = k;
    t->turn++;
    t->states = crash_mine->states[1];
    r->always_count = 0;
    mark_guards(r, t);
    r->marking = t;
    trace_marks(&t->marks);
}

/* Recovery has just been made from the twin's state. */
static void note_recovery(struct run *r)
{
    const struct trace *t = &r->level[1];

    if (t->count > r->always_room) {
        uint32_t *larger = realloc(r->always, t->count * sizeof(*larger));

        if (larger == NULL)
            return; /* there is no such word */
        r->always = larger;
        r->always_room = t->count;
    }
    for (uint32_t i = 0; i < t->count; i++)
        r->always[i] = t->word[i].at;
    r->always_count = t->count;
}

/* And from a state on the way of it, at that level: which words have not been
 * stored into there? */
static void note_other(struct run *r, uint32_t level)
{
    uint32_t stamp = ++r->marks, kept = 0;

    for (uint32_t i = 0; i <= level; i++) {
        const struct trace *t = &r->level[i + 1];
        uint32_t n = i < level ? r->at.k[i + 1] : t->count;

        for (uint32_t j = 0; j < n; j++)
            r->stored[t->word[j].at] = stamp;
    }
    for (uint32_t i = 0; i < r->always_count; i++) {
        if (r->stored[r->always[i]] == stamp)
            r->always[kept++] = r->always[i];
    }
    r->always_count = kept;
}

/* The checks have read what the recoveries left. */
static void mark_checks(struct run *r, struct twin *t)
{
    t->marks.except_mark = ++r->marks;
    for (uint32_t i = 0; i < r->always_count; i++)
        t->marks.except[r->always[i]] = t->marks.except_mark;
    for (uint32_t i = 0; i < t->checks_count && t->valid; i++)
        t->valid = recall_mark(r->checks, t->checks[i], &t->marks);
}

static void end_twin(struct run *r, struct twin *t, bool good,
                     uint64_t content)
{
    if (r->marking != t)
        return;
    r->marking = NULL;
    trace_marks(NULL);
    t->valid = t->valid && good;
    if (t->valid)
        mark_checks(r, t);
    t->content = content;
    t->states = crash_mine->states[1] - t->states;
}

/* Does the state after k stores differ from the twin's only in words that
 * nobody read there? Whatever follows is then as it was there. */
static bool is_alike(struct run *r, struct twin *t, uint32_t k)
{
    const struct trace *operation = &r->level[0];

    for (; t->valid && t->k < k; t->k++)
        t->valid = t->marks.of[operation->word[t->k].at] != t->marks.mark;
    return t->valid && crash_random(r) % crash_options.doubt != 0;
}

/* Samples of the third level are not taken twice. */
static void count_alike(const struct twin *t)
{
    crash_mine->states[1] += t->states;
    crash_mine->alike += t->states;
}

/* Only where all that follows is looked at. */
static bool has_twins(const struct run *r)
{
    return crash_options.at.depth == 0 &&
           (crash_options.every[1] == 1 ||
            (crash_options.every[1] != 0 && (r->c->flags & CASE_NEST) != 0));
}

/* One that was forked goes another way when it joins, see recover(). */
static struct twin *twin_of(struct run *r, uint32_t k, enum way way)
{
    return &r->twin[way == JOIN && is_forked(k) ? WAYS : way];
}

static bool goes_deeper(uint32_t level)
{
    if (level + 1 == LEVELS)
        return false;
    return crash_options.at.depth > 0 ? level + 1 < crash_options.at.depth
                                      : crash_options.every[level + 1] != 0;
}

static bool prefixes(struct run *r, uint32_t level, uint64_t decided);

/* One state in each way that is wanted. */
static bool ways(struct run *r, uint32_t level, uint32_t k, bool whole,
                 uint64_t decided)
{
    uint64_t content = 0, first = 0;
    bool any = false;

    for (enum way way = 0; way < WAYS; way++) {
        struct twin *twin = twin_of(r, k, way);
        bool good, alike = false;

        if (!wanted(r, level, k, way))
            continue;
        if (level == 0 && has_twins(r)) {
            alike = is_alike(r, twin, k);
            if (!alike)
                begin_twin(r, twin, k);
        }
        if (level == 0)
            r->turn = has_twins(r) ? twin->turn : k;
        good = death(r, level, k, way, &content);
        if (good && alike && content != twin->content) {
            crash_say(r, "it was taken for one that it is not like");
            good = false;
        }
        if (good && level == 0)
            good = agrees(r, content, whole);
        if (good &&
            ((level > 0 && content != decided) || (any && content != first))) {
            crash_say(r, level > 0
                             ? "another recovery decided otherwise"
                             : "another way of coming next decided otherwise");
            good = false;
        }
        first = content;
        any = true;
        if (good && alike)
            count_alike(twin);
        else if (good && r->marking != NULL && level == 0)
            note_recovery(r);
        else if (good && r->marking != NULL)
            note_other(r, level);
        if (good && !alike && goes_deeper(level)) {
            uint32_t depth = r->at.depth;

            /* The stores of this recovery are now the next level's. */
            good = prefixes(r, level + 1, content);
            r->at.depth = depth;
        }
        if (level == 0)
            end_twin(r, twin, good, content);
        undo_death(r, level);
        if (!good && r->failures > FAILURES_SHOWN)
            return false;
    }
    return true;
}

/* Words that change nothing are no states of their own. */
static bool is_state(const struct trace *t, uint32_t k, bool moved)
{
    return k == t->count || (moved && (t->word[k].flags & TRACE_STATE) != 0);
}

/* All prefixes of a level's stores. `decided`: what is stored in the end, if
 * a recovery has decided that already. */
static bool prefixes(struct run *r, uint32_t level, uint64_t decided)
{
    const struct trace *t = &r->level[level];
    bool good = true, moved = true;
    uint32_t k = 0;

    for (;;) {
        if (is_state(t, k, moved) && level == 0 && crash_is_over()) {
            crash_mine->left_out[0] += WAYS * r->first_pass;
            moved = false;
        } else if (is_state(t, k, moved)) {
            good = ways(r, level, k, k == t->count, decided);
            moved = false;
        }
        if (k == t->count || !good)
            break;
        moved |= t->word[k].old != t->word[k].new;
        if (level == 1 && r->marking != NULL)
            r->marking->marks.except[t->word[k].at] =
                r->marking->marks.except_mark;
        trace_apply(t, k++);
    }
    trace_rewind(t, k);
    return good;
}

/* ---- real deaths ---------------- */

static _Noreturn void killed_child(struct run *r, uint64_t point)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        _exit(1);
    (void)alarm(60);
    kernel_simulate(true, false);
    kernel_begin(crash_alive_after(0));
    crash_become(r, OPERATOR);
    script_seed(SEED);
    trace_begin(point, NULL);
    (void)script_run(&r->world, r->operation);
    _exit(2);
}

/* The first byte that differs; image_bytes if none does. */
static size_t difference(const struct run *r, const unsigned char *a,
                         const unsigned char *b)
{
    for (size_t i = 0; i < r->image_bytes; i += 4) {
        if (memcmp(a + i, b + i, 4) != 0)
            return i;
    }
    return r->image_bytes;
}

/* Is a real death before word k of the operation, which begins a point, as a
 * declared one? */
static bool real_death(struct run *r, uint32_t k, uint64_t point)
{
    const struct segment *s = &r->world.segment->segment;
    struct trace *dying = &r->death[0];
    int status = 0;
    size_t at;
    pid_t pid;

    for (uint32_t i = 0; i < k; i++)
        trace_apply(&r->level[0], i);
    dying->count = 0;
    trace_record(dying);
    kernel_die(s, OPERATOR);
    trace_record(NULL);
    crash_keep(r, r->image2);
    trace_rewind(dying, dying->count);
    trace_rewind(&r->level[0], k);

    r->at = (struct at){.depth = 1, .k = {k}};
    crash_mine->at = r->at;
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        killed_child(r, point);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) ||
        WTERMSIG(status) != SIGKILL) {
        crash_say(r, "a real worker did not come to this store");
        crash_put_back(r, r->image);
        return false;
    }
    crash_mine->kills++;
    at = difference(r, s->base, r->image2);
    crash_put_back(r, r->image);
    if (at != r->image_bytes) {
        char what[100];

        snprintf(what, sizeof(what),
                 "a real death leaves another byte %zu than a declared one",
                 at);
        crash_say(r, what);
    }
    return at == r->image_bytes;
}

static bool real_deaths(struct run *r)
{
    const struct trace *t = &r->level[0];
    uint32_t points = 0;
    bool good = true;

    for (uint32_t k = 0; k < t->count; k++)
        points += (t->word[k].flags & TRACE_POINT) != 0;
    for (uint32_t n = 0; good && points > 0 && n < crash_options.kills; n++) {
        uint64_t point = 1 + crash_random(r) % points, seen = 0;
        uint32_t k = 0;

        while ((seen += (t->word[k].flags & TRACE_POINT) != 0) < point)
            k++;
        good = real_death(r, k, point);
    }
    return good;
}

/* ---- cases ---------------- */

/* What is stored now, in *s; the segment stays as it is. */
static bool look(struct run *r, struct state *s, bool empty)
{
    bool good;

    kernel_begin(crash_alive_after(1));
    r->checking.count = 0;
    trace_record(&r->checking);
    crash_become(r, RECOVERER);
    good = recover(r, CHANGE) && judge_check(r, "uncut") &&
           state_read(&r->world, s) == 0 && (!empty || judge_nothing_leaks(r));
    trace_record(NULL);
    trace_rewind(&r->checking, r->checking.count);
    return good;
}

static bool is_image(const struct run *r, const unsigned char *image)
{
    return memcmp(r->world.segment->segment.base, image, r->image_bytes) == 0;
}

/* Runs the operation once, recording, and takes it back. */
static bool record(struct run *r)
{
    struct trace *t = &r->level[0];
    bool good;

    script_seed(SEED);
    kernel_begin(crash_alive_after(0));
    crash_become(r, OPERATOR);
    trace_record(t);
    good = script_run(&r->world, r->operation) == 0;
    trace_record(NULL);
    if (!good)
        return false;
    crash_keep(r, r->image2);
    trace_rewind(t, t->count);
    if (!is_image(r, r->image)) {
        crash_say(r, "it stored something that was not recorded");
        return false;
    }
    for (uint32_t i = 0; i < t->count; i++) {
        crash_mine->stores += (t->word[i].flags & TRACE_STATE) != 0;
        trace_apply(t, i);
    }
    if (!is_image(r, r->image2)) {
        crash_say(r, "the recorded stores are not what it did");
        return false;
    }
    good = look(r, &r->after, true);
    trace_rewind(t, t->count);
    return good;
}

static bool prepare(struct run *r)
{
    char why[200];
    bool same;

    if (!crash_build(r)) {
        printf("    it could not be built: %s\n", shd_last_error());
        return false;
    }
    trace_segment(r->world.segment->segment.base, r->image_bytes);
    crash_measure_room(r);
    /* Else its values would depend on the case before. */
    script_seed(0);
    r->world.holder = r->incarnation[OPERATOR];
    if (script_run(&r->world, r->setup) != 0)
        return false;
    r->world.holder = 0;
    crash_keep(r, r->image);
    r->left = judge_workers_left(r);
    r->dict = r->world.dict->dict;
    r->dict.pages.state = PAGES_STATE_UNSEEN;
    r->dict.pages.seen = 0;
    r->dict.pages.nodes.end = r->dict.pages.at;
    r->dict.pages.full_below = 0;
    r->dict.pages.trusted = 0;
    r->dict.pages.recents = 0;
    r->dict.pages.found = 0;
    kernel_simulate(true, true);
    judge_mask(r);
    if (((r->c->flags & CASE_REPAIR) == 0 && !look(r, &r->before, false)) ||
        !record(r))
        return false;
    if ((r->c->flags & CASE_REPAIR) != 0)
        r->before = r->after;
    r->content_before = judge_content(&r->before);
    r->content_after = judge_content(&r->after);
    if (r->level[0].count == 0 && (r->c->flags & CASE_SAME) == 0) {
        crash_say(r, "it stores nothing");
        return false;
    }
    same = state_compare(&r->before, &r->after, why, sizeof(why)) == 0;
    if (same != ((r->c->flags & (CASE_SAME | CASE_REPAIR)) != 0)) {
        crash_say(r, same ? "it changes nothing" : why);
        return false;
    }
    return true;
}

static void substitute(char *to, size_t size, const char *from, uint32_t n)
{
    size_t at = 0;

    for (; *from != '\0' && at + 12 < size; from++) {
        if (*from == '#')
            at += (size_t)snprintf(to + at, size - at, "%" PRIu32, n);
        else
            to[at++] = *from;
    }
    to[at] = '\0';
}

/* True if nothing was found. */
bool states_run_case(const struct crash_case *c, uint32_t n, uint32_t pass)
{
    struct run *r = calloc(1, sizeof(*r));
    bool good;

    if (r == NULL)
        return false;
    r->c = c;
    r->n = n;
    r->first_pass = pass + 1 < PASSES;
    r->recoveries = recall_new();
    r->checks = recall_new();
    if (r->recoveries == NULL || r->checks == NULL) {
        recall_free(r->recoveries);
        free(r);
        return false;
    }
    r->random = (pass + 1) * 0x9e3779b97f4a7c15ull | 1;
    substitute(r->setup, sizeof(r->setup), c->setup, n);
    substitute(r->operation, sizeof(r->operation), c->operation, n);
    good =
        prepare(r) && real_deaths(r) && prefixes(r, 0, 0) && r->failures == 0;
    if (!good)
        printf("  FAIL %s, number %u\n", c->name, n);
    fflush(stdout);
    crash_tear_down(r);
    free(r);
    return good;
}
