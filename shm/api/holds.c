/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/api/holds.h"
#include "shm/base/error.h"
#include "shm/memory/catalogue.h"

#include <string.h>

static uint64_t locks_among(const struct segment *s, uint64_t incarnation,
                            uint32_t first, uint32_t count)
{
    uint32_t guards = catalogue_guards(s);
    uint64_t n = 0;

    for (uint32_t i = first; i < guards && i - first < count; i++)
        n += guard_holder(guard_at(s, i)) == incarnation;
    return n;
}

/* What a worker holds of one object. SHD_OK and the count, which may be 0. */
typedef int holds_counter(const struct guard_env *env,
                          const struct catalogue_object *object,
                          uint64_t incarnation, uint64_t *count);

static int locks_of(const struct guard_env *env,
                    const struct catalogue_object *object,
                    uint64_t incarnation, uint64_t *count)
{
    *count = locks_among(env->segment, incarnation, object->guards_first,
                         object->guards);
    return SHD_OK;
}

static const struct {
    uint32_t kind;
    holds_counter *count;
} COUNTERS[] = {
    {SHD_OBJECT_DICT, locks_of},
};

static holds_counter *counter_of(uint32_t kind)
{
    for (size_t i = 0; i < sizeof(COUNTERS) / sizeof(COUNTERS[0]); i++) {
        if (COUNTERS[i].kind == kind)
            return COUNTERS[i].count;
    }
    return locks_of;
}

static int nothing(uint64_t incarnation)
{
    return error_set(SHD_NOTFOUND, "worker %llu holds nothing there",
                     (unsigned long long)incarnation);
}

int holds_at(const struct guard_env *env, uint64_t incarnation,
             uint32_t index, struct shd_hold *hold)
{
    struct catalogue_object o;
    uint64_t count = 0;
    int rc = SHD_OK;

    if (incarnation == 0)
        return error_set(SHD_INVAL, "no worker has the incarnation 0");
    memset(&o, 0, sizeof(o));
    if (index == 0) {
        count = locks_among(env->segment, incarnation, 0, GUARD_FIRST_OBJECT);
    } else {
        rc = catalogue_at(env, index - 1, &o);
        if (rc == SHD_OK)
            rc = counter_of(o.kind)(env, &o, incarnation, &count);
    }
    if (rc != SHD_OK)
        return rc == SHD_NOTFOUND ? nothing(incarnation) : rc;
    if (count == 0)
        return nothing(incarnation);
    memset(hold, 0, sizeof(*hold));
    hold->struct_size = sizeof(*hold);
    hold->kind = o.kind;
    hold->count = count;
    memcpy(hold->object, o.name, sizeof(hold->object));
    return SHD_OK;
}

uint32_t holds_locks(const struct segment *s, uint64_t incarnation)
{
    return (uint32_t)locks_among(s, incarnation, 0, s->locks_max);
}
