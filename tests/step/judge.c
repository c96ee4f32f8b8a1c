/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What has been found in order is not looked at again if the very same bytes
 * come out of another recovery.
 */
#include "tests/step/step.h"
#include "tests/crash/script_ipc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- what must hold ---------------------------------------------------- */

static void say_call(struct run *r, const char *call, int rc)
{
    char what[700];

    snprintf(what, sizeof(what), "%s gave %s: %s", call, shd_strerror_name(rc),
             shd_last_error());
    step_say(r, what);
}

static bool check(struct run *r, const char *when)
{
    char report[400] = "", what[500];
    int rc = shd_segment_check(r->b.segment, report, sizeof(report));

    if (rc == SHD_OK)
        return true;
    snprintf(what, sizeof(what), "%s, check gave %s: %s", when,
             shd_strerror_name(rc), report);
    step_say(r, what);
    return false;
}

static bool workers_are_free(struct run *r)
{
    struct shd_worker_info info = {.struct_size = sizeof(info)};
    uint64_t ours = r->b.segment->env.incarnation;
    int rc;

    for (uint32_t i = 0;
         (rc = shd_worker_info(r->b.segment, i, &info)) != SHD_INVAL; i++) {
        if (rc != SHD_OK || info.incarnation == ours)
            continue;
        step_say(r, "a dead worker still has its slot");
        return false;
    }
    return true;
}

static bool nothing_is_of_the_dead(struct run *r)
{
    const char *what = script_left_by_dead(&r->b);

    if (what != NULL)
        step_say(r, what);
    return what == NULL;
}

/* Drained, the queue is as it was made. */
static bool queue_is_empty(struct run *r)
{
    struct shd_queue_info info = {.struct_size = sizeof(info)};
    shd_queue *q;
    int rc = shd_queue_open(r->b.segment, "q", NULL, &q);

    if (rc == SHD_NOTFOUND)
        return true;
    if (rc == SHD_OK)
        rc = shd_queue_drain(q, 0, 0, NULL);
    if (rc == SHD_OK)
        rc = shd_queue_drain(q, SHD_MESSAGE_DEAD, 0, NULL);
    if (rc == SHD_OK)
        rc = shd_queue_info(q, &info);
    if (rc != SHD_OK) {
        say_call(r, "draining the queue", rc);
        return false;
    }
    (void)shd_queue_close(q);
    if (info.cells_used == 0 && info.bytes == 0)
        return true;
    step_say(r, "a leak: cells of the queue are in use");
    return false;
}

static bool nothing_leaks(struct run *r)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    char what[120];
    int rc = shd_flush_all(r->b.dict);

    /* A resize that was cut off is finished by another one. */
    if (rc == SHD_OK)
        rc = shd_dict_resize(r->b.dict, r->c->kib * 1024ull);
    if (rc == SHD_OK)
        rc = shd_flush_expired(r->b.dict, 0, NULL);
    if (rc == SHD_OK)
        rc = shd_dict_info(r->b.dict, &info);
    if (rc != SHD_OK) {
        say_call(r, "emptying it", rc);
        return false;
    }
    if (info.free_bytes == r->fresh_free && info.entries == 0)
        return queue_is_empty(r) && check(r, "when empty");
    snprintf(what, sizeof(what),
             "a leak: %" PRIu64 " bytes free of %" PRIu64 ", %" PRIu64
             " entries",
             info.free_bytes, r->fresh_free, info.entries);
    step_say(r, what);
    return false;
}

unsigned judge_compare(struct run *r)
{
    char not_before[160], not_after[160], what[400];
    unsigned verdict = 0;

    if (state_compare(&r->now, &r->before, not_before, sizeof(not_before)) ==
        0)
        verdict |= IS_BEFORE;
    if (state_compare(&r->now, &r->after, not_after, sizeof(not_after)) == 0)
        verdict |= IS_AFTER;
    if (verdict != 0)
        return verdict;
    if ((r->c->flags & CASE_STEPS) == 0) {
        snprintf(what, sizeof(what), "not as before (%s), nor as after (%s)",
                 not_before, not_after);
        step_say(r, what);
        return 0;
    }
    if (state_between(&r->now, &r->before, &r->after, what, sizeof(what)) == 0)
        return IS_BETWEEN;
    step_say(r, what);
    return 0;
}

/* Comes after the dead: by the lock, or by a reap. */
static bool recover(struct run *r, bool by_lock)
{
    int rc = SHD_NOTFOUND;

    if (by_lock)
        rc = shd_delete(r->b.dict, "never there", 11);
    if (rc != SHD_NOTFOUND) {
        say_call(r, "the next call", rc);
        return false;
    }
    rc = shd_reap(r->b.segment, NULL);
    if (rc != SHD_OK)
        say_call(r, "reap", rc);
    return rc == SHD_OK;
}

/* ---- what has been seen ------------------------------------------------ */

/* All that checks and reads can depend on. Of a guard that is at rest those
 * are a few words (an empty log's old entries are never looked at), and of a
 * slot that is free only that it is. */
static XXH128_hash_t fingerprint(const struct run *r)
{
    const struct segment *s = &r->b.segment->segment;
    size_t guards_end = s->guards_at + s->locks_max * sizeof(struct guard);
    XXH3_state_t h;

    XXH3_128bits_reset(&h);
    XXH3_128bits_update(&h, s->base, s->guards_at);
    for (uint32_t i = 0; i < s->locks_max; i++) {
        const struct guard *g = guard_at(s, i);
        uint64_t words[] = {g->state,
                            g->seq & 1,
                            g->object,
                            g->damaged,
                            g->lock};

        XXH3_128bits_update(&h, words, sizeof(words));
    }
    XXH3_128bits_update(&h, s->base + guards_end, s->workers_at - guards_end);
    for (uint32_t i = 0; i < s->workers_max; i++) {
        const struct registry_slot *slot =
            segment_at(s, s->workers_at + i * sizeof(*slot), sizeof(*slot));

        XXH3_128bits_update(&h, slot,
                            slot->incarnation != 0 ? sizeof(*slot) : 8);
    }
    XXH3_128bits_update(&h, s->base + s->extents_at,
                        r->used > s->extents_at ? r->used - s->extents_at : 0);
    return XXH3_128bits_digest(&h);
}

/* The verdict's place; 0 in it: not seen. */
static unsigned *seen(struct run *r, XXH128_hash_t h)
{
    uint32_t i = (uint32_t)h.low64 % SEEN_MAX;

    while (r->seen[i].verdict != 0 &&
           (r->seen[i].low != h.low64 || r->seen[i].high != h.high64))
        i = (i + 1) % SEEN_MAX;
    if (r->seen[i].verdict == 0) {
        if (r->seen_count >= SEEN_MAX / 2) { /* forget, and look again */
            memset(r->seen, 0, sizeof(r->seen));
            r->seen_count = 0;
            i = (uint32_t)h.low64 % SEEN_MAX;
        }
        r->seen_count++;
        r->seen[i].low = h.low64;
        r->seen[i].high = h.high64;
    }
    return &r->seen[i].verdict;
}

/* What comes of B's bytes: IS_ bits; 0: said. */
unsigned judge(struct run *r, bool by_lock)
{
    unsigned *verdict, v;

    if (!recover(r, by_lock))
        return 0;
    verdict = seen(r, fingerprint(r));
    if (*verdict != 0)
        return *verdict;
    told->counts.distinct++;
    if (!check(r, "after recovery") || !workers_are_free(r) ||
        !nothing_is_of_the_dead(r))
        return 0;
    if (state_read(&r->b, &r->now) != 0) {
        step_say(r, "it cannot be read");
        return 0;
    }
    v = judge_compare(r);
    if (v != 0 && nothing_leaks(r))
        *verdict = v;
    return *verdict;
}

bool judge_read(struct run *r, const unsigned char *bytes, bool by_lock,
                struct state *s)
{
    memcpy(step_bytes(&r->b), bytes, r->used);
    return recover(r, by_lock) && state_read(&r->b, s) == 0;
}
