/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whose process a number is: the pidfd is opened first, then the slot must
 * still be in use and its byte locked. A worker that lived after the pidfd was
 * opened had not given its number back before, so the pidfd is its own. The
 * number itself is input: a start time that is another's tells a damaged slot.
 */
#include "shm/worker/roster.h"
#include "shm/worker/doorbell.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/guard/txn.h"
#include "shm/segment/header.h"

#include <errno.h>
#include <limits.h>
#include <sys/pidfd.h>
#include <unistd.h>

static struct guard *own_guard(const struct guard_env *env)
{
    return guard_at(env->segment, GUARD_REGISTRY);
}

/* Its slot, if it is the worker's just now; else NULL. */
static struct registry_slot *slot_of(const struct guard_env *env,
                                     uint64_t incarnation)
{
    uint32_t index = registry_index(incarnation);
    struct registry_slot *slot;

    if (incarnation == 0 || index >= env->segment->workers_max)
        return NULL;
    slot = registry_slot_at(env->segment, index);
    return atomic_load64(&slot->incarnation) == incarnation ? slot : NULL;
}

static int no_such_worker(uint64_t incarnation)
{
    return error_set(SHD_NOTFOUND, "there is no worker %llu (any more)",
                     (unsigned long long)incarnation);
}

/* ---- heartbeat and phase ------------------------------------------------ */

void roster_beat(const struct guard_env *env)
{
    uint64_t incarnation = atomic_load64(&env->incarnation);
    uint32_t index = registry_index(incarnation);

    if (incarnation != 0 && index < env->segment->workers_max)
        atomic_store64(&registry_slot_at(env->segment, index)->heartbeat_ms,
                       clock_coarse_ms());
}

int64_t roster_silent_ms(const struct registry_slot *slot)
{
    uint64_t now = clock_coarse_ms();

    if (slot->heartbeat_ms == 0)
        return -1;
    return slot->heartbeat_ms < now ? (int64_t)(now - slot->heartbeat_ms) : 0;
}

static void store_phase(const struct guard_env *env,
                        struct registry_slot *slot, uint32_t phase)
{
    struct txn t;

    txn_begin(&t, env->segment, own_guard(env), 1);
    txn_store32(&t, &slot->phase, phase);
    txn_commit(&t);
}

/* Who is to drain may have something to hand over. */
static void rouse(const struct guard_env *env, uint32_t index)
{
    struct guard_wait *w = registry_wait(env->segment, index);

    if (w != NULL && atomic_load32(&w->armed) != 0)
        guard_wait_kick(w);
    doorbell_ring(env, index);
}

int roster_set_phase(const struct guard_env *env, uint64_t incarnation,
                     uint32_t phase)
{
    struct registry_slot *slot;
    int rc = guard_lock(env, own_guard(env));

    if (rc != SHD_OK)
        return rc;
    slot = slot_of(env, incarnation);
    if (slot != NULL && slot->phase != phase)
        store_phase(env, slot, phase);
    guard_unlock(own_guard(env));
    if (slot == NULL)
        return no_such_worker(incarnation);
    if (phase == SHD_PHASE_DRAINING)
        rouse(env, registry_index(incarnation));
    segment_announce(env->segment);
    return SHD_OK;
}

/* ---- generations -------------------------------------------------------- */

static uint32_t last_generation(const struct guard_env *env)
{
    uint32_t last =
        atomic_load32(&segment_header(env->segment)->generation);

    for (uint32_t i = 0; i < env->segment->workers_max; i++) {
        const struct registry_slot *slot = registry_slot_at(env->segment, i);

        if (atomic_load64(&slot->incarnation) != 0 && slot->generation > last)
            last = slot->generation;
    }
    return last;
}

int roster_next_generation(const struct guard_env *env, uint32_t *generation)
{
    struct segment_header *h = segment_header(env->segment);
    int rc = guard_lock(env, own_guard(env));
    struct txn t;
    uint32_t last;

    if (rc != SHD_OK)
        return rc;
    last = last_generation(env);
    if (last == UINT32_MAX) {
        rc = error_set(SHD_FULL, "every generation has been given");
    } else {
        txn_begin(&t, env->segment, own_guard(env), 1);
        txn_store32(&t, &h->generation, last + 1);
        txn_commit(&t);
        *generation = last + 1;
    }
    guard_unlock(own_guard(env));
    return rc;
}

int roster_drain(const struct guard_env *env, uint32_t generation,
                 uint32_t *marked)
{
    int rc = guard_lock(env, own_guard(env));

    *marked = 0;
    if (rc != SHD_OK)
        return rc;
    for (uint32_t i = 0; i < env->segment->workers_max; i++) {
        struct registry_slot *slot = registry_slot_at(env->segment, i);

        if (atomic_load64(&slot->incarnation) == 0 || slot->worker_id < 0 ||
            slot->generation >= generation ||
            slot->phase == SHD_PHASE_DRAINING)
            continue;
        store_phase(env, slot, SHD_PHASE_DRAINING);
        (*marked)++;
    }
    guard_unlock(own_guard(env));
    for (uint32_t i = 0; *marked > 0 && i < env->segment->workers_max; i++)
        if (registry_is_draining(env, atomic_load64(&registry_slot_at(
                                          env->segment, i)
                                          ->incarnation)))
            rouse(env, i);
    if (*marked > 0)
        segment_announce(env->segment);
    return SHD_OK;
}

/* ---- the supervisor ----------------------------------------------------- */

int roster_set_supervisor(const struct guard_env *env, uint64_t incarnation)
{
    int rc = guard_lock(env, own_guard(env));
    struct txn t;

    if (rc != SHD_OK)
        return rc;
    txn_begin(&t, env->segment, own_guard(env), 1);
    txn_store64(&t, &segment_header(env->segment)->supervisor, incarnation);
    txn_commit(&t);
    guard_unlock(own_guard(env));
    return SHD_OK;
}

uint64_t roster_supervisor(const struct guard_env *env)
{
    return atomic_load64(&segment_header(env->segment)->supervisor);
}

/* ---- processes ---------------------------------------------------------- */

static int prove(const struct guard_env *env,
                 const struct registry_slot *slot)
{
    uint64_t started = 0;
    int rc = registry_start_time((pid_t)slot->pid, &started);

    if (registry_is_dead(env, slot->incarnation))
        return no_such_worker(slot->incarnation);
    if (rc == SHD_OK && started != slot->start_time)
        rc = error_set(SHD_CORRUPT,
                       "worker slot %u: process %u is another one",
                       registry_index(slot->incarnation), slot->pid);
    return rc;
}

int roster_process(const struct guard_env *env, uint64_t incarnation,
                   int *pidfd)
{
    uint32_t index = registry_index(incarnation);
    struct registry_slot slot;
    uint64_t namespace;
    bool dead = true;
    int rc = SHD_NOTFOUND;

    *pidfd = -1;
    if (incarnation != 0 && index < env->segment->workers_max)
        rc = registry_at(env, index, &slot, &dead);
    if (rc == SHD_NOTFOUND || (rc == SHD_OK && slot.incarnation != incarnation))
        return no_such_worker(incarnation);
    if (rc == SHD_OK)
        rc = header_pid_namespace(&namespace);
    if (rc != SHD_OK)
        return rc;
    if (slot.pid_namespace != namespace)
        return error_set(SHD_NAMESPACE,
                         "worker %llu is in another pid namespace",
                         (unsigned long long)incarnation);
    if (slot.pid == 0 || slot.pid > INT_MAX)
        return error_set(SHD_CORRUPT, "worker slot %u: no process has the "
                                      "number %u", index, slot.pid);
    *pidfd = pidfd_open((pid_t)slot.pid, 0);
    if (*pidfd < 0)
        return errno == ESRCH ? no_such_worker(incarnation)
                              : error_errno("pidfd_open(%u)", slot.pid);
    rc = prove(env, &slot);
    if (rc != SHD_OK) {
        (void)close(*pidfd);
        *pidfd = -1;
    }
    return rc;
}
