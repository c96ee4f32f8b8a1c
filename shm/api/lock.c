/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The public locks and semaphores: arguments, handles, and waiting.
 * The contracts are in shdict.h.
 *
 * Who waits looks for deaths and for time that is up before it gets in line,
 * and again after each slice of sleep: so a permit comes back without a
 * supervisor as well.
 */
#include "shm/api/object.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/ipc/permits.h"
#include "shm/worker/registry.h"

#include "shm/api/gates.h" /* last */

#include <string.h>

static_assert(sizeof(struct permits) <= HANDLE_VIEW_BYTES,
              "a view of a handle");

/* A ticket is the number in line and the waiter's: 48 and 16 bits. */
#define TICKET_BITS 16

static struct handle_object *handle(shd_lock *lock)
{
    return (struct handle_object *)(void *)lock;
}

static const struct permits *view(shd_lock *lock)
{
    return (const struct permits *)(const void *)handle(lock)->view;
}

/* A leader can be looked at as a lock. */
static bool is_kind(uint32_t kind)
{
    return kind == SHD_OBJECT_LOCK || kind == SHD_OBJECT_SEMAPHORE ||
           kind == SHD_OBJECT_LEADER;
}

/* Each of the two is what the handle was opened as. */
static uint32_t kind_of(shd_lock *lock)
{
    uint32_t kind = lock != NULL ? handle(lock)->object.kind : 0;

    return is_kind(kind) ? kind : SHD_OBJECT_LOCK;
}

static int reader(shd_lock *lock)
{
    return handle_object_reader(handle(lock), kind_of(lock));
}

static int writer(shd_lock *lock)
{
    if (kind_of(lock) == SHD_OBJECT_LEADER)
        return error_set(SHD_INVAL,
                         "'%s' is a leader: shd_leader_look stands for it",
                         handle(lock)->object.name);
    return handle_object_writer(handle(lock), kind_of(lock));
}

/* ---- handles ----------------------------------------------------------- */

struct opening {
    uint32_t kind;
    struct shd_lock_options o;
};

static int open_view(const struct guard_env *env, const char *name,
                     const void *options, bool create, void *out)
{
    const struct opening *how = options;

    return permits_open(env, name, how->kind, how->o.permits,
                        how->o.waiters_max, create, out);
}

int shd_lock_open(shd_segment *segment, const char *name, uint32_t kind,
                  const struct shd_lock_options *o, shd_lock **out)
{
    struct opening opening = {.kind = kind};
    struct handle_opening how = {.open = open_view, .options = &opening};
    struct handle_object *h;
    int rc = handle_options(o, &opening.o, sizeof(opening.o),
                            "struct shd_lock_options");

    if (rc == SHD_OK && (out == NULL || !is_kind(kind)))
        rc = error_set(SHD_INVAL, "shd_lock_open: out is NULL, or kind %u is "
                                  "no lock or semaphore",
                       kind);
    if (rc == SHD_OK && (opening.o.flags & ~(uint32_t)SHD_LOCK_CREATE) != 0)
        rc = error_set(SHD_INVAL, "shd_lock_open: unknown flags %u",
                       opening.o.flags);
    if (rc == SHD_OK && kind == SHD_OBJECT_LEADER && opening.o.flags != 0)
        rc = error_set(SHD_INVAL, "shd_leader_open makes leaders");
    if (rc == SHD_OK && kind != SHD_OBJECT_SEMAPHORE && opening.o.permits > 1)
        rc = error_set(SHD_INVAL, "a lock has one permit, not %u",
                       opening.o.permits);
    if (rc != SHD_OK)
        return rc;
    how.may_create = (opening.o.flags & SHD_LOCK_CREATE) != 0;
    rc = handle_object_open(segment, name, &how, &h);
    if (rc == SHD_OK)
        *out = (shd_lock *)(void *)h;
    return rc;
}

int shd_lock_close(shd_lock *lock)
{
    return handle_object_close(handle(lock), kind_of(lock));
}

/* ---- acquiring --------------------------------------------------------- */

static void tell(const struct permit_grant *got, struct shd_grant *grant)
{
    memset(grant, 0, sizeof(*grant));
    grant->token = got->token;
    grant->former = got->mark;
}

/* Takes back what can be taken back. < 0 or how many. *next_ms is when time
 * is up for the next one. */
static int take_back(const struct permits *p, uint64_t *next_ms)
{
    int expired = permits_expire(p, next_ms);
    int dead = expired < 0 ? 0 : permits_bury_all(p);

    return expired < 0 ? expired : dead < 0 ? dead : expired + dead;
}

/* A free one, or one that the dead hold. */
static int try_hard(const struct permits *p, int64_t ttl_ms,
                    struct permit_grant *got)
{
    int rc = permits_try(p, ttl_ms, got);
    int taken;

    if (rc != SHD_BUSY)
        return rc;
    taken = take_back(p, NULL);
    if (taken < 0)
        return taken;
    return taken > 0 ? permits_try(p, ttl_ms, got)
                     : error_set(SHD_BUSY, "'%s' is held by others",
                                 p->object.name);
}

/* In line, until it is granted or until_ms is over. */
static int stand_in_line(const struct permits *p,
                         const struct permit_place *place, uint64_t until_ms,
                         struct permit_grant *got)
{
    for (;;) {
        uint64_t next_ms, sleep_ms;
        int rc = permits_look(p, place, got);

        if (rc != 1)
            return rc;
        if (clock_now_ms() >= until_ms)
            break;
        rc = take_back(p, &next_ms);
        /* Granted to this very place, maybe: sleeping looks first. */
        sleep_ms = next_ms < until_ms ? next_ms : until_ms;
        if (rc >= 0)
            rc = permits_sleep(p, place, sleep_ms);
        if (rc < 0)
            break;
    }
    return permits_leave(p, place, got);
}

static int grant_args(shd_lock *lock, int64_t ttl_ms,
                      const struct shd_grant *grant)
{
    int rc = writer(lock);

    if (rc == SHD_OK && (grant == NULL || ttl_ms < 0))
        rc = error_set(SHD_INVAL, "grant is NULL, or ttl_ms is negative");
    return rc;
}

int shd_lock_acquire(shd_lock *lock, int64_t wait_ms, int64_t ttl_ms,
                     struct shd_grant *grant)
{
    const struct permits *p;
    struct permit_place place;
    struct permit_grant got;
    uint64_t until_ms;
    int rc = grant_args(lock, ttl_ms, grant);

    if (rc == SHD_OK)
        rc = wait_deadline(wait_ms, &until_ms);
    if (rc != SHD_OK)
        return rc;
    p = view(lock);
    rc = try_hard(p, ttl_ms, &got);
    if (rc == SHD_BUSY && wait_ms != 0) {
        rc = permits_enter(p, ttl_ms, false, &got, &place);
        if (rc == 1)
            rc = stand_in_line(p, &place, until_ms, &got);
        if (rc == 1)
            rc = error_set(SHD_BUSY, "'%s' was not free within %lld ms",
                           p->object.name, (long long)wait_ms);
    }
    if (rc == SHD_OK)
        tell(&got, grant);
    return rc;
}

int shd_lock_request(shd_lock *lock, int64_t ttl_ms, struct shd_grant *grant,
                     uint64_t *ticket)
{
    const struct permits *p;
    struct permit_place place;
    struct permit_grant got;
    int rc = grant_args(lock, ttl_ms, grant);

    if (rc == SHD_OK && ticket == NULL)
        rc = error_set(SHD_INVAL, "shd_lock_request: ticket is NULL");
    if (rc != SHD_OK)
        return rc;
    p = view(lock);
    rc = try_hard(p, ttl_ms, &got);
    if (rc == SHD_BUSY)
        rc = permits_enter(p, ttl_ms, true, &got, &place);
    if (rc == SHD_OK)
        tell(&got, grant);
    if (rc == 1)
        *ticket = place.ticket << TICKET_BITS | place.waiter;
    return rc;
}

static int poll_args(shd_lock *lock, const struct shd_grant *grant,
                     uint64_t ticket, struct permit_place *place)
{
    place->ticket = ticket >> TICKET_BITS;
    place->waiter = (uint32_t)(ticket & ((1u << TICKET_BITS) - 1));
    return grant_args(lock, 0, grant);
}

int shd_lock_poll(shd_lock *lock, uint64_t ticket, struct shd_grant *grant)
{
    struct permit_place place;
    struct permit_grant got;
    int rc = poll_args(lock, grant, ticket, &place);

    if (rc != SHD_OK)
        return rc;
    rc = permits_look(view(lock), &place, &got);
    if (rc == 1) {
        rc = take_back(view(lock), NULL);
        if (rc < 0)
            return rc;
        rc = permits_look(view(lock), &place, &got);
    }
    if (rc == SHD_OK)
        tell(&got, grant);
    return rc;
}

int shd_lock_cancel(shd_lock *lock, uint64_t ticket, struct shd_grant *grant)
{
    struct permit_place place;
    struct permit_grant got;
    int rc = poll_args(lock, grant, ticket, &place);

    if (rc != SHD_OK)
        return rc;
    rc = permits_leave(view(lock), &place, &got);
    if (rc == SHD_OK)
        tell(&got, grant);
    return rc;
}

/* ---- holding ----------------------------------------------------------- */

int shd_lock_release(shd_lock *lock, uint64_t token)
{
    int rc = writer(lock);

    return rc == SHD_OK ? permits_release(view(lock), token) : rc;
}

int shd_lock_check(shd_lock *lock, uint64_t token, int64_t *ttl_ms)
{
    int rc = writer(lock);

    return rc == SHD_OK ? permits_holds(view(lock), token, ttl_ms) : rc;
}

int shd_lock_extend(shd_lock *lock, uint64_t token, int64_t ttl_ms)
{
    int rc = writer(lock);

    if (rc == SHD_OK && ttl_ms < 0)
        rc = error_set(SHD_INVAL, "ttl_ms is negative");
    return rc == SHD_OK ? permits_extend(view(lock), token, ttl_ms) : rc;
}

/* ---- looking ----------------------------------------------------------- */

int shd_lock_info(shd_lock *lock, struct shd_lock_info *info)
{
    struct permits_header h;
    const struct permits *p;
    int rc = reader(lock);

    if (rc == SHD_OK && (info == NULL || info->struct_size != sizeof(*info)))
        rc = error_set(SHD_INVAL,
                       "info is NULL, or its struct_size is not %zu",
                       sizeof(*info));
    if (rc != SHD_OK)
        return rc;
    p = view(lock);
    rc = permits_header_look(p, &h);
    if (rc != SHD_OK)
        return rc;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    info->kind = p->object.kind;
    info->generation = p->object.generation;
    info->permits = p->permits;
    info->taken = h.slots_taken;
    info->waiting = h.waiting;
    info->waiters_max = p->waiters_max;
    info->grants = h.tokens;
    info->deaths = h.deaths;
    info->expirations = h.expirations;
    memcpy(info->name, p->object.name, sizeof(info->name));
    return SHD_OK;
}

int shd_lock_holder(shd_lock *lock, uint32_t index, struct shd_holder *holder)
{
    struct permit_slot slot;
    const struct permits *p;
    int64_t now;
    int rc = reader(lock);

    if (rc == SHD_OK &&
        (holder == NULL || holder->struct_size != sizeof(*holder)))
        rc = error_set(SHD_INVAL,
                       "holder is NULL, or its struct_size is not %zu",
                       sizeof(*holder));
    if (rc != SHD_OK)
        return rc;
    p = view(lock);
    rc = permits_slot_at(p, index, &slot);
    if (rc != SHD_OK)
        return rc;
    now = (int64_t)clock_now_ms();
    memset(holder, 0, sizeof(*holder));
    holder->struct_size = sizeof(*holder);
    holder->owner = slot.owner;
    holder->dead = registry_is_dead(p->object.env, slot.owner);
    holder->token = slot.token;
    holder->held_ms = now - (int64_t)slot.since_ms;
    if (slot.expires_ms != 0) {
        holder->ttl_ms = (int64_t)slot.expires_ms - now;
        if (holder->ttl_ms == 0)
            holder->ttl_ms = -1;
    }
    return SHD_OK;
}
