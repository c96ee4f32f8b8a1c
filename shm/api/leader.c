/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The public leader: an object of one permit, which a worker stands for rather
 * than waits for, and hands over when it drains. The contracts are in shdict.h.
 *
 * Nothing of it is kept in this process: who leads, and who stands, is what the
 * segment says. So any thread may look, and a child of fork leads nothing.
 */
#include "shm/api/object.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/ipc/permits.h"
#include "shm/worker/registry.h"

#include "shm/api/gates.h" /* last */

#include <string.h>

struct shd_leader {
    struct handle_object h;
};

static const struct permits *view(const shd_leader *leader)
{
    return (const struct permits *)(const void *)leader->h.view;
}

static int writer(shd_leader *leader)
{
    return handle_object_writer(leader == NULL ? NULL : &leader->h,
                                SHD_OBJECT_LEADER);
}

static int open_view(const struct guard_env *env, const char *name,
                     const void *options, bool create, void *out)
{
    const struct shd_lock_options *o = options;

    return permits_open(env, name, SHD_OBJECT_LEADER, 1, o->waiters_max,
                        create, out);
}

int shd_leader_open(shd_segment *segment, const char *name,
                    const struct shd_lock_options *o, shd_leader **out)
{
    struct shd_lock_options options;
    struct handle_opening how = {.open = open_view, .options = &options};
    struct handle_object *h;
    int rc = handle_options(o, &options, sizeof(options),
                            "struct shd_lock_options");

    if (rc == SHD_OK && (out == NULL || options.permits > 1 ||
                         (options.flags & ~(uint32_t)SHD_LOCK_CREATE) != 0))
        rc = error_set(SHD_INVAL, "shd_leader_open: out is NULL, or unknown "
                                  "flags, or more than one permit");
    if (rc != SHD_OK)
        return rc;
    how.may_create = (options.flags & SHD_LOCK_CREATE) != 0;
    rc = handle_object_open(segment, name, &how, &h);
    if (rc == SHD_OK)
        *out = (shd_leader *)(void *)h;
    return rc;
}

int shd_leader_close(shd_leader *leader)
{
    return handle_object_close(leader == NULL ? NULL : &leader->h,
                               SHD_OBJECT_LEADER);
}

/* One look: 0 *got, 1 another leads. A worker that drains stands no more, and
 * leads only as long as nobody else stands. */
static int look(const struct permits *p, struct permit_grant *got,
                struct permit_place *place)
{
    const struct guard_env *env = p->object.env;
    struct permit_slot slot;
    int rc = permits_slot_at(p, 0, &slot);

    if (rc != SHD_OK && rc != SHD_NOTFOUND)
        return rc;
    place->ticket = 0;
    if (registry_is_draining(env, env->incarnation))
        return permits_hand_over(p, got);
    if (rc == SHD_OK && slot.owner == env->incarnation) {
        got->token = slot.token;
        got->mark = slot.mark;
        return SHD_OK;
    }
    if (rc == SHD_OK && registry_is_dead(env, slot.owner)) {
        rc = permits_bury_all(p);
        if (rc < 0)
            return rc;
    }
    return permits_stand(p, got, place);
}

int shd_leader_look(shd_leader *leader, int64_t wait_ms,
                    struct shd_grant *grant)
{
    struct permit_place place;
    struct permit_grant got;
    uint64_t until_ms;
    int rc = writer(leader);

    if (rc == SHD_OK && grant == NULL)
        rc = error_set(SHD_INVAL, "grant is NULL");
    if (rc == SHD_OK)
        rc = wait_deadline(wait_ms, &until_ms);
    if (rc != SHD_OK)
        return rc;
    for (;;) {
        rc = look(view(leader), &got, &place);
        if (rc != 1 || place.ticket == 0 || until_ms == 0 ||
            clock_now_ms() >= until_ms)
            break;
        rc = permits_sleep(view(leader), &place, until_ms);
        if (rc != SHD_OK)
            break;
    }
    if (rc == SHD_OK) {
        memset(grant, 0, sizeof(*grant));
        grant->token = got.token;
        grant->former = got.mark;
    }
    return rc;
}

int shd_leader_resign(shd_leader *leader)
{
    int rc = writer(leader);

    return rc != SHD_OK ? rc : permits_resign(view(leader));
}
