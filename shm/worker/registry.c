/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker holds a lock of its own file description on its slot's liveness
 * byte from before the slot is published until after it is freed. The kernel
 * drops it when the last thread of the process is gone, which is after it has
 * walked the robust lists: who finds the byte free finds the locks marked.
 *
 * One lock at a time: joining lets go of the registry's guard before it reaps
 * others to make room, and looks again from the start afterwards.
 */
#include "shm/worker/registry.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/guard/txn.h"
#include "shm/memory/catalogue.h"
#include "shm/segment/header.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOT_WORDS (sizeof(struct registry_slot) / 8)
#define INDEX_BITS 16
#define INDEX_MASK ((1u << INDEX_BITS) - 1)
#define JOIN_ROUNDS 3
#define BITMAP_WORDS (65536 / 64)

static struct registry_slot *slot_at(const struct segment *s, uint32_t index)
{
    return segment_at(
        s, s->workers_at + (uint64_t)index * sizeof(struct registry_slot),
        sizeof(struct registry_slot));
}

struct registry_slot *registry_slot_at(const struct segment *s,
                                       uint32_t index)
{
    return slot_at(s, index);
}

uint32_t registry_index(uint64_t incarnation)
{
    return incarnation & INDEX_MASK;
}

static struct guard *own_guard(const struct guard_env *env)
{
    return guard_at(env->segment, GUARD_REGISTRY);
}

int registry_initialize(struct segment *s)
{
    struct guard *g = guard_at(s, GUARD_REGISTRY);
    int rc = segment_commit(s, segment_offset(s, g), sizeof(*g));

    if (rc == SHD_OK)
        rc = segment_commit(s, s->workers_at,
                            (uint64_t)s->workers_max *
                                sizeof(struct registry_slot));
    return rc;
}

/* ---- joining and leaving ---------------------------------------------- */

/* Field 22 of /proc/PID/stat; the name in field 2 may hold anything. */
int registry_start_time(pid_t pid, uint64_t *ticks)
{
    char text[1024], path[32];
    const char *p;
    ssize_t n;
    int fd;

    if (pid == 0)
        snprintf(path, sizeof(path), "/proc/self/stat");
    else
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno("opening %s", path);
    n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (n <= 0)
        return error_errno("reading %s", path);
    text[n] = '\0';
    p = strrchr(text, ')');
    for (int field = 2; p != NULL && field < 22; field++) {
        p = strchr(p, ' ');
        if (p != NULL)
            p++;
    }
    if (p == NULL)
        return error_set(SHD_SYS, "%s has no start time", path);
    *ticks = strtoull(p, NULL, 10);
    return SHD_OK;
}

static int describe(const struct registry_self *self,
                    struct registry_slot *slot)
{
    int rc;

    memset(slot, 0, sizeof(*slot));
    slot->joined_ms = clock_wall_ms();
    slot->pid = (uint32_t)getpid();
    slot->worker_id = self->worker_id;
    slot->generation = self->generation;
    slot->restarts = self->restarts;
    slot->phase = self->phase;
    memcpy(slot->name, self->name, sizeof(slot->name) - 1);
    rc = header_pid_namespace(&slot->pid_namespace);
    return rc == SHD_OK ? registry_start_time(0, &slot->start_time) : rc;
}

/* Locks the liveness byte of a free slot. SHD_FULL: there is none. A free
 * slot whose byte is locked has an owner that is just leaving. */
static int take_byte(const struct guard_env *env, uint32_t *index)
{
    const struct segment *s = env->segment;

    for (uint32_t i = 0; i < s->workers_max; i++) {
        int rc;

        if (atomic_load64(&slot_at(s, i)->incarnation) != 0)
            continue;
        rc = segment_liveness_lock(s, i);
        if (rc == SHD_BUSY)
            continue;
        *index = i;
        return rc;
    }
    return error_set(SHD_FULL,
                     "all %u worker slots are held by live workers: create "
                     "the segment with a larger workers_max",
                     s->workers_max);
}

/* The slot and the counter change together: an incarnation that is given is
 * counted, and one that is not is not. */
static uint64_t publish(const struct guard_env *env, uint32_t index,
                        struct registry_slot *copy)
{
    struct segment_header *h = segment_header(env->segment);
    uint64_t counter = atomic_load64(&h->incarnations) + 1;
    uint64_t *slot = (uint64_t *)(void *)slot_at(env->segment, index);
    const struct guard_wait *w = registry_wait(env->segment, index);
    uint64_t words[SLOT_WORDS];
    struct txn t;

    /* All slots lie inside, or it would not be attached; gcc must be told. */
    assert(slot != NULL);
    copy->incarnation = counter << INDEX_BITS | index;
    if (w != NULL)
        copy->wait.turn = atomic_load32(&w->turn) + 1;
    copy->died = atomic_load64(&slot[offsetof(struct registry_slot, died) / 8]);
    memcpy(words, copy, sizeof(words));
    txn_begin(&t, env->segment, own_guard(env), SLOT_WORDS + 1);
    txn_store64(&t, &h->incarnations, counter);
    for (size_t i = 0; i < SLOT_WORDS; i++)
        txn_store64(&t, &slot[i], words[i]);
    txn_commit(&t);
    return copy->incarnation;
}

static int join_once(const struct guard_env *env, struct registry_slot *self,
                     uint64_t *out)
{
    uint32_t index = 0;
    int rc = guard_lock(env, own_guard(env));

    if (rc != SHD_OK)
        return rc;
    rc = take_byte(env, &index);
    if (rc == SHD_OK)
        *out = publish(env, index, self);
    guard_unlock(own_guard(env));
    return rc;
}

int registry_join(const struct guard_env *env,
                  const struct registry_self *self, uint64_t *out)
{
    struct registry_slot slot;
    int rc = segment_can_change(env->segment);

    if (rc == SHD_OK)
        rc = describe(self, &slot);
    if (rc != SHD_OK)
        return rc;
    rc = join_once(env, &slot, out);
    for (int i = 1; i < JOIN_ROUNDS && rc == SHD_FULL; i++) {
        uint32_t reaped;

        rc = registry_reap(env, catalogue_guards(env->segment), &reaped);
        if (reaped > 0 || rc == SHD_OK)
            rc = join_once(env, &slot, out);
    }
    if (rc == SHD_OK)
        segment_announce(env->segment);
    return rc;
}

static void free_slot(const struct guard_env *env, uint32_t index,
                      uint64_t deaths)
{
    struct segment_header *h = segment_header(env->segment);
    struct registry_slot *slot = slot_at(env->segment, index);
    struct txn t;

    txn_begin(&t, env->segment, own_guard(env), 3);
    if (deaths > 0) {
        txn_store64(&t, &slot->died, atomic_load64(&slot->incarnation));
        txn_store64(&t, &h->deaths, atomic_load64(&h->deaths) + deaths);
    }
    txn_store64(&t, &slot->incarnation, 0);
    txn_commit(&t);
}

int registry_leave(const struct guard_env *env)
{
    uint32_t index = env->incarnation & INDEX_MASK;
    bool ours;
    int rc;

    if (env->incarnation == 0 || index >= env->segment->workers_max)
        return error_set(SHD_INVAL, "this process is not registered");
    rc = guard_lock(env, own_guard(env));
    if (rc != SHD_OK)
        return rc;
    ours = atomic_load64(&slot_at(env->segment, index)->incarnation) ==
           env->incarnation;
    if (ours)
        free_slot(env, index, 0);
    guard_unlock(own_guard(env));
    /* The byte goes last: a slot in use never has a free one while its
     * worker lives. */
    return segment_liveness_unlock(env->segment, index);
}

struct guard_wait *registry_wait(const struct segment *s, uint32_t index)
{
    struct registry_slot *slot = index < s->workers_max ? slot_at(s, index)
                                                        : NULL;

    return slot == NULL ? NULL : &slot->wait;
}

uint64_t registry_doorbell(const struct segment *s, uint32_t index)
{
    return index >= s->workers_max ? 0
                                   : atomic_load64(&slot_at(s, index)->doorbell);
}

int registry_set_doorbell(const struct guard_env *env, uint64_t number)
{
    uint32_t index = env->incarnation & INDEX_MASK;
    struct txn t;
    int rc;

    if (env->incarnation == 0 || index >= env->segment->workers_max)
        return error_set(SHD_INVAL, "this process is not registered");
    rc = guard_lock(env, own_guard(env));
    if (rc != SHD_OK)
        return rc;
    if (atomic_load64(&slot_at(env->segment, index)->incarnation) !=
        env->incarnation) {
        rc = error_set(SHD_INVAL, "this process is not registered any more");
    } else {
        txn_begin(&t, env->segment, own_guard(env), 1);
        txn_store64(&t, &slot_at(env->segment, index)->doorbell, number);
        txn_commit(&t);
    }
    guard_unlock(own_guard(env));
    return rc;
}

/* ---- looking ---------------------------------------------------------- */

bool registry_is_dead(const struct guard_env *env, uint64_t incarnation)
{
    uint32_t index = incarnation & INDEX_MASK;
    const struct registry_slot *slot;

    if (incarnation == env->incarnation && incarnation != 0)
        return false;
    if (incarnation == 0 || index >= env->segment->workers_max)
        return true;
    slot = slot_at(env->segment, index);
    if (atomic_load64(&slot->incarnation) != incarnation)
        return true;
    return segment_liveness_is_locked(env->segment, index) == 0;
}

bool registry_is_draining(const struct guard_env *env, uint64_t incarnation)
{
    uint32_t index = registry_index(incarnation);
    const struct registry_slot *slot;

    if (incarnation == 0 || index >= env->segment->workers_max)
        return false;
    slot = slot_at(env->segment, index);
    return atomic_load64(&slot->incarnation) == incarnation &&
           atomic_load32(&slot->phase) == SHD_PHASE_DRAINING;
}

int registry_at(const struct guard_env *env, uint32_t index,
                struct registry_slot *copy, bool *dead)
{
    struct reading r;
    int rc;

    if (index >= env->segment->workers_max)
        return error_set(SHD_INVAL, "there are %u worker slots, no slot %u",
                         env->segment->workers_max, index);
    reading_begin(&r, env, own_guard(env));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        reading_copy(copy, slot_at(env->segment, index), sizeof(*copy));
    } while (!reading_done(&r));
    copy->name[sizeof(copy->name) - 1] = '\0';
    if (copy->incarnation == 0)
        return error_set(SHD_NOTFOUND, "worker slot %u is free", index);
    *dead = registry_is_dead(env, copy->incarnation);
    return SHD_OK;
}

/* ---- reaping ---------------------------------------------------------- */

static void note(int *first, int rc)
{
    if (*first == SHD_OK && rc < 0)
        *first = rc;
}

/* Marks the slots of the dead; gives their number. */
static uint32_t find_dead(const struct guard_env *env,
                          uint64_t dead[BITMAP_WORDS])
{
    uint32_t n = 0;

    memset(dead, 0, BITMAP_WORDS * sizeof(*dead));
    for (uint32_t i = 0; i < env->segment->workers_max; i++) {
        uint64_t incarnation =
            atomic_load64(&slot_at(env->segment, i)->incarnation);

        if (incarnation == 0 || incarnation == env->incarnation ||
            segment_liveness_is_locked(env->segment, i) != 0)
            continue;
        dead[i / 64] |= 1ull << i % 64;
        n++;
    }
    return n;
}

bool registry_has_dead(const struct guard_env *env)
{
    uint64_t dead[BITMAP_WORDS];

    return find_dead(env, dead) > 0;
}

/* Frees those that are still dead: in the meantime somebody else may have
 * freed a slot, and a live worker taken it. */
static int free_dead(const struct guard_env *env,
                     const uint64_t dead[BITMAP_WORDS], uint32_t *freed)
{
    int rc = guard_lock(env, own_guard(env));

    if (rc != SHD_OK)
        return rc;
    for (uint32_t i = 0; i < env->segment->workers_max; i++) {
        if ((dead[i / 64] >> i % 64 & 1) == 0 ||
            atomic_load64(&slot_at(env->segment, i)->incarnation) == 0 ||
            segment_liveness_is_locked(env->segment, i) != 0)
            continue;
        free_slot(env, i, 1);
        (*freed)++;
    }
    guard_unlock(own_guard(env));
    return SHD_OK;
}

int registry_reap(const struct guard_env *env, uint32_t guards,
                  uint32_t *reaped)
{
    uint64_t dead[BITMAP_WORDS];
    uint32_t n;
    int rc = SHD_OK;

    *reaped = 0;
    if (guards > env->segment->locks_max)
        guards = env->segment->locks_max;
    /* First the registry's own: a worker that died while leaving has its slot
     * back only then. */
    if (guards > GUARD_REGISTRY)
        note(&rc, guard_reap(env, own_guard(env)));
    n = find_dead(env, dead);
    /* Also without a dead worker: a process may die with a lock before it is
     * registered. A damaged guard must not keep the others waiting. */
    for (uint32_t i = 0; i < guards; i++)
        note(&rc, guard_reap(env, guard_at(env->segment, i)));
    if (n > 0)
        note(&rc, free_dead(env, dead, reaped));
    for (uint32_t i = 0; i < guards; i++)
        guard_kick(guard_at(env->segment, i));
    for (uint32_t i = 0; i < env->segment->workers_max; i++) {
        struct guard_wait *w = registry_wait(env->segment, i);

        if (w != NULL && atomic_load32(&w->armed) != 0)
            guard_wait_kick(w);
    }
    return rc;
}

/* ---- checking --------------------------------------------------------- */

static int check_failed(char *report, size_t size, uint32_t index,
                        const char *what)
{
    snprintf(report, size, "registry: slot %u: %s", index, what);
    return SHD_CORRUPT;
}

static int check_slot(const struct registry_slot *slot, uint32_t index,
                      uint64_t incarnations, char *report, size_t size)
{
    uint64_t counter = slot->incarnation >> INDEX_BITS;

    if ((slot->incarnation & INDEX_MASK) != index)
        return check_failed(report, size, index,
                            "incarnation is of another slot");
    if (counter == 0 || counter > incarnations)
        return check_failed(report, size, index,
                            "incarnation was never given");
    if (memchr(slot->name, '\0', sizeof(slot->name)) == NULL)
        return check_failed(report, size, index, "name is not a string");
    if (slot->phase > SHD_PHASE_DRAINING)
        return check_failed(report, size, index, "no such phase");
    return SHD_OK;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static int check_table(const struct registry_slot *table, uint32_t n,
                       uint64_t incarnations, char *report, size_t size)
{
    uint64_t *counters = calloc(n, sizeof(*counters));
    uint32_t used = 0;
    int rc = SHD_OK;

    if (counters == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    for (uint32_t i = 0; i < n && rc == SHD_OK; i++) {
        if (table[i].incarnation == 0)
            continue;
        rc = check_slot(&table[i], i, incarnations, report, size);
        counters[used++] = table[i].incarnation;
    }
    for (uint32_t i = 0; i < used; i++)
        counters[i] >>= INDEX_BITS;
    qsort(counters, used, sizeof(*counters), by_value);
    for (uint32_t i = 1; i < used && rc == SHD_OK; i++) {
        if (counters[i] == counters[i - 1]) {
            snprintf(report, size,
                     "registry: incarnation %llu was given to two slots",
                     (unsigned long long)counters[i]);
            rc = SHD_CORRUPT;
        }
    }
    free(counters);
    return rc;
}

int registry_check(const struct guard_env *env, char *report, size_t size)
{
    const struct segment *s = env->segment;
    const struct segment_header *h = segment_header(s);
    struct registry_slot *table = calloc(s->workers_max, sizeof(*table));
    uint64_t incarnations, deaths;
    struct reading r;
    int rc;

    if (table == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    reading_begin(&r, env, own_guard(env));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            goto out;
        incarnations = atomic_load64(&h->incarnations);
        deaths = atomic_load64(&h->deaths);
        reading_copy(table, slot_at(s, 0), s->workers_max * sizeof(*table));
    } while (!reading_done(&r));
    if (deaths > incarnations) {
        snprintf(report, size,
                 "registry: more workers have died than there ever were");
        rc = SHD_CORRUPT;
    } else {
        rc = check_table(table, s->workers_max, incarnations, report, size);
    }
out:
    free(table);
    return rc;
}
