/* SPDX-License-Identifier: BSD-2-Clause */
/* Elements of lists on a lease, and on their way from one list to another. The
 * contracts are in shdict.h. */
#include "shm/api/lease.h"
#include "shm/api/args.h"
#include "shm/dict/lease.h"
#include "shm/dict/store.h"
#include "shm/worker/registry.h"

#include "shm/api/gates.h" /* last */

#include <stdio.h>

/* ---- of the dead ---------------------------------------------------------
 */

int lease_look(const struct dict *d, uint32_t shard)
{
    uint64_t holder = 0;
    int given = 0, rc;

    lmove_go_on(d);
    while ((rc = leases_holder(d, shard, holder, &holder)) == 1) {
        if (!registry_is_dead(d->env, holder))
            continue;
        rc = leases_give_back(d, shard, holder);
        if (rc != SHD_OK)
            return rc;
        given = 1;
    }
    return rc < 0 ? rc : given;
}

static int look_at_all(const struct guard_env *env,
                       const struct catalogue_object *o)
{
    struct dict d;
    int rc = dict_view(env, o, &d), first = rc;

    for (uint32_t i = 0; rc == SHD_OK && i < d.shards; i++) {
        int given = lease_look(&d, i);

        /* One that is busy, or damaged, keeps nobody from the others. */
        if (given < 0 && first == SHD_OK)
            first = given;
    }
    return first;
}

int lease_reap_all(const struct guard_env *env)
{
    char why[256] = "";
    int first = SHD_OK;

    for (uint32_t i = 0; i < env->segment->objects_max; i++) {
        struct catalogue_object o, now;

        if (catalogue_at(env, i, &o) != SHD_OK || o.kind != SHD_OBJECT_DICT)
            continue;
        int rc = look_at_all(env, &o);

        /* One that was destroyed meanwhile is no damage. */
        if (first != SHD_OK || rc == SHD_OK || rc == SHD_GONE ||
            catalogue_at(env, i, &now) != SHD_OK ||
            now.generation != o.generation)
            continue;
        first = rc;
        snprintf(why, sizeof(why), "%s", shd_last_error());
    }
    return first == SHD_OK ? SHD_OK : error_set(first, "%s", why);
}

/* ---- ends of lists -------------------------------------------------------
 */

/* Is it worth another look? Nothing was found at that key. */
static bool found_more(const struct dict *d, const void *key, size_t len,
                       int *rc)
{
    int given;

    if (*rc != SHD_NOTFOUND)
        return false;
    given = lease_look(d, dict_place(d, key, len).shard);
    if (given < 0)
        *rc = given;
    return given > 0;
}

int shd_pop(shd_dict *dict, int left, const void *key, size_t key_len,
            void *buf, size_t size, struct shd_value *v)
{
    int rc = write_args(dict, key, key_len);

    if (rc != SHD_OK)
        return rc;
    if (v == NULL || (buf == NULL && size > 0))
        return error_set(SHD_INVAL, "shd_pop: v or buf is NULL");
    rc = store_pop(&dict->dict, left != 0, key, key_len, buf, size, v);
    if (rc == SHD_NOTFOUND && found_more(&dict->dict, key, key_len, &rc))
        rc = store_pop(&dict->dict, left != 0, key, key_len, buf, size, v);
    return rc;
}

int shd_lmove(shd_dict *dict, int from_left, const void *from, size_t from_len,
              int to_left, const void *to, size_t to_len, void *buf,
              size_t size, struct shd_value *v)
{
    const struct lmove m = {.from = from,
                            .to = to,
                            .from_len = from_len,
                            .to_len = to_len,
                            .from_left = from_left != 0,
                            .to_left = to_left != 0};
    int rc = write_args(dict, from, from_len);

    if (rc == SHD_OK)
        rc = key_check(to, to_len);
    if (rc != SHD_OK)
        return rc;
    if (v == NULL || (buf == NULL && size > 0))
        return error_set(SHD_INVAL, "shd_lmove: v or buf is NULL");
    rc = store_lmove(&dict->dict, &m, buf, size, v);
    if (found_more(&dict->dict, from, from_len, &rc))
        rc = store_lmove(&dict->dict, &m, buf, size, v);
    return rc;
}

int shd_ltake(shd_dict *dict, int left, const void *key, size_t key_len,
              void *buf, size_t size, struct shd_value *v, uint64_t *lease)
{
    const uint32_t how = lease_how(left != 0, LEASE_PLAIN, 0);
    int rc = write_args(dict, key, key_len);

    if (rc != SHD_OK)
        return rc;
    if (v == NULL || lease == NULL || (buf == NULL && size > 0))
        return error_set(SHD_INVAL, "shd_ltake: v, lease or buf is NULL");
    rc = leases_take(&dict->dict, left != 0, key, key_len, buf, size, v, how,
                     lease);
    if (found_more(&dict->dict, key, key_len, &rc))
        rc = leases_take(&dict->dict, left != 0, key, key_len, buf, size, v,
                         how, lease);
    return rc;
}

static int end_lease(shd_dict *dict, uint64_t lease, enum lease_end end)
{
    int rc = writer(dict);

    return rc != SHD_OK ? rc
                        : leases_end(&dict->dict, dict->owner->env.incarnation,
                                     lease, end);
}

int shd_lack(shd_dict *dict, uint64_t lease)
{
    return end_lease(dict, lease, LEASE_DONE);
}

int shd_lnack(shd_dict *dict, uint64_t lease)
{
    return end_lease(dict, lease, LEASE_BACK);
}
