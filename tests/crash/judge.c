/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/crash/crash.h"
#include "tests/crash/script_ipc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what must hold ---------------- */

/* What the fingerprint leaves out, and may differ from state to state. */
void judge_mask(const struct run *r)
{
    const struct segment *s = &r->world.segment->segment;

    trace_unmask_all();
    for (uint32_t i = 0; i < s->locks_max; i++) {
        struct guard *g = guard_at(s, i);

        trace_mask(g, offsetof(struct guard, object));
        trace_mask(g->wait, sizeof(g->wait));
        trace_mask(&g->recoveries, 8);
        trace_mask(g->claims, sizeof(*g) - offsetof(struct guard, claims));
    }
}

/* For every state: what the fingerprint leaves out. */
static bool guards_are_quiet(struct run *r)
{
    const struct segment *s = &r->world.segment->segment;
    uint32_t n = catalogue_guards(s);

    for (uint32_t i = 0; i < n; i++) {
        const struct guard *g = guard_at(s, i);
        const char *what = NULL;
        char text[120];

        if (g->lock != 0)
            what = "is not free";
        else if (g->state != 0)
            what = "has a log that is not empty";
        else if ((g->seq & 1) != 0)
            what = "has an odd counter";
        else if (g->seq < r->seq[i])
            what = "has a counter that went back";
        else if (g->damaged != 0)
            what = "is said to be damaged";
        if (what == NULL)
            continue;
        snprintf(text, sizeof(text), "after recovery lock %u %s", i, what);
        crash_say(r, text);
        return false;
    }
    return true;
}

/* An even counter that readers may have seen just before the death. */
void judge_note_counters(struct run *r)
{
    const struct segment *s = &r->world.segment->segment;
    uint32_t n = catalogue_guards(s);

    /* Those that are made by whoever comes next begin. */
    memset(r->seq, 0, sizeof(r->seq));
    for (uint32_t i = 0; i < n && i < LOCKS_MAX; i++) {
        const struct guard *g = guard_at(s, i);

        r->seq[i] = g->seq + (g->seq & 1);
    }
}

bool judge_check(struct run *r, const char *when)
{
    char report[400] = "", what[500];
    int rc = shd_segment_check(r->world.segment, report, sizeof(report));

    if (rc == SHD_OK)
        return true;
    snprintf(what, sizeof(what), "%s, check gave %s: %s", when,
             shd_strerror_name(rc), report);
    crash_say(r, what);
    return false;
}

static bool workers_are_free(struct run *r)
{
    struct shd_worker_info info = {.struct_size = sizeof(info)};
    int rc;

    for (uint32_t i = 0;
         (rc = shd_worker_info(r->world.segment, i, &info)) != SHD_INVAL;
         i++) {
        if (rc == SHD_OK && info.state != SHD_WORKER_ALIVE) {
            char what[160];

            snprintf(what, sizeof(what),
                     "slot %" PRIu32 " is still held by a dead worker, "
                     "incarnation %" PRIx64,
                     i, info.incarnation);
            crash_say(r, what);
            return false;
        }
    }
    return true;
}

/* Incarnations that are neither in a slot nor counted as dead. */
uint64_t judge_workers_left(const struct run *r)
{
    const struct segment *s = &r->world.segment->segment;
    const struct segment_header *h = segment_header(s);
    const struct registry_slot *slot =
        segment_at(s, s->workers_at, s->workers_max * sizeof(*slot));
    uint64_t n = h->incarnations - h->deaths;

    for (uint32_t i = 0; i < s->workers_max; i++)
        n -= slot[i].incarnation != 0;
    return n;
}

static bool workers_add_up(struct run *r)
{
    uint64_t n = judge_workers_left(r);
    bool leaves = strncmp(r->operation, "leave", 5) == 0;
    char what[120];

    if (n == r->left || (leaves && n == r->left + 1))
        return true;
    snprintf(what, sizeof(what),
             "%" PRIu64 " workers have left instead of %" PRIu64
             ": one was freed and not counted, or counted twice",
             n, r->left);
    crash_say(r, what);
    return false;
}

/* The other objects go too, and their room is there again. */
static bool room_is_back(struct run *r)
{
    static const char *const OTHERS[] = {"other", "next", "q", "d"};
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    shd_dict *d;
    int rc;

    for (size_t i = 0; i < 4; i++) {
        rc = shd_object_destroy(r->world.segment, OTHERS[i]);
        if (rc != SHD_OK && rc != SHD_NOTFOUND)
            return crash_failed_call(r, "destroy", rc);
    }
    if (r->room == 0)
        return true;
    o.capacity_bytes = r->room;
    rc = shd_dict_open(r->world.segment, "rest", &o, &d);
    if (rc != SHD_OK)
        return crash_failed_call(r, "open of all the room", rc);
    (void)shd_dict_close(d);
    rc = shd_dict_destroy(r->world.segment, "rest");
    return rc == SHD_OK ? true : crash_failed_call(r, "destroy", rc);
}

/* Drained, the queue is as it was made. */
static bool queue_is_empty(struct run *r, const char *name)
{
    struct shd_queue_info info = {.struct_size = sizeof(info)};
    shd_queue *q;
    int rc = shd_queue_open(r->world.segment, name, NULL, &q);

    if (rc == SHD_NOTFOUND)
        return true;
    if (rc == SHD_OK)
        rc = shd_queue_drain(q, 0, 0, NULL);
    if (rc == SHD_OK)
        rc = shd_queue_drain(q, SHD_MESSAGE_DEAD, 0, NULL);
    if (rc == SHD_OK)
        rc = shd_queue_info(q, &info);
    if (rc != SHD_OK)
        return crash_failed_call(r, "draining the queue", rc);
    (void)shd_queue_close(q);
    if (info.cells_used == 0 && info.bytes == 0)
        return judge_check(r, "with an empty queue");
    crash_say(r, "a leak: cells of the queue are in use");
    return false;
}

bool judge_nothing_leaks(struct run *r)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    char key[64];
    size_t len;
    struct shd_value v;
    int rc = shd_flush_all(r->world.dict);

    /* A resize that was cut off is finished by another one. */
    if (rc == SHD_OK)
        rc = shd_dict_resize(r->world.dict, r->c->kib * 1024ull);
    if (rc == SHD_OK)
        rc = shd_flush_expired(r->world.dict, 0, NULL);
    if (rc != SHD_OK)
        return crash_failed_call(r, "flush, resize", rc);
    rc = shd_scan(r->world.dict, NULL, 0, SHD_SCAN_EXPIRED, key, sizeof(key),
                  &len, NULL, 0, &v);
    if (rc != SHD_NOTFOUND)
        return crash_failed_call(r, "scan of nothing", rc);
    rc = shd_dict_info(r->world.dict, &info);
    if (rc != SHD_OK)
        return crash_failed_call(r, "dict_info", rc);
    if (info.resizing != 0) {
        crash_say(r, "a resize did not come to an end");
        return false;
    }
    if (info.free_bytes != r->world.fresh_free || info.entries != 0) {
        char what[120];

        snprintf(what, sizeof(what),
                 "a leak: %" PRIu64 " bytes free of %" PRIu64 ", %" PRIu64
                 " entries",
                 info.free_bytes, r->world.fresh_free, info.entries);
        crash_say(r, what);
        return false;
    }
    return queue_is_empty(r, "q") && queue_is_empty(r, "d") && room_is_back(r) && workers_are_free(r) &&
           judge_check(r, "when empty");
}

uint64_t judge_content(const struct state *s)
{
    uint64_t h = s->order * 31 + s->objects;

    for (uint32_t i = 0; i < s->entries; i++) {
        h = (h ^ s->entry[i].content) * 0x9e3779b97f4a7c15ull;
        for (const char *p = s->entry[i].key; *p != '\0'; p++)
            h = (h ^ (unsigned char)*p) * 0x100000001b3ull;
    }
    return h ^ h >> 32;
}

static bool is_before_or_after(struct run *r)
{
    char not_before[160], not_after[160], what[400];

    if ((r->c->flags & CASE_STEPS) != 0) {
        if (state_between(&r->now, &r->before, &r->after, what,
                          sizeof(what)) == 0)
            return true;
        crash_say(r, what);
        return false;
    }
    if (state_compare(&r->now, &r->before, not_before, sizeof(not_before)) ==
            0 ||
        state_compare(&r->now, &r->after, not_after, sizeof(not_after)) == 0)
        return true;
    snprintf(what, sizeof(what), "not as before (%s), nor as after (%s)",
             not_before, not_after);
    crash_say(r, what);
    return false;
}

static bool nothing_is_of_the_dead(struct run *r)
{
    const char *what = script_left_by_dead(&r->world);

    if (what != NULL)
        crash_say(r, what);
    return what == NULL;
}

static bool verify(struct run *r, uint64_t *content)
{
    if (!judge_check(r, "after recovery") || !nothing_is_of_the_dead(r))
        return false;
    if (state_read(&r->world, &r->now) != 0) {
        crash_say(r, "it cannot be read");
        return false;
    }
    *content = judge_content(&r->now);
    return workers_add_up(r) && is_before_or_after(r) &&
           judge_nothing_leaks(r);
}

/* ---- what is known ---------------- */

static bool is_same(struct fingerprint a, struct fingerprint b)
{
    return a.low == b.low && a.high == b.high;
}

static bool is_nothing(struct fingerprint f)
{
    return (f.low | f.high) == 0;
}

static struct known *slot_of(struct known *table, uint32_t room,
                             struct fingerprint f)
{
    uint32_t i = (uint32_t)(f.low >> 20) & (room - 1);

    while (!is_nothing(table[i].fingerprint) &&
           !is_same(table[i].fingerprint, f))
        i = (i + 1) & (room - 1);
    return &table[i];
}

static void learn(struct run *r, struct fingerprint f, uint64_t content,
                  uint64_t check)
{
    struct known *k;

    if (r->known_count * 2 >= r->known_room) {
        uint32_t room = r->known_room == 0 ? 1024 : r->known_room * 2;
        struct known *larger = calloc(room, sizeof(*larger));

        if (larger == NULL)
            return; /* it is checked again, no more */
        for (uint32_t i = 0; i < r->known_room; i++) {
            if (!is_nothing(r->known[i].fingerprint))
                *slot_of(larger, room, r->known[i].fingerprint) = r->known[i];
        }
        free(r->known);
        r->known = larger;
        r->known_room = room;
    }
    k = slot_of(r->known, r->known_room, f);
    r->known_count += is_nothing(k->fingerprint);
    k->fingerprint = f;
    k->content = content;
    k->check = check;
}

/* What it read is what the twin's state was looked at for. */
static void note_check(struct run *r, uint64_t name)
{
    struct twin *t = r->marking;
    uint32_t i = 0;

    if (t == NULL)
        return;
    while (i < t->checks_count && t->checks[i] != name)
        i++;
    if (i < t->checks_count)
        return;
    t->valid = t->valid && i < CHECKS_MAX;
    if (t->valid)
        t->checks[t->checks_count++] = name;
}

/* Of the segment and the kernel together. */
static struct fingerprint fingerprint_of(uint64_t kernel)
{
    struct fingerprint f = trace_fingerprint();

    f.low = (f.low + kernel) | 1;
    f.high ^= kernel;
    return f;
}

static bool is_known(struct run *r, struct fingerprint f, uint64_t *content)
{
    const struct known *k;

    if (r->known_room == 0)
        return false;
    k = slot_of(r->known, r->known_room, f);
    if (is_nothing(k->fingerprint))
        return false;
    crash_mine->known++;
    *content = k->content;
    note_check(r, k->check);
    return true;
}

/* Which of the kinds of checks is one with that kernel_state(); RECALL_KINDS:
 * none any more. */
static uint32_t kind_of(struct run *r, uint64_t kernel)
{
    uint32_t i = 0;

    while (i < r->kernels_count && r->kernels[i] != kernel)
        i++;
    if (i < RECALL_KINDS && i == r->kernels_count)
        r->kernels[r->kernels_count++] = kernel;
    return i;
}

/* Would a check read nothing but what one before has read? */
static bool check_is_known(struct run *r, uint64_t kernel, uint64_t *content,
                           uint64_t *name)
{
    struct recalled known;
    uint32_t kind = kind_of(r, kernel);

    if (crash_options.at.depth > 0 || kind == RECALL_KINDS ||
        !recall_find(r->checks, kind, &known) ||
        crash_random(r) % crash_options.doubt == 0)
        return false;
    crash_mine->checks.recalled++;
    *content = known.found[0];
    *name = known.name;
    note_check(r, known.name);
    return true;
}

bool judge_is_known(struct run *r, uint64_t kernel, uint64_t *content)
{
    struct fingerprint f = fingerprint_of(kernel);
    uint64_t name;

    if (!guards_are_quiet(r))
        return false;
    if (is_known(r, f, content))
        return true;
    if (!check_is_known(r, kernel, content, &name))
        return false;
    learn(r, f, *content, name);
    return true;
}

static bool check(struct run *r, struct trace *stores, uint64_t *content)
{
    bool good;

    crash_become(r, BUILDER);
    stores->count = 0;
    trace_record(stores);
    good = verify(r, content);
    trace_record(NULL);
    trace_rewind(stores, stores->count);
    return good;
}

/* Does the check that was run last find the same whatever is in the words that
 * it did not read? */
static bool depends_on_no_more(struct run *r, uint64_t content)
{
    uint64_t seed = crash_random(r), again = 0;
    bool good;

    if (crash_options.at.depth > 0 ||
        r->checks_disturbed++ % DISTURBED_OF != 0)
        return true;
    crash_mine->checks.disturbed++;
    trace_disturb(&r->check_reads, &r->checking, seed);
    good = check(r, &r->again, &again) && again == content;
    trace_disturb(&r->check_reads, &r->checking, seed);
    if (!good)
        crash_say(r, "the check finds something else where words differ that "
                     "it is not seen to read");
    return good;
}

/* A check was run, and all was good: is it as one before said, if one did?
 * Then it is known. */
static bool learn_check(struct run *r, uint64_t kernel, uint64_t content,
                        uint64_t *name)
{
    const uint64_t found[2] = {content, 0};
    uint32_t kind = kind_of(r, kernel);
    struct recalled known;

    if (kind == RECALL_KINDS)
        return true;
    if (recall_find(r->checks, kind, &known)) {
        crash_mine->checks.doubted++;
        *name = known.name;
        if (known.found[0] == content)
            return true;
        crash_say(r, "a check found something else than one before it that "
                     "read the same");
        return false;
    }
    if (recall_learn(r->checks, kind, &r->check_reads, NULL, found)) {
        if (recall_find(r->checks, kind, &known))
            *name = known.name;
        return true;
    }
    crash_say(r, "a check read another word than one before it that had read "
                 "the same until then");
    return false;
}

/* Looks at a recovered state, and leaves it as it was. */
bool judge(struct run *r, uint64_t *content)
{
    uint64_t kernel = kernel_state();
    struct fingerprint f = fingerprint_of(kernel);
    uint64_t name = 0;
    bool good;

    if (judge_is_known(r, kernel, content))
        return true;
    if (!guards_are_quiet(r))
        return false;
    crash_mine->checks.run++;
    trace_marks(NULL);
    trace_reads(&r->check_reads);
    good = check(r, &r->checking, content);
    trace_reads(NULL);
    if (r->marking != NULL)
        trace_marks(&r->marking->marks);
    if (!good)
        return false;
    if (!learn_check(r, kernel, *content, &name) ||
        !depends_on_no_more(r, *content))
        return false;
    learn(r, f, *content, name);
    note_check(r, name);
    return true;
}
