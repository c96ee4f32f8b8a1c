/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything that changes is one transaction under the lock, which begins
 * and ends with: a slot is free, or somebody waits, never both. So whoever
 * gives a permit back hands it to the first in line by name, and that one has
 * it whether it wakes up or not; if it has died, its death is proved like any
 * other holder's.
 *
 * Who is next must be alive: the head of the line is asked for under the lock
 * (one system call), because a permit given to the dead is only found at the
 * next look for the dead.
 */
#include "shm/ipc/permits.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/worker/doorbell.h"
#include "shm/worker/registry.h"

#include <stdio.h>
#include <string.h>

/* ---- numbers to addresses, checked ------------------------------------- */

static int corrupt(const struct permits *p, const char *what)
{
    return error_set(SHD_CORRUPT, "'%s': %s", p->object.name, what);
}

/* Waiters that may be touched. */
static uint32_t waiters_used(const struct permits *p)
{
    uint32_t used = atomic_load32(&p->header->waiters_used);

    return used < p->waiters_max ? used : p->waiters_max;
}

/* link is a number + 1; 0 and nonsense are NULL. */
static struct permit_waiter *waiter_of(const struct permits *p, uint32_t link)
{
    return link == 0 || link > waiters_used(p) ? NULL : &p->waiters[link - 1];
}

static struct permit_slot *slot_of(const struct permits *p, uint32_t link)
{
    return link == 0 || link > p->permits ? NULL : &p->slots[link - 1];
}

static uint64_t self(const struct permits *p)
{
    return atomic_load64(&p->object.env->incarnation);
}

static struct guard *guard(const struct permits *p)
{
    return object_guard(&p->object, 0);
}

static void begin(const struct permits *p, struct txn *t)
{
    txn_begin(t, p->object.env->segment, guard(p), PERMITS_WORDS);
}

/* ---- the line, inside a transaction ------------------------------------ */

/* SHD_CORRUPT before anything is stored. */
static int line_sound(const struct permits *p, const struct permit_waiter *w)
{
    uint32_t prev = atomic_load32(&w->prev), next = atomic_load32(&w->next);

    if (atomic_load32(&w->state) != PERMIT_WAITING ||
        (prev != 0 && waiter_of(p, prev) == NULL) ||
        (next != 0 && waiter_of(p, next) == NULL))
        return corrupt(p, "the line of waiters is broken");
    return SHD_OK;
}

/* 3 stores, of a waiter that line_sound. */
static void line_remove(const struct permits *p, struct txn *t,
                        struct permit_waiter *w)
{
    struct permits_header *h = p->header;
    uint32_t prev = atomic_load32(&w->prev), next = atomic_load32(&w->next);

    txn_store32(t, prev == 0 ? &h->waiters_first : &waiter_of(p, prev)->next,
                next);
    txn_store32(t, next == 0 ? &h->waiters_last : &waiter_of(p, next)->prev,
                prev);
    txn_store32(t, &h->waiting, atomic_load32(&h->waiting) - 1);
}

/* 4 stores. */
static void waiter_free(const struct permits *p, struct txn *t,
                        struct permit_waiter *w)
{
    struct permits_header *h = p->header;

    txn_store64(t, &w->owner, 0);
    txn_store32(t, &w->state, PERMIT_NOBODY);
    txn_store32(t, &w->next, atomic_load32(&h->waiters_free));
    txn_store32(t, &h->waiters_free, (uint32_t)(w - p->waiters) + 1);
}

/* Out of the line, or out of its grant, whatever it was. With the lock. */
static int waiter_drop(const struct permits *p, struct permit_waiter *w)
{
    struct txn t;
    bool waits = atomic_load32(&w->state) == PERMIT_WAITING;
    int rc = waits ? line_sound(p, w) : SHD_OK;

    if (rc != SHD_OK)
        return rc;
    begin(p, &t);
    if (waits)
        line_remove(p, &t, w);
    waiter_free(p, &t, w);
    txn_commit(&t);
    return SHD_OK;
}

/* The first in line who can be given a permit; *out is NULL if nobody waits
 * any more: those before it, who have died, leave the line. */
static int line_next(const struct permits *p, struct permit_waiter **out)
{
    uint32_t link;

    *out = NULL;
    while ((link = atomic_load32(&p->header->waiters_first)) != 0) {
        struct permit_waiter *w = waiter_of(p, link);
        uint64_t owner;
        int rc = w != NULL ? line_sound(p, w)
                           : corrupt(p, "the line of waiters is broken");

        if (rc != SHD_OK)
            return rc;
        owner = atomic_load64(&w->owner);
        /* Nor does one that drains become leader. */
        if (!registry_is_dead(p->object.env, owner) &&
            (p->object.kind != SHD_OBJECT_LEADER ||
             !registry_is_draining(p->object.env, owner))) {
            *out = w;
            return SHD_OK;
        }
        rc = waiter_drop(p, w);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

/* ---- a slot changes hands, inside a transaction ------------------------ */

/* To `owner`, with a new token: 7 stores. It was free, or another's; `limited`
 * is counted by the caller. */
static uint64_t slot_give(const struct permits *p, struct txn *t,
                          struct permit_slot *slot, uint64_t owner,
                          int64_t ttl_ms)
{
    struct permits_header *h = p->header;
    uint64_t number = atomic_load64(&h->tokens) + 1;
    uint64_t token = number * p->permits + (uint64_t)(slot - p->slots);
    uint64_t now = clock_now_ms();

    txn_store64(t, &h->tokens, number);
    txn_store64(t, &slot->owner, owner);
    txn_store64(t, &slot->token, token);
    txn_store64(t, &slot->expires_ms, ttl_ms > 0 ? now + (uint64_t)ttl_ms : 0);
    txn_store64(t, &slot->since_ms, now);
    return token;
}

/* How many of the slots with a limit there are after this one changes. */
static void count_limited(const struct permits *p, struct txn *t, bool was,
                          bool will_be)
{
    uint32_t n = atomic_load32(&p->header->limited);

    if (was != will_be)
        txn_store32(t, &p->header->limited, will_be ? n + 1 : n - 1);
}

static void slot_to_waiter(const struct permits *p, struct txn *t,
                           struct permit_slot *slot, struct permit_waiter *w,
                           uint32_t mark)
{
    int64_t ttl_ms = (int64_t)atomic_load64((const uint64_t *)&w->ttl_ms);
    uint64_t token;

    line_remove(p, t, w);
    count_limited(p, t, atomic_load64(&slot->expires_ms) != 0, ttl_ms > 0);
    token = slot_give(p, t, slot, atomic_load64(&w->owner), ttl_ms);
    txn_store64(t, &w->token, token);
    txn_store32(t, &slot->mark, mark);
    txn_store32(t, &w->mark, mark);
    txn_store32(t, &w->state, PERMIT_GRANTED);
}

static void slot_to_nobody(const struct permits *p, struct txn *t,
                           struct permit_slot *slot, uint32_t mark)
{
    struct permits_header *h = p->header;

    count_limited(p, t, atomic_load64(&slot->expires_ms) != 0, false);
    txn_store64(t, &slot->owner, 0);
    txn_store64(t, &slot->expires_ms, 0);
    txn_store32(t, &slot->next, atomic_load32(&h->slots_free));
    txn_store32(t, &slot->mark, mark);
    txn_store32(t, &h->slots_free, (uint32_t)(slot - p->slots) + 1);
    txn_store32(t, &h->slots_taken, atomic_load32(&h->slots_taken) - 1);
}

/* Who is to be told that a permit is its own. */
struct told {
    uint64_t owner; /* 0: nobody */
    uint32_t posted;
    bool bell;
};

/* After a commit, with the lock. */
static void post(const struct permits *p, const struct permit_waiter *w,
                 struct told *told)
{
    const struct segment *s = p->object.env->segment;
    struct guard_wait *place;

    told->owner = atomic_load64(&w->owner);
    told->bell = atomic_load32(&w->bell) != 0;
    place = registry_wait(s, registry_index(told->owner));
    told->posted = place != NULL ? wait_post(place) : 0;
}

static void tell(const struct permits *p, const struct told *told)
{
    const struct segment *s = p->object.env->segment;
    uint32_t index = registry_index(told->owner);

    if (told->posted != 0)
        wait_wake(registry_wait(s, index), told->posted, WAIT_ALL);
    if (told->bell)
        doorbell_ring(p->object.env, index);
}

/* From its holder to the next in line. With the lock. */
static int slot_pass_on(const struct permits *p, struct permit_slot *slot,
                        uint32_t mark, struct told *told)
{
    struct permits_header *h = p->header;
    struct permit_waiter *w;
    struct txn t;
    int rc = line_next(p, &w);

    memset(told, 0, sizeof(*told));
    if (rc != SHD_OK)
        return rc;
    begin(p, &t);
    if (mark == PERMIT_DIED)
        txn_store64(&t, &h->deaths, atomic_load64(&h->deaths) + 1);
    if (mark == PERMIT_EXPIRED)
        txn_store64(&t, &h->expirations, atomic_load64(&h->expirations) + 1);
    if (w != NULL)
        slot_to_waiter(p, &t, slot, w, mark);
    else
        slot_to_nobody(p, &t, slot, mark);
    txn_commit(&t);
    if (w != NULL)
        post(p, w, told);
    return SHD_OK;
}

/* A free one to this worker. With the lock. */
static int slot_take(const struct permits *p, int64_t ttl_ms,
                     struct permit_grant *grant)
{
    struct permits_header *h = p->header;
    struct permit_slot *slot = slot_of(p, atomic_load32(&h->slots_free));
    struct txn t;

    if (slot == NULL || atomic_load64(&slot->owner) != 0)
        return corrupt(p, "the free permits are none");
    grant->mark = atomic_load32(&slot->mark);
    begin(p, &t);
    txn_store32(&t, &h->slots_free, atomic_load32(&slot->next));
    txn_store32(&t, &h->slots_taken, atomic_load32(&h->slots_taken) + 1);
    txn_store32(&t, &slot->next, 0);
    count_limited(p, &t, false, ttl_ms > 0);
    grant->token = slot_give(p, &t, slot, self(p), ttl_ms);
    txn_commit(&t);
    return SHD_OK;
}

/* ---- acquiring --------------------------------------------------------- */

static int lock(const struct permits *p)
{
    return object_lock(&p->object, 0);
}

static void unlock(const struct permits *p)
{
    object_unlock(&p->object, 0);
}


/* A free waiter with memory; *fresh: it never was one. SHD_FULL. */
static int waiter_find_free(const struct permits *p, uint32_t *link,
                            bool *fresh)
{
    uint32_t used = waiters_used(p);
    const struct permit_waiter *w;

    *link = atomic_load32(&p->header->waiters_free);
    *fresh = *link == 0;
    if (!*fresh) {
        w = waiter_of(p, *link);
        if (w == NULL || atomic_load32(&w->state) != PERMIT_NOBODY)
            return corrupt(p, "the free waiters are none");
        return SHD_OK;
    }
    if (used == p->waiters_max)
        return error_set(SHD_FULL,
                         "%u wait for '%s' already: make it with more "
                         "waiters_max",
                         used, p->object.name);
    *link = used + 1;
    return segment_commit(
        p->object.env->segment,
        segment_offset(p->object.env->segment, &p->waiters[used]),
        sizeof(*w));
}

/* To the end of the line. With the lock. */
static int enqueue(const struct permits *p, int64_t ttl_ms, bool bell,
                   struct permit_place *place)
{
    struct permits_header *h = p->header;
    uint32_t last = atomic_load32(&h->waiters_last), link;
    struct permit_waiter *w;
    struct txn t;
    bool fresh;
    int rc = waiter_find_free(p, &link, &fresh);

    if (rc == SHD_OK && last != 0 && waiter_of(p, last) == NULL)
        rc = corrupt(p, "the line of waiters is broken");
    if (rc != SHD_OK)
        return rc;
    w = &p->waiters[link - 1];
    place->waiter = link - 1;
    place->ticket = atomic_load64(&h->tickets) + 1;
    begin(p, &t);
    if (fresh)
        txn_store32(&t, &h->waiters_used, link);
    else
        txn_store32(&t, &h->waiters_free, atomic_load32(&w->next));
    txn_store64(&t, &h->tickets, place->ticket);
    txn_store64(&t, &w->owner, self(p));
    txn_store64(&t, &w->ticket, place->ticket);
    txn_store64(&t, &w->token, 0);
    txn_store64(&t, (uint64_t *)&w->ttl_ms, (uint64_t)ttl_ms);
    txn_store32(&t, &w->state, PERMIT_WAITING);
    txn_store32(&t, &w->bell, bell);
    txn_store32(&t, &w->next, 0);
    txn_store32(&t, &w->prev, last);
    txn_store32(&t, last == 0 ? &h->waiters_first : &waiter_of(p, last)->next,
                link);
    txn_store32(&t, &h->waiters_last, link);
    txn_store32(&t, &h->waiting, atomic_load32(&h->waiting) + 1);
    txn_commit(&t);
    return 1;
}

int permits_try(const struct permits *p, int64_t ttl_ms,
                struct permit_grant *grant)
{
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    rc = atomic_load32(&p->header->slots_free) != 0
             ? slot_take(p, ttl_ms, grant)
             : SHD_BUSY;
    unlock(p);
    if (rc == SHD_BUSY)
        return error_set(SHD_BUSY, "'%s' is held by others", p->object.name);
    return rc;
}

int permits_enter(const struct permits *p, int64_t ttl_ms, bool bell,
                  struct permit_grant *grant, struct permit_place *place)
{
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    rc = atomic_load32(&p->header->slots_free) != 0
             ? slot_take(p, ttl_ms, grant)
             : enqueue(p, ttl_ms, bell, place);
    unlock(p);
    return rc;
}

static bool place_is(const struct permits *p, const struct permit_place *place)
{
    const struct permit_waiter *w = waiter_of(p, place->waiter + 1);

    return w != NULL && atomic_load64(&w->ticket) == place->ticket &&
           atomic_load64(&w->owner) == self(p);
}

/* Takes what was granted, or leaves. With the lock. */
static int collect(const struct permits *p, const struct permit_place *place,
                   struct permit_grant *grant)
{
    struct permit_waiter *w = &p->waiters[place->waiter];
    uint32_t state;
    int rc;

    if (!place_is(p, place))
        return error_set(SHD_LOST, "no place in line for '%s'",
                         p->object.name);
    state = atomic_load32(&w->state);
    grant->token = atomic_load64(&w->token);
    grant->mark = atomic_load32(&w->mark);
    rc = waiter_drop(p, w);
    if (rc != SHD_OK)
        return rc;
    return state == PERMIT_GRANTED ? SHD_OK : 1;
}

int permits_sleep(const struct permits *p, const struct permit_place *place,
                  uint64_t until_ms)
{
    const struct segment *s = p->object.env->segment;
    struct guard_wait *w = registry_wait(s, registry_index(self(p)));
    bool waits = false;
    uint32_t turn = 0;
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    if (w != NULL && place_is(p, place) &&
        atomic_load32(&p->waiters[place->waiter].state) == PERMIT_WAITING) {
        turn = wait_arm(w);
        waits = true;
    }
    unlock(p);
    if (waits)
        wait_sleep(w, turn, until_ms);
    return SHD_OK;
}

int permits_look(const struct permits *p, const struct permit_place *place,
                 struct permit_grant *grant)
{
    if (place_is(p, place) &&
        atomic_load32_acquire(&p->waiters[place->waiter].state) ==
            PERMIT_WAITING &&
        !object_gone(&p->object, 0))
        return 1;
    return permits_leave(p, place, grant);
}

int permits_leave(const struct permits *p, const struct permit_place *place,
                  struct permit_grant *grant)
{
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    rc = collect(p, place, grant);
    unlock(p);
    return rc;
}

/* ---- holding ----------------------------------------------------------- */

/* The slot this worker holds by that token, or NULL. With the lock. */
static struct permit_slot *own_slot(const struct permits *p, uint64_t token)
{
    struct permit_slot *slot = &p->slots[token % p->permits];

    if (atomic_load64(&slot->token) != token || self(p) == 0 ||
        atomic_load64(&slot->owner) != self(p))
        return NULL;
    return slot;
}

static int lost(const struct permits *p, uint64_t token)
{
    return error_set(SHD_LOST, "'%s' is not held by this worker with token "
                     "%llu",
                     p->object.name, (unsigned long long)token);
}

int permits_release(const struct permits *p, uint64_t token)
{
    struct permit_slot *slot;
    struct told told = {0};
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    slot = own_slot(p, token);
    rc = slot == NULL ? lost(p, token)
                      : slot_pass_on(p, slot, PERMIT_RELEASED, &told);
    unlock(p);
    tell(p, &told);
    return rc;
}

/* ---- leaders ----------------------------------------------------------- */

/* With the lock: this worker's place in line, NULL: it has none. One that was
 * granted is dropped: the slot tells. */
static int own_place(const struct permits *p, struct permit_waiter **out)
{
    *out = NULL;
    for (uint32_t i = 0; i < waiters_used(p); i++) {
        struct permit_waiter *w = &p->waiters[i];

        if (self(p) == 0 || atomic_load64(&w->owner) != self(p))
            continue;
        if (atomic_load32(&w->state) == PERMIT_WAITING)
            *out = w;
        else if (atomic_load32(&w->state) == PERMIT_GRANTED)
            return waiter_drop(p, w);
    }
    return SHD_OK;
}

static bool own_leads(const struct permits *p, struct permit_grant *grant)
{
    const struct permit_slot *slot = &p->slots[0];

    grant->token = atomic_load64(&slot->token);
    grant->mark = atomic_load32(&slot->mark);
    return self(p) != 0 && atomic_load64(&slot->owner) == self(p);
}

int permits_stand(const struct permits *p, struct permit_grant *grant,
                  struct permit_place *place)
{
    struct permit_waiter *w;
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    rc = own_place(p, &w);
    if (rc == SHD_OK && !own_leads(p, grant)) {
        if (w != NULL) {
            place->waiter = (uint32_t)(w - p->waiters);
            place->ticket = atomic_load64(&w->ticket);
            rc = 1;
        } else {
            rc = atomic_load32(&p->header->slots_free) != 0
                     ? slot_take(p, 0, grant)
                     : enqueue(p, 0, true, place);
        }
    }
    unlock(p);
    return rc;
}

/* Out of the line. With the lock. */
static int step_back(const struct permits *p)
{
    struct permit_waiter *w;
    int rc = own_place(p, &w);

    return rc == SHD_OK && w != NULL ? waiter_drop(p, w) : rc;
}

int permits_hand_over(const struct permits *p, struct permit_grant *grant)
{
    struct permit_waiter *next;
    struct told told = {0};
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    rc = step_back(p);
    if (rc == SHD_OK && !own_leads(p, grant)) {
        rc = 1;
    } else if (rc == SHD_OK) {
        rc = line_next(p, &next);
        if (rc == SHD_OK && next != NULL) {
            rc = slot_pass_on(p, &p->slots[0], PERMIT_RELEASED, &told);
            rc = rc == SHD_OK ? 1 : rc;
        }
    }
    unlock(p);
    tell(p, &told);
    return rc;
}

int permits_resign(const struct permits *p)
{
    struct permit_grant grant;
    struct told told = {0};
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    rc = step_back(p);
    if (rc == SHD_OK && own_leads(p, &grant))
        rc = slot_pass_on(p, &p->slots[0], PERMIT_RELEASED, &told);
    unlock(p);
    tell(p, &told);
    return rc;
}

/* ---- looking after it -------------------------------------------------- */

int permits_holds(const struct permits *p, uint64_t token, int64_t *ttl_ms)
{
    const struct permit_slot *slot = &p->slots[token % p->permits];
    uint64_t expires, now;
    struct permit_slot copy;
    int rc = permits_slot_at(p, (uint32_t)(slot - p->slots), &copy);

    if (rc != SHD_OK && rc != SHD_NOTFOUND)
        return rc;
    expires = copy.expires_ms;
    now = expires != 0 ? clock_now_ms() : 0;
    if (rc != SHD_OK || copy.token != token || copy.owner != self(p) ||
        (expires != 0 && now >= expires))
        return lost(p, token);
    if (ttl_ms != NULL)
        *ttl_ms = expires != 0 ? (int64_t)(expires - now) : 0;
    return SHD_OK;
}

int permits_extend(const struct permits *p, uint64_t token, int64_t ttl_ms)
{
    struct permit_slot *slot;
    struct txn t;
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    slot = own_slot(p, token);
    if (slot == NULL) {
        rc = lost(p, token);
    } else {
        begin(p, &t);
        count_limited(p, &t, atomic_load64(&slot->expires_ms) != 0,
                      ttl_ms > 0);
        txn_store64(&t, &slot->expires_ms,
                    ttl_ms > 0 ? clock_now_ms() + (uint64_t)ttl_ms : 0);
        txn_commit(&t);
    }
    unlock(p);
    return rc;
}

/* ---- taking back ------------------------------------------------------- */

int permits_expire(const struct permits *p, uint64_t *next_ms)
{
    uint64_t soonest = UINT64_MAX, now;
    int taken = 0, rc;

    if (next_ms != NULL)
        *next_ms = UINT64_MAX;
    if (atomic_load32(&p->header->limited) == 0)
        return 0;
    rc = lock(p);
    if (rc != SHD_OK)
        return rc;
    now = clock_now_ms();
    for (uint32_t i = 0; i < p->permits && rc == SHD_OK; i++) {
        uint64_t expires = atomic_load64(&p->slots[i].expires_ms);
        struct told told;

        if (expires == 0)
            continue;
        if (now < expires) {
            soonest = expires < soonest ? expires : soonest;
            continue;
        }
        rc = slot_pass_on(p, &p->slots[i], PERMIT_EXPIRED, &told);
        tell(p, &told);
        taken += rc == SHD_OK;
    }
    unlock(p);
    if (next_ms != NULL)
        *next_ms = soonest;
    return rc == SHD_OK ? taken : rc;
}

/* With the lock. */
static int bury_slots(const struct permits *p, uint64_t incarnation,
                      int *taken)
{
    for (uint32_t i = 0; i < p->permits; i++) {
        struct told told;
        int rc;

        if (atomic_load64(&p->slots[i].owner) != incarnation)
            continue;
        rc = slot_pass_on(p, &p->slots[i], PERMIT_DIED, &told);
        if (rc != SHD_OK)
            return rc;
        tell(p, &told);
        (*taken)++;
    }
    return SHD_OK;
}

static int bury_waiters(const struct permits *p, uint64_t incarnation)
{
    for (uint32_t i = 0; i < waiters_used(p); i++) {
        int rc;

        if (atomic_load64(&p->waiters[i].owner) != incarnation)
            continue;
        rc = waiter_drop(p, &p->waiters[i]);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

int permits_bury(const struct permits *p, uint64_t incarnation)
{
    int taken = 0;
    int rc = lock(p);

    if (rc != SHD_OK)
        return rc;
    /* First its places in line: a permit must not be given to it. */
    rc = bury_waiters(p, incarnation);
    if (rc == SHD_OK)
        rc = bury_slots(p, incarnation, &taken);
    unlock(p);
    return rc == SHD_OK ? taken : rc;
}

/* Some of those that were found alive: most hold more than one. */
#define ALIVE 64u
struct alive {
    uint64_t owner[ALIVE];
};

static int bury_if_dead(const struct permits *p, uint64_t owner,
                        struct alive *alive)
{
    uint64_t *seen = &alive->owner[registry_index(owner) % ALIVE];

    if (owner == 0 || owner == *seen)
        return 0;
    if (registry_is_dead(p->object.env, owner))
        return permits_bury(p, owner);
    *seen = owner;
    return 0;
}

int permits_bury_all(const struct permits *p)
{
    struct alive alive;
    int taken = 0, rc = 0;

    memset(&alive, 0, sizeof(alive));
    for (uint32_t i = 0; i < p->permits && rc >= 0; i++) {
        rc = bury_if_dead(p, atomic_load64(&p->slots[i].owner), &alive);
        taken += rc > 0 ? rc : 0;
    }
    for (uint32_t i = 0; i < waiters_used(p) && rc >= 0; i++) {
        rc = bury_if_dead(p, atomic_load64(&p->waiters[i].owner), &alive);
        taken += rc > 0 ? rc : 0;
    }
    return rc < 0 ? rc : taken;
}
