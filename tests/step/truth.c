/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/step/step.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define KILLS 1u /* a case, in each build */

static bool is_lock(const struct run *r, size_t at)
{
    return step_in_guard(r, at) == 0;
}

/* Words in which two processes differ: who they are. */
static bool is_personal(const struct run *r, size_t at)
{
    const struct segment *s = &r->a.segment->segment;

    return step_in_guard(r, at) < sizeof(uint64_t) ||
           (at >= s->workers_at && at < s->extents_at);
}

/* A worker is killed behind its k'th change; the kernel does the rest. */
bool truth_kill(struct run *r, uint64_t k)
{
    struct level *l = &r->level[0];
    const struct stepping_moment *m = NULL;
    const unsigned char *dead = step_bytes(&r->a);
    uint64_t n;
    char what[120];

    memcpy(step_bytes(&r->a), l->image, r->used);
    memcpy(l->now, l->image, r->used);
    if (k >= l->journal->moments)
        return true;
    for (uint64_t i = 0; i < k; i++) {
        m = stepping_next(l->journal, m);
        stepping_apply(m, l->now);
    }
    stepping_die(m, l->now);
    stepping_record(r->level[1].journal, l->image);
    told->at[0] = k;
    if (script_run_apart(&r->a, r->operation, k + 1, NULL, &n) != 1) {
        step_say(r, "it could not be killed");
        return false;
    }
    told->counts.kills++;
    for (size_t at = 0; at < r->used; at += 8) {
        if (memcmp(dead + at, l->now + at, 8) == 0 ||
            (is_personal(r, at) && !is_lock(r, at)))
            continue;
        snprintf(what, sizeof(what),
                 "killed, it leaves other bytes than computed, at %zu", at);
        step_say(r, what);
        return false;
    }
    told->at[0] = 0;
    return true;
}

bool truth_kill_some(struct run *r, uint64_t seed)
{
    uint64_t n = r->level[0].journal->moments;
    bool good = true;

    for (unsigned i = 0; i < KILLS && n > 1; i++) {
        uint64_t k =
            XXH3_64bits_withSeed(r->name, strlen(r->name), seed + i * 31);

        good &= truth_kill(r, 1 + k % (n - 1));
    }
    return good;
}

static bool same_moment(const struct run *r, const struct stepping_moment *a,
                        const struct stepping_moment *b)
{
    if (a->changes != b->changes || a->deads != b->deads ||
        memcmp(a->dead_at, b->dead_at, sizeof(a->dead_at)) != 0)
        return false;
    for (uint32_t i = 0; i < a->changes; i++) {
        if (a->change[i].at != b->change[i].at ||
            (a->change[i].now != b->change[i].now &&
             !is_personal(r, a->change[i].at)))
            return false;
    }
    return a->changes == 0 || a->ip == b->ip || a->ip == 0;
}

bool truth_by_ptrace(struct run *r)
{
    const struct stepping_moment *m = NULL, *n = NULL;
    struct stepping_journal *j = r->level[0].journal;
    struct stepping_journal *reference = r->level[1].journal;
    uint64_t k = 0;
    char what[200];
    bool good;

    stepping_by_ptrace = true;
    good = step_record(r, 0, r->operation, reference);
    stepping_by_ptrace = false;
    if (!good)
        return false;
    told->counts.references++;
    told->counts.steps += reference->steps;
    do {
        m = stepping_next(j, m);
        n = stepping_next(reference, n);
        k++;
    } while (m != NULL && n != NULL && same_moment(r, m, n));
    if (m == NULL && n == NULL)
        return true;
    snprintf(what, sizeof(what),
             "by ptrace, change %" PRIu64 " of %" PRIu64 " (of %" PRIu64
             ") is another: at %#" PRIx64 ", not %#" PRIx64,
             k, j->moments, reference->moments, n != NULL ? n->ip : 0,
             m != NULL ? m->ip : 0);
    step_say(r, what);
    return false;
}
