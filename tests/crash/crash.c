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
 * Most states end in the same bytes as one before. A fingerprint of the bytes
 * (64 bits, over all words but those that only say who held a lock when, and
 * the logs, which are empty) tells so, and the costly checks are not repeated
 * for them. Where only the contents of free cells are new they are repeated
 * for one state of 16; with --full for each.
 *
 * What the process itself remembers (struct dict, the incarnation) is put back
 * before every run to what a worker has that attached before the operation.
 *
 * That the recorded stores are all there are is checked by comparing bytes;
 * that the deaths are as real ones, by killing children for real at some of
 * the same stores and comparing bytes. That this test can fail is shown by
 * tests/planted.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/api/handle.h"
#include "tests/crash/cases.h"
#include "tests/crash/kernel.h"
#include "tests/crash/script.h"
#include "tests/crash/trace.h"

#define FAILURES_SHOWN 3u
#define WAYS 4u /* of coming next */
#define LEVELS 3u
#define JOBS_MAX 64u
#define WORKERS_MAX 12u
#define LOCKS_MAX 12u
#define HANG_S 120u
#define SEED 1000000u /* of the values of an operation */

enum { BUILDER, OPERATOR, RECOVERER }; /* and one recoverer a level */
enum way { REAP, CHANGE, JOIN, UNMARKED };

/* Where a state is: prefixes and ways, as --at tells and takes them. */
struct at {
    uint32_t depth; /* deaths */
    uint32_t k[LEVELS], way[LEVELS];
};

/* What a fingerprint is known to stand for. */
struct known {
    uint64_t fingerprint; /* 0: nothing */
    uint64_t content;
};

struct run {
    struct world world;
    const struct crash_case *c;
    uint32_t n;
    char setup[400], operation[160];
    unsigned char *image, *image2;
    size_t image_bytes;
    uint64_t incarnation[KERNEL_WORKERS];
    struct dict dict; /* as a worker has it that has just attached */
    int holder;       /* a file description with the others' bytes */
    struct state before, after, now;
    uint64_t content_before, content_after;
    uint64_t room; /* for another dict, bytes */
    uint64_t left; /* workers that have left, and did not die */
    uint64_t seq[LOCKS_MAX];
    struct trace level[LEVELS + 1], death[LEVELS], checking;
    struct known *known;
    uint32_t known_count, known_room;
    struct at at;
    bool committed, first_pass;
    unsigned failures;
    uint64_t random;
};

/* One job's figures, in memory that all share. */
struct totals {
    uint64_t stores, states[LEVELS], distinct, kills;
    uint64_t left_out[LEVELS];
    const char *name; /* of the case it works on, and where in it */
    uint32_t number;
    struct at at;
    uint32_t passed, failed;
    bool ended;
};

struct shared {
    uint32_t next;
    bool interrupted;
    struct totals of[JOBS_MAX];
};

struct options {
    const char *only;
    struct at at;
    int64_t number; /* -1: all */
    bool one_way; /* of each prefix of an operation, in turn; else all */
    uint32_t seconds, jobs, kills;
    uint32_t trust; /* of the states that differ from known ones in free cells
                       only, one of so many is checked in full; 1: all */
    uint32_t every[LEVELS]; /* one of so many prefixes of that level */
};

static struct options options;
static struct shared *shared;
static struct totals *mine;
static time_t deadline;

static uint64_t random_of(struct run *r)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return r->random;
}

static bool is_over(void)
{
    return shared->interrupted ||
           (options.seconds > 0 && time(NULL) >= deadline);
}

/* ---- what went wrong -------------------------------------------------------- */

static void at_print(const struct at *at, char *to, size_t size)
{
    size_t n = 0;

    to[0] = '\0';
    for (uint32_t i = 0; i < at->depth && n < size; i++)
        n += (size_t)snprintf(to + n, size - n, "%s%u.%u", i > 0 ? ":" : "",
                              at->k[i], at->way[i]);
}

static void say(struct run *r, const char *what)
{
    char at[80];

    if (r->failures++ >= FAILURES_SHOWN)
        return;
    at_print(&r->at, at, sizeof(at));
    printf("    \"%s\" after \"%s\": %s\n"
           "      again: crash --only '%s' --number %u --at %s\n",
           r->operation, r->setup, what, r->c->name, r->n,
           at[0] != '\0' ? at : "0.0");
    fflush(stdout);
}

static bool failed_call(struct run *r, const char *call, int rc)
{
    char what[700];

    snprintf(what, sizeof(what), "%s gave %s: %s", call,
             shd_strerror_name(rc), shd_last_error());
    say(r, what);
    return false;
}

/* ---- workers ---------------------------------------------------------------- */

/* The process becomes that worker, as it was before the operation. */
static void become(struct run *r, uint32_t worker)
{
    kernel_run(worker);
    r->world.segment->env.incarnation = r->incarnation[worker];
    r->world.segment->forked = false;
    r->world.dict->dict = r->dict;
}

/* A worker that joined before anything happened, and is alive throughout: its
 * byte is held by a file description of its own. */
static bool enlist(struct run *r, uint32_t worker)
{
    shd_segment *h = r->world.segment;
    uint64_t own = h->env.incarnation;
    struct segment holder = h->segment;
    uint32_t index;

    h->env.incarnation = 0;
    if (shd_worker_join(h, &r->incarnation[worker]) != SHD_OK)
        return false;
    h->env.incarnation = own;
    index = r->incarnation[worker] & 0xffff;
    holder.fd = r->holder;
    kernel_give_byte(index, worker);
    return segment_liveness_unlock(&h->segment, index) == SHD_OK &&
           segment_liveness_lock(&holder, index) == SHD_OK;
}

static bool joins_itself(const struct run *r)
{
    return strncmp(r->operation, "join", 4) == 0;
}

static bool enlist_all(struct run *r)
{
    char link[40];

    snprintf(link, sizeof(link), "/proc/self/fd/%d",
             r->world.segment->segment.fd);
    r->holder = open(link, O_RDWR | O_CLOEXEC);
    if (r->holder < 0 ||
        shd_worker_join(r->world.segment, &r->incarnation[BUILDER]) != SHD_OK)
        return false;
    kernel_forget_bytes();
    kernel_give_byte(r->incarnation[BUILDER] & 0xffff, BUILDER);
    for (uint32_t w = OPERATOR; w <= RECOVERER + LEVELS; w++) {
        if ((w != OPERATOR || !joins_itself(r)) && !enlist(r, w))
            return false;
    }
    return true;
}

/* All but those that died on the way to a state that deep. */
static uint32_t alive_after(uint32_t deaths)
{
    uint32_t all = (1u << KERNEL_WORKERS) - 1;

    return all & ~(((1u << deaths) - 1) << OPERATOR);
}

/* ---- building --------------------------------------------------------------- */

static bool build(struct run *r)
{
    struct shd_segment_options so = {.struct_size = sizeof(so)};
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    struct segment *s;

    so.size_bytes = (r->c->kib * 2 + 256) * 1024ull;
    so.workers_max = WORKERS_MAX;
    so.objects_max = 4;
    so.locks_max = LOCKS_MAX;
    if (shd_segment_create(NULL, &so, &r->world.segment) != SHD_OK)
        return false;
    s = &r->world.segment->segment;
    s->hash_seed = 7;
    segment_header(s)->hash_seed = 7;
    o.capacity_bytes = r->c->kib * 1024ull;
    o.capacity_max_bytes = r->c->kib * 2048ull;
    o.shards = r->c->shards;
    o.entries_hint = r->c->hint;
    if (shd_dict_open(r->world.segment, "crash", &o, &r->world.dict) !=
            SHD_OK ||
        shd_dict_info(r->world.dict, &info) != SHD_OK)
        return false;
    r->world.fresh_free = info.free_bytes;
    r->image_bytes = s->size;
    r->image = malloc(s->size);
    r->image2 = malloc(s->size);
    /* Images are written over all of it. */
    return r->image != NULL && r->image2 != NULL &&
           segment_commit(s, 0, s->size) == SHD_OK && enlist_all(r);
}

static void tear_down(struct run *r)
{
    kernel_simulate(false, false);
    if (r->world.segment != NULL)
        (void)shd_segment_close(r->world.segment);
    if (r->holder > 0)
        (void)close(r->holder);
    for (uint32_t i = 0; i <= LEVELS; i++)
        free(r->level[i].word);
    for (uint32_t i = 0; i < LEVELS; i++)
        free(r->death[i].word);
    free(r->checking.word);
    free(r->known);
    free(r->image);
    free(r->image2);
}

static void keep(const struct run *r, unsigned char *image)
{
    memcpy(image, r->world.segment->segment.base, r->image_bytes);
}

static void put_back(const struct run *r, const unsigned char *image)
{
    memcpy(r->world.segment->segment.base, image, r->image_bytes);
}

/* Capacity of the largest dict that can still be made. */
static void measure_room(struct run *r)
{
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    shd_dict *d;

    keep(r, r->image);
    for (uint64_t kib = r->c->kib + 256; kib >= 8; kib -= 4) {
        o.capacity_bytes = kib * 1024;
        if (shd_dict_open(r->world.segment, "rest", &o, &d) != SHD_OK)
            continue;
        r->room = o.capacity_bytes;
        (void)shd_dict_close(d);
        break;
    }
    put_back(r, r->image);
}

/* ---- what must hold --------------------------------------------------------- */

/* What the fingerprint leaves out, and may differ from state to state. */
static void mask(const struct run *r)
{
    const struct segment *s = &r->world.segment->segment;

    trace_unmask_all();
    for (uint32_t i = 0; i < s->locks_max; i++) {
        struct guard *g = guard_at(s, i);

        trace_mask(g, offsetof(struct guard, object));
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
        say(r, text);
        return false;
    }
    return true;
}

/* An even counter that readers may have seen just before the death. */
static void note_counters(struct run *r)
{
    const struct segment *s = &r->world.segment->segment;
    uint32_t n = catalogue_guards(s);

    for (uint32_t i = 0; i < n && i < LOCKS_MAX; i++) {
        const struct guard *g = guard_at(s, i);

        r->seq[i] = g->seq + (g->seq & 1);
    }
}

static bool check(struct run *r, const char *when)
{
    char report[400] = "", what[500];
    int rc = shd_segment_check(r->world.segment, report, sizeof(report));

    if (rc == SHD_OK)
        return true;
    snprintf(what, sizeof(what), "%s, check gave %s: %s", when,
             shd_strerror_name(rc), report);
    say(r, what);
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
                     "incarnation %" PRIx64, i, info.incarnation);
            say(r, what);
            return false;
        }
    }
    return true;
}

/* Incarnations that are neither in a slot nor counted as dead. */
static uint64_t workers_left(const struct run *r)
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
    uint64_t n = workers_left(r);
    bool leaves = strncmp(r->operation, "leave", 5) == 0;
    char what[120];

    if (n == r->left || (leaves && n == r->left + 1))
        return true;
    snprintf(what, sizeof(what),
             "%" PRIu64 " workers have left instead of %" PRIu64
             ": one was freed and not counted, or counted twice", n, r->left);
    say(r, what);
    return false;
}

/* The other dict goes too, and its room is there again. */
static bool room_is_back(struct run *r)
{
    static const char *const OTHERS[] = {"other", "next"};
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    shd_dict *d;
    int rc;

    for (size_t i = 0; i < 2; i++) {
        rc = shd_dict_destroy(r->world.segment, OTHERS[i]);
        if (rc != SHD_OK && rc != SHD_NOTFOUND)
            return failed_call(r, "destroy", rc);
    }
    if (r->room == 0)
        return true;
    o.capacity_bytes = r->room;
    rc = shd_dict_open(r->world.segment, "rest", &o, &d);
    if (rc != SHD_OK)
        return failed_call(r, "open of all the room", rc);
    (void)shd_dict_close(d);
    rc = shd_dict_destroy(r->world.segment, "rest");
    return rc == SHD_OK ? true : failed_call(r, "destroy", rc);
}

static bool nothing_leaks(struct run *r)
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
        return failed_call(r, "flush, resize", rc);
    rc = shd_scan(r->world.dict, NULL, 0, SHD_SCAN_EXPIRED, key, sizeof(key),
                  &len, NULL, 0, &v);
    if (rc != SHD_NOTFOUND)
        return failed_call(r, "scan of nothing", rc);
    rc = shd_dict_info(r->world.dict, &info);
    if (rc != SHD_OK)
        return failed_call(r, "dict_info", rc);
    if (info.resizing != 0) {
        say(r, "a resize did not come to an end");
        return false;
    }
    if (info.free_bytes != r->world.fresh_free || info.entries != 0) {
        char what[120];

        snprintf(what, sizeof(what),
                 "a leak: %" PRIu64 " bytes free of %" PRIu64
                 ", %" PRIu64 " entries", info.free_bytes,
                 r->world.fresh_free, info.entries);
        say(r, what);
        return false;
    }
    return room_is_back(r) && workers_are_free(r) && check(r, "when empty");
}

static uint64_t content_of(const struct state *s)
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
        say(r, what);
        return false;
    }
    if (state_compare(&r->now, &r->before, not_before,
                      sizeof(not_before)) == 0 ||
        state_compare(&r->now, &r->after, not_after, sizeof(not_after)) == 0)
        return true;
    snprintf(what, sizeof(what), "not as before (%s), nor as after (%s)",
             not_before, not_after);
    say(r, what);
    return false;
}

static bool verify(struct run *r, uint64_t *content)
{
    if (!check(r, "after recovery"))
        return false;
    if (state_read(&r->world, &r->now) != 0) {
        say(r, "it cannot be read");
        return false;
    }
    *content = content_of(&r->now);
    return workers_add_up(r) && is_before_or_after(r) && nothing_leaks(r);
}

/* ---- fingerprints that are known --------------------------------------------- */

static struct known *slot_of(struct known *table, uint32_t room,
                             uint64_t fingerprint)
{
    uint32_t i = (uint32_t)(fingerprint >> 20) & (room - 1);

    while (table[i].fingerprint != 0 && table[i].fingerprint != fingerprint)
        i = (i + 1) & (room - 1);
    return &table[i];
}

static void learn(struct run *r, uint64_t fingerprint, uint64_t content)
{
    struct known *k;

    if (r->known_count * 2 >= r->known_room) {
        uint32_t room = r->known_room == 0 ? 1024 : r->known_room * 2;
        struct known *larger = calloc(room, sizeof(*larger));

        if (larger == NULL)
            return; /* it is checked again, no more */
        for (uint32_t i = 0; i < r->known_room; i++) {
            if (r->known[i].fingerprint != 0)
                *slot_of(larger, room, r->known[i].fingerprint) = r->known[i];
        }
        free(r->known);
        r->known = larger;
        r->known_room = room;
    }
    k = slot_of(r->known, r->known_room, fingerprint);
    r->known_count += k->fingerprint == 0;
    k->fingerprint = fingerprint;
    k->content = content;
}

static bool is_known(struct run *r, uint64_t fingerprint, uint64_t *content)
{
    const struct known *k;

    if (r->known_room == 0)
        return false;
    k = slot_of(r->known, r->known_room, fingerprint);
    if (k->fingerprint != fingerprint)
        return false;
    *content = k->content;
    return true;
}

/* What the fingerprint has of bytes that are in no cell. */
static uint64_t share_of(const struct run *r, uint64_t at, uint64_t bytes)
{
    const uint64_t *p = trace_at(at);
    const uint64_t *old = (const uint64_t *)(const void *)(r->image + at);
    uint64_t share = 0;

    for (uint64_t i = 0; i < bytes / 8; i++) {
        if (p[i] != old[i])
            share += trace_share(&p[i], old[i]);
    }
    return share;
}

/* The fingerprint without what is in free pages and cells of the dict: the
 * cells that a dead worker was filling are free again, and hold anything. */
static uint64_t fingerprint_of_cells(const struct run *r)
{
    const struct pages *p = &r->dict.pages;
    uint64_t fingerprint = trace_fingerprint();

    for (uint32_t n = 0; n < pages_described(p); n++) {
        const struct page *page = &p->table[n];
        uint64_t at = p->at + (uint64_t)n * PAGE_BYTES;
        uint32_t bytes = page_class(page) < SLAB_CLASSES
                             ? slab_class_bytes(page_class(page))
                             : PAGE_BYTES;

        if (page->owner == 0) {
            fingerprint -= share_of(r, at, PAGE_BYTES);
            continue;
        }
        for (uint32_t c = 0; c < PAGE_BYTES / bytes; c++) {
            if ((page->free_map[c / 64] >> c % 64 & 1) != 0)
                fingerprint -= share_of(r, at + (uint64_t)c * bytes, bytes);
        }
    }
    return fingerprint;
}

/* Looks at a recovered state, and leaves it as it was. */
static bool judge(struct run *r, uint64_t *content)
{
    uint64_t fingerprint = trace_fingerprint() | 1;
    uint64_t of_cells;
    bool good;

    if (!guards_are_quiet(r))
        return false;
    if (is_known(r, fingerprint, content))
        return true;
    of_cells = fingerprint_of_cells(r) | 1;
    if (options.trust > 1 && is_known(r, of_cells, content) &&
        random_of(r) % options.trust != 0) {
        learn(r, fingerprint, *content);
        return true;
    }
    mine->distinct++;
    become(r, BUILDER);
    r->checking.count = 0;
    trace_record(&r->checking);
    good = verify(r, content);
    trace_record(NULL);
    trace_rewind(&r->checking, r->checking.count, 0);
    if (good)
        learn(r, fingerprint, *content);
    if (good && of_cells != fingerprint)
        learn(r, of_cells, *content);
    return good;
}

/* ---- states ----------------------------------------------------------------- */

/* A waiter that died may have had the wake-up that was another's. */
static bool all_are_kicked(struct run *r)
{
    const struct segment *s = &r->world.segment->segment;

    for (uint32_t i = 0; i < catalogue_guards(s); i++) {
        char what[80];

        if (kernel_kicked(&guard_at(s, i)->lock))
            continue;
        snprintf(what, sizeof(what), "the reap woke not all that wait for "
                 "lock %u", i);
        say(r, what);
        return false;
    }
    return true;
}

static bool recover(struct run *r, enum way way)
{
    char text[8];
    struct shd_value v;
    int rc = SHD_NOTFOUND;

    if (way == CHANGE || way == UNMARKED) {
        rc = shd_delete(r->world.dict, "never there", 11);
    } else if (way == JOIN) {
        /* One that was forked looks for the dead when it joins. */
        r->world.segment->env.incarnation = 0;
        r->world.segment->forked = (r->at.k[r->at.depth - 1] & 1) != 0;
        rc = shd_worker_join(r->world.segment, NULL);
        if (rc != SHD_OK)
            return failed_call(r, "join", rc);
        rc = shd_get(r->world.dict, "never there", 11, text, sizeof(text), &v);
    }
    if (rc != SHD_NOTFOUND)
        return failed_call(r, "the next call", rc);
    rc = shd_reap(r->world.segment, NULL);
    return rc == SHD_OK ? all_are_kicked(r) : failed_call(r, "reap", rc);
}

static bool prefixes(struct run *r, uint32_t level, uint64_t decided);

/* What one prefix and way decided must agree with the others'. */
static bool agrees(struct run *r, uint64_t content, bool whole)
{
    bool steps = (r->c->flags & CASE_STEPS) != 0;

    if (whole && content != r->content_after) {
        say(r, "it had returned, and is undone");
        return false;
    }
    if (steps || r->content_before == r->content_after)
        return true;
    if (content == r->content_after) {
        r->committed = true;
    } else if (r->committed) {
        say(r, "a shorter prefix was done, and this one is undone");
        return false;
    }
    return true;
}

/* The segment is as after a prefix of level's stores: whoever did them dies,
 * and the next comes in that way. *content: what is stored then. */
static bool death(struct run *r, uint32_t level, uint32_t k, enum way way,
                  uint64_t *content)
{
    const struct segment *s = &r->world.segment->segment;
    struct trace *dying = &r->death[level], *next = &r->level[level + 1];
    bool good;

    r->at.depth = level + 1;
    r->at.k[level] = k;
    r->at.way[level] = way;
    mine->at = r->at;
    mine->states[level]++;
    note_counters(r);
    dying->count = next->count = 0;
    kernel_begin(alive_after(level + 1));
    if (way != UNMARKED) {
        trace_record(dying);
        kernel_die(s, OPERATOR + level);
    }
    trace_record(next);
    become(r, RECOVERER + level);
    good = recover(r, way);
    trace_record(NULL);
    good = good && judge(r, content);
    trace_rewind(next, next->count, 0);
    return good;
}

static void undo_death(struct run *r, uint32_t level)
{
    trace_rewind(&r->death[level], r->death[level].count, 0);
}

static bool wanted(struct run *r, uint32_t level, uint32_t k, enum way way)
{
    uint32_t every = options.every[level];

    if (options.at.depth > 0)
        return level < options.at.depth && options.at.k[level] == k &&
               options.at.way[level] == way;
    if (level > 0 && way != (r->at.k[level - 1] + k) % WAYS)
        return false;
    if (level == 0 && options.one_way && way != k % WAYS) {
        mine->left_out[0] += r->first_pass;
        return false;
    }
    if (level == 1 && (r->c->flags & CASE_NEST) != 0 && every != 0)
        return true;
    if (every == 1 || (every > 1 && random_of(r) % every == 0))
        return true;
    mine->left_out[level] += r->first_pass;
    return false;
}

static bool goes_deeper(uint32_t level)
{
    if (level + 1 == LEVELS)
        return false;
    return options.at.depth > 0 ? level + 1 < options.at.depth
                                : options.every[level + 1] != 0;
}

/* One state in each way that is wanted. */
static bool ways(struct run *r, uint32_t level, uint32_t k, bool whole,
                 uint64_t decided)
{
    uint64_t content = 0, first = 0;
    bool any = false;

    for (enum way way = 0; way < WAYS; way++) {
        bool good;

        if (!wanted(r, level, k, way))
            continue;
        good = death(r, level, k, way, &content);
        if (good && level == 0)
            good = agrees(r, content, whole);
        if (good && ((level > 0 && content != decided) ||
                     (any && content != first))) {
            say(r, level > 0 ? "another recovery decided otherwise"
                             : "another way of coming next decided otherwise");
            good = false;
        }
        first = content;
        any = true;
        if (good && goes_deeper(level)) {
            uint32_t depth = r->at.depth;

            /* The stores of this recovery are now the next level's. */
            good = prefixes(r, level + 1, content);
            r->at.depth = depth;
        }
        undo_death(r, level);
        if (!good && r->failures > FAILURES_SHOWN)
            return false;
    }
    return true;
}

/* Words that change nothing are no states of their own. */
static bool is_state(const struct trace *t, uint32_t k, bool moved)
{
    return k == t->count ||
           (moved && (t->word[k].flags & TRACE_STATE) != 0);
}

/* All prefixes of a level's stores. `decided`: what is stored in the end, if
 * a recovery has decided that already. */
static bool prefixes(struct run *r, uint32_t level, uint64_t decided)
{
    const struct trace *t = &r->level[level];
    bool good = true, moved = true;
    uint32_t k = 0;

    for (;;) {
        if (is_state(t, k, moved) && level == 0 && is_over()) {
            mine->left_out[0] += WAYS * r->first_pass;
            moved = false;
        } else if (is_state(t, k, moved)) {
            good = ways(r, level, k, k == t->count, decided);
            moved = false;
        }
        if (k == t->count || !good)
            break;
        moved |= t->word[k].old != t->word[k].new;
        trace_apply(t, k++);
    }
    trace_rewind(t, k, 0);
    return good;
}

/* ---- real deaths ----------------------------------------------------------- */

static _Noreturn void killed_child(struct run *r, uint64_t point)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        _exit(1);
    (void)alarm(60);
    kernel_simulate(true, false);
    kernel_begin(alive_after(0));
    become(r, OPERATOR);
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
    keep(r, r->image2);
    trace_rewind(dying, dying->count, 0);
    trace_rewind(&r->level[0], k, 0);

    r->at = (struct at){.depth = 1, .k = {k}};
    mine->at = r->at;
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        killed_child(r, point);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) ||
        WTERMSIG(status) != SIGKILL) {
        say(r, "a real worker did not come to this store");
        put_back(r, r->image);
        return false;
    }
    mine->kills++;
    at = difference(r, s->base, r->image2);
    put_back(r, r->image);
    if (at != r->image_bytes) {
        char what[100];

        snprintf(what, sizeof(what),
                 "a real death leaves another byte %zu than a declared one",
                 at);
        say(r, what);
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
    for (uint32_t n = 0; good && points > 0 && n < options.kills; n++) {
        uint64_t point = 1 + random_of(r) % points, seen = 0;
        uint32_t k = 0;

        while ((seen += (t->word[k].flags & TRACE_POINT) != 0) < point)
            k++;
        good = real_death(r, k, point);
    }
    return good;
}

/* ---- cases ------------------------------------------------------------------ */

/* What is stored now, in *s; the segment stays as it is. */
static bool look(struct run *r, struct state *s, bool empty)
{
    bool good;

    kernel_begin(alive_after(1));
    r->checking.count = 0;
    trace_record(&r->checking);
    become(r, RECOVERER);
    good = recover(r, CHANGE) && check(r, "uncut") &&
           state_read(&r->world, s) == 0 && (!empty || nothing_leaks(r));
    trace_record(NULL);
    trace_rewind(&r->checking, r->checking.count, 0);
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
    kernel_begin(alive_after(0));
    become(r, OPERATOR);
    trace_record(t);
    good = script_run(&r->world, r->operation) == 0;
    trace_record(NULL);
    if (!good)
        return false;
    keep(r, r->image2);
    trace_rewind(t, t->count, 0);
    if (!is_image(r, r->image)) {
        say(r, "it stored something that was not recorded");
        return false;
    }
    for (uint32_t i = 0; i < t->count; i++) {
        mine->stores += (t->word[i].flags & TRACE_STATE) != 0;
        trace_apply(t, i);
    }
    if (!is_image(r, r->image2)) {
        say(r, "the recorded stores are not what it did");
        return false;
    }
    good = look(r, &r->after, true);
    trace_rewind(t, t->count, 0);
    return good;
}

static bool prepare(struct run *r)
{
    char why[200];
    bool same;

    if (!build(r)) {
        printf("    it could not be built: %s\n", shd_last_error());
        return false;
    }
    trace_segment(r->world.segment->segment.base, r->image_bytes);
    measure_room(r);
    /* Else its values would depend on the case before. */
    script_seed(0);
    if (script_run(&r->world, r->setup) != 0)
        return false;
    keep(r, r->image);
    r->left = workers_left(r);
    r->dict = r->world.dict->dict;
    r->dict.pages.seen = 0;
    r->dict.pages.nodes.end = r->dict.pages.at;
    r->dict.pages.full_below = 0;
    r->dict.pages.trusted = 0;
    r->dict.pages.recents = 0;
    kernel_simulate(true, true);
    mask(r);
    if (!look(r, &r->before, false) || !record(r))
        return false;
    r->content_before = content_of(&r->before);
    r->content_after = content_of(&r->after);
    if (r->level[0].count == 0 && (r->c->flags & CASE_SAME) == 0) {
        say(r, "it stores nothing");
        return false;
    }
    same = state_compare(&r->before, &r->after, why, sizeof(why)) == 0;
    if (same != ((r->c->flags & CASE_SAME) != 0)) {
        say(r, same ? "it changes nothing" : why);
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
static bool run_case(const struct crash_case *c, uint32_t n, uint32_t pass)
{
    struct run *r = calloc(1, sizeof(*r));
    bool good;

    if (r == NULL)
        return false;
    r->c = c;
    r->n = n;
    r->first_pass = pass == 0;
    r->random = (pass + 1) * 0x9e3779b97f4a7c15ull | 1;
    substitute(r->setup, sizeof(r->setup), c->setup, n);
    substitute(r->operation, sizeof(r->operation), c->operation, n);
    good = prepare(r) && real_deaths(r) && prefixes(r, 0, 0) &&
           r->failures == 0;
    if (!good)
        printf("  FAIL %s, number %u\n", c->name, n);
    fflush(stdout);
    tear_down(r);
    free(r);
    return good;
}

/* ---- all of them ------------------------------------------------------------ */

static bool is_chosen(const struct crash_case *c)
{
    return options.only == NULL || strcmp(options.only, c->name) == 0;
}

static bool is_number_chosen(uint32_t n)
{
    return options.number < 0 || (uint32_t)options.number == n;
}

/* Case number i of those chosen, each number counted; NULL: there are less. */
static const struct crash_case *case_number(uint32_t i, uint32_t *n)
{
    for (size_t c = 0; c < CASE_COUNT; c++) {
        for (*n = CASES[c].from; *n <= CASES[c].to; ++*n) {
            if (is_chosen(&CASES[c]) && is_number_chosen(*n) && i-- == 0)
                return &CASES[c];
        }
    }
    return NULL;
}

/* The first pass is as the options say; later ones, as long as there is time,
 * go deeper at other places each. */
static void sample_of_pass(uint32_t pass)
{
    static const uint32_t LATER[LEVELS] = {5, 5, 5};

    if (pass > 0)
        memcpy(options.every, LATER, sizeof(LATER));
}

static _Noreturn void job(uint32_t number, uint32_t cases)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        _exit(1);
    mine = &shared->of[number];
    while (!is_over()) {
        uint32_t i = __atomic_fetch_add(&shared->next, 1, __ATOMIC_RELAXED);
        uint32_t pass = i / cases, n;
        const struct crash_case *c = case_number(i % cases, &n);

        if (c == NULL || (pass > 0 && options.seconds == 0))
            break;
        sample_of_pass(pass);
        mine->name = c->name;
        mine->number = n;
        if (!run_case(c, n, pass))
            mine->failed++;
        else if (pass == 0)
            mine->passed++;
        mine->name = NULL;
    }
    exit(0); /* not _exit: a build that counts branches writes them down */
}

/* What a job was at when it ended itself, or was ended. */
static void tell_end(const struct totals *t, const char *how, int number)
{
    char at[80];

    at_print(&t->at, at, sizeof(at));
    printf("  FAIL %s, number %u: %s %d\n"
           "      again: crash --only '%s' --number %u --at %s\n",
           t->name != NULL ? t->name : "(none)", t->number, how, number,
           t->name != NULL ? t->name : "", t->number, at);
}

static uint64_t progress(void)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < options.jobs; i++)
        n += shared->of[i].states[0] + shared->of[i].states[1] +
             shared->of[i].states[2] + shared->of[i].kills +
             shared->of[i].distinct;
    return n;
}

/* Waits for all jobs; true if each came to its end by itself. */
static bool wait_for(const pid_t *pid)
{
    uint32_t left = options.jobs;
    bool good = true;
    uint64_t before = 0;
    time_t moved = time(NULL);

    while (left > 0) {
        for (uint32_t i = 0; i < options.jobs; i++) {
            int status;

            if (shared->of[i].ended || waitpid(pid[i], &status, WNOHANG) == 0)
                continue;
            shared->of[i].ended = true;
            left--;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                continue;
            tell_end(&shared->of[i], "ended by signal",
                     WIFSIGNALED(status) ? WTERMSIG(status) : 0);
            shared->of[i].failed++;
            good = false;
        }
        if (progress() != before)
            moved = time(NULL);
        before = progress();
        if (time(NULL) - moved > HANG_S) {
            for (uint32_t i = 0; i < options.jobs; i++) {
                if (!shared->of[i].ended)
                    (void)kill(pid[i], SIGKILL);
            }
        }
        (void)usleep(20000);
    }
    return good;
}

static void add_up(struct totals *sum)
{
    memset(sum, 0, sizeof(*sum));
    for (uint32_t i = 0; i < options.jobs; i++) {
        const struct totals *t = &shared->of[i];

        sum->stores += t->stores;
        sum->distinct += t->distinct;
        sum->kills += t->kills;
        sum->passed += t->passed;
        sum->failed += t->failed;
        for (uint32_t level = 0; level < LEVELS; level++) {
            sum->states[level] += t->states[level];
            sum->left_out[level] += t->left_out[level];
        }
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

static void print_table(const struct totals *sum, uint32_t cases, double took)
{
    double operations = 0, all = 0, processor = used();
    char what[60], more[60];

    for (size_t c = 0; c < CASE_COUNT; c++)
        operations += is_chosen(&CASES[c]);
    row("operations", operations, "");
    row("cases of them", cases, "");
    row("stores of the operations", (double)sum->stores, "");
    row("cases that there was no time for",
        cases - sum->passed - sum->failed, "");
    for (uint32_t level = 0; level < LEVELS; level++) {
        all += (double)sum->states[level];
        snprintf(what, sizeof(what), "states after %u death%s", level + 1,
                 level == 0 ? "" : "s");
        snprintf(more, sizeof(more), "  (%" PRIu64 " left out)",
                 sum->left_out[level]);
        row(what, (double)sum->states[level], more);
    }
    row("states", all, "");
    row("states whose bytes were new, checked", (double)sum->distinct, "");
    row("states compared with real deaths", (double)sum->kills, "");
    row("seconds", took, "");
    row("seconds of processor", processor, "");
    row("states a second of processor",
        all / (processor > 0 ? processor : 1), "");
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
    shared->interrupted = true;
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
    deadline = time(NULL) + options.seconds;
    (void)signal(SIGTERM, interrupt);
    (void)signal(SIGINT, interrupt);
    for (uint32_t i = 0; i < options.jobs; i++) {
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
    add_up(&sum);
    print_table(&sum, cases, seconds() - start);
    if (shared->interrupted) {
        printf("  interrupted\n");
        sum.failed++;
    }
    printf("%u passed, %u failed\n", sum.passed, sum.failed);
    return good && sum.failed == 0 && sum.passed > 0;
}

/* ---- the command line ------------------------------------------------------- */

static int usage(void)
{
    fprintf(
        stderr,
        "usage: crash [--only CASE [--number N] [--at K.WAY[:K.WAY...]]]\n"
        "             [--full | --seconds N | --every A,B,C] [--jobs N] [--kills N]\n"
        "  --at       only this prefix, of it that of the recovery, ...\n"
        "  --full     all prefixes two deep, a sample of the third level;\n"
        "             else each prefix of an operation in one way, in turn\n"
        "  --seconds  the same, then other samples as long as there is time\n"
        "  --every    A,B,C: of each level's prefixes one of so many, at\n"
        "             random; 0: none. As it is: 1,40,200; --full: 1,1,50\n"
        "  --jobs     processes at a time; the processors there are\n"
        "  --kills    real deaths to compare with, a case\n");
    return 2;
}

static bool parse_at(const char *text)
{
    struct at *at = &options.at;

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

static bool parse_every(const char *text)
{
    int n = 0;

    return sscanf(text, "%" SCNu32 ",%" SCNu32 ",%" SCNu32 "%n",
                  &options.every[0], &options.every[1], &options.every[2],
                  &n) == 3 && text[n] == '\0' && options.every[0] > 0;
}

static bool parse(int argc, char **argv)
{
    static const uint32_t FULL[LEVELS] = {1, 1, 50};
    static const uint32_t QUICK[LEVELS] = {1, 160, 800};
    uint32_t number;

    memcpy(options.every, QUICK, sizeof(QUICK));
    options.number = -1;
    options.kills = 2;
    options.one_way = true;
    options.trust = 16;
    options.jobs = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(name, "--full") == 0) {
            memcpy(options.every, FULL, sizeof(FULL));
            options.trust = 1;
            options.one_way = false;
            continue;
        }
        i++;
        if (strcmp(name, "--only") == 0 && *value != '\0')
            options.only = value;
        else if (strcmp(name, "--at") == 0 && parse_at(value))
            options.jobs = 1;
        else if (strcmp(name, "--number") == 0 && parse_number(value, &number))
            options.number = (int64_t)number;
        else if (strcmp(name, "--every") == 0 && parse_every(value))
            options.one_way = false;
        else if (strcmp(name, "--seconds") == 0 &&
                 parse_number(value, &options.seconds)) {
            memcpy(options.every, FULL, sizeof(FULL));
            options.one_way = false;
        } else if ((strcmp(name, "--jobs") != 0 ||
                  !parse_number(value, &options.jobs)) &&
                 (strcmp(name, "--kills") != 0 ||
                  !parse_number(value, &options.kills)))
            return false;
    }
    if (options.jobs < 1 || options.jobs > JOBS_MAX)
        options.jobs = 1;
    return options.at.depth == 0 || options.only != NULL;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv))
        return usage();
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    return run_all() ? 0 : 1;
}
