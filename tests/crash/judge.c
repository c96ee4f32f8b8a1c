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

/* ---- fingerprints that are known ---------------- */

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

    if (memcmp(p, old, bytes) == 0)
        return 0;
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
bool judge(struct run *r, uint64_t *content)
{
    uint64_t fingerprint = trace_fingerprint() | 1;
    uint64_t of_cells;
    bool good;

    if (!guards_are_quiet(r))
        return false;
    if (is_known(r, fingerprint, content))
        return true;
    of_cells = fingerprint_of_cells(r) | 1;
    if (crash_options.trust > 1 && is_known(r, of_cells, content) &&
        crash_random(r) % crash_options.trust != 0) {
        learn(r, fingerprint, *content);
        return true;
    }
    crash_mine->distinct++;
    crash_become(r, BUILDER);
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
