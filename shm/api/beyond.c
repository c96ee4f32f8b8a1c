/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What ngx.shared.DICT lacks: compare-and-set, versions, many keys at once,
 * taking, touching, appending. As api/dict.c; the contracts are in shdict.h.
 */
#include "shm/api/args.h"
#include "shm/dict/multi.h"
#include "shm/dict/read.h"
#include "shm/dict/store.h"

#include "shm/api/gates.h" /* last */

/* ---- on a condition --------------------------------------------------- */

/* Fills what a store replaces by. SHD_NIL is a deletion. */
static int item_args(struct item *item, const void *key, size_t key_len,
                     uint32_t type, const void *value, size_t len,
                     double number, int64_t ttl_ms, int32_t flags)
{
    int rc = type == SHD_NIL ? SHD_OK : value_check(type, value, len, number);

    *item = (struct item){.key = key,
                          .key_len = key_len,
                          .type = type,
                          .flags = flags,
                          .value = value,
                          .len = type == SHD_STRING ? len : 0,
                          .number = number};
    return rc != SHD_OK ? rc : instant(ttl_ms, &item->expires);
}

/* Is nothing live there? What cas does that has nothing to store either. */
static int absent(const struct dict *d, const void *key, size_t key_len)
{
    struct shd_value v;
    int rc =
        read_value(d, key, key_len, NULL, 0, READ_NO_MARK | READ_DESCRIBE, &v);

    return rc == SHD_NOTFOUND ? SHD_OK : rc == SHD_OK ? SHD_EXISTS : rc;
}

/* `when` NULL: only if it is absent. */
static int change_if(const struct dict *d, struct item *item,
                     const struct condition *when, uint32_t *forcible)
{
    if (item->type == SHD_NIL)
        return when == NULL
                   ? absent(d, item->key, item->key_len)
                   : store_delete_if(d, item->key, item->key_len, when);
    item->when = when;
    return store_item(d, when == NULL ? SHD_ADD : SHD_REPLACE, item, forcible);
}

int shd_cas(shd_dict *dict, const void *key, size_t key_len, uint32_t old_type,
            const void *old, size_t old_len, double old_number, uint32_t type,
            const void *value, size_t len, double number, int64_t ttl_ms,
            int32_t flags, uint32_t *forcible)
{
    struct item before, item;
    struct condition when = {.value = &before};
    int rc;

    if (forcible != NULL)
        *forcible = 0;
    rc = write_args(dict, key, key_len);
    if (rc == SHD_OK)
        rc = item_args(&before, key, key_len, old_type, old, old_len,
                       old_number, 0, 0);
    if (rc == SHD_OK)
        rc = item_args(&item, key, key_len, type, value, len, number, ttl_ms,
                       flags);
    if (rc != SHD_OK)
        return rc;
    return change_if(&dict->dict, &item, old_type == SHD_NIL ? NULL : &when,
                     forcible);
}

int shd_get_versioned(shd_dict *dict, const void *key, size_t key_len,
                      void *buf, size_t size, struct shd_value *v,
                      uint64_t *version)
{
    struct read_versioned r;
    int rc = read_args(dict, key, key_len);

    if (rc != SHD_OK)
        return rc;
    if (v == NULL || version == NULL || (buf == NULL && size > 0))
        return error_set(SHD_INVAL,
                         "shd_get_versioned: v, version or buf is NULL");
    r.version = 0;
    rc = read_value(&dict->dict, key, key_len, buf, size, READ_VERSION,
                    &r.value);
    if (rc == SHD_OK && r.value.type == SHD_LIST)
        return SHD_ISLIST;
    if (rc == SHD_OK && r.version == 0) {
        rc = handle_writer(dict->owner);
        if (rc == SHD_OK)
            rc = store_version(&dict->dict, key, key_len, buf, size, &r.value,
                               &r.version);
    }
    if (rc == SHD_OK)
        *version = r.version;
    if (rc == SHD_OK || rc == SHD_SPACE)
        *v = r.value;
    return rc;
}

int shd_store_versioned(shd_dict *dict, const void *key, size_t key_len,
                        uint32_t type, const void *value, size_t len,
                        double number, int64_t ttl_ms, int32_t flags,
                        uint64_t *version, uint32_t *forcible)
{
    struct item item;
    struct condition when = {0};
    int rc;

    if (forcible != NULL)
        *forcible = 0;
    rc = write_args(dict, key, key_len);
    if (rc == SHD_OK)
        rc = item_args(&item, key, key_len, type, value, len, number, ttl_ms,
                       flags);
    if (rc == SHD_OK && version == NULL)
        rc = error_set(SHD_INVAL, "shd_store_versioned: version is NULL");
    if (rc != SHD_OK)
        return rc;
    item.kind = CELL_VERSIONED;
    when.version = *version;
    rc = change_if(&dict->dict, &item, *version == 0 ? NULL : &when, forcible);
    if (rc == SHD_OK)
        *version = type == SHD_NIL ? 0 : item.version;
    return rc;
}

/* ---- one key ---------------------------------------------------------- */

int shd_take(shd_dict *dict, const void *key, size_t key_len, void *buf,
             size_t size, struct shd_value *v)
{
    int rc = write_args(dict, key, key_len);

    if (rc != SHD_OK)
        return rc;
    if (v == NULL || (buf == NULL && size > 0))
        return error_set(SHD_INVAL, "shd_take: v or buf is NULL");
    return store_take(&dict->dict, key, key_len, buf, size, v);
}

int shd_touch(shd_dict *dict, const void *key, size_t key_len, int64_t ttl_ms)
{
    uint64_t expires = STORE_KEEP;
    int rc = write_args(dict, key, key_len);

    if (rc == SHD_OK && ttl_ms != SHD_KEEP_TTL)
        rc = instant(ttl_ms, &expires);
    return rc != SHD_OK ? rc : store_touch(&dict->dict, key, key_len, expires);
}

int shd_append(shd_dict *dict, int left, const void *key, size_t key_len,
               const void *value, size_t len, const void *init,
               size_t init_len, int64_t init_ttl_ms, uint64_t *length,
               uint32_t *forcible)
{
    struct append p = {.key = key,
                       .key_len = key_len,
                       .value = value != NULL ? value : "",
                       .len = len,
                       .init = init,
                       .init_len = init_len,
                       .left = left != 0};
    int rc;

    if (forcible != NULL)
        *forcible = 0;
    rc = write_args(dict, key, key_len);
    if (rc == SHD_OK)
        rc = value_check(SHD_STRING, value, len, 0);
    if (rc == SHD_OK && init != NULL)
        rc = value_check(SHD_STRING, init, init_len, 0);
    if (rc == SHD_OK)
        rc = instant(init != NULL ? init_ttl_ms : 0, &p.init_expires);
    if (rc == SHD_OK)
        rc = store_append(&dict->dict, &p, forcible);
    if (rc == SHD_OK && length != NULL)
        *length = p.length;
    return rc;
}

int shd_push_expire(shd_dict *dict, int left, const void *key, size_t key_len,
                    uint32_t type, const void *value, size_t len,
                    double number, int64_t ttl_ms, uint64_t *length)
{
    struct item element;
    uint64_t expires = 0;
    int rc = push_args(dict, key, key_len, &element, type, value, len, number);

    if (rc == SHD_OK)
        rc = instant(ttl_ms, &expires);
    return rc != SHD_OK ? rc
                        : store_push(&dict->dict, left != 0, &element, key,
                                     key_len, expires, length);
}

/* ---- many keys -------------------------------------------------------- */

/* Is the code an answer about a key? */
static bool is_answer(int code)
{
    return code == SHD_OK || code == SHD_NOTFOUND || code == SHD_ISLIST;
}

/* Nothing can be asked of the dict: the answer is the same for all. */
static int same_for_all(int32_t *codes, uint32_t count, int rc)
{
    for (uint32_t i = 0; i < count; i++)
        codes[i] = rc;
    return rc;
}

int shd_get_multi(shd_dict *dict, uint32_t count, const void *const *keys,
                  const size_t *key_lens, void *buf, size_t size,
                  struct shd_value *values, size_t *at, int32_t *codes)
{
    struct place place[MULTI_BATCH];
    size_t used = 0;
    int worst;

    if (count > 0 && (keys == NULL || key_lens == NULL || values == NULL ||
                      at == NULL || codes == NULL))
        return error_set(SHD_INVAL, "shd_get_multi: an array is NULL");
    if (buf == NULL && size > 0)
        return error_set(SHD_INVAL, "shd_get_multi: buf is NULL");
    worst = reader(dict);
    if (worst != SHD_OK)
        return same_for_all(codes, count, worst);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t n = i % MULTI_BATCH;
        int rc = key_check(keys[i], key_lens[i]);

        if (n == 0)
            multi_fetch(&dict->dict, keys + i, key_lens + i,
                        count - i < MULTI_BATCH ? count - i : MULTI_BATCH,
                        place);
        at[i] = used;
        values[i].type = SHD_NIL;
        if (rc == SHD_OK)
            rc = read_at(&dict->dict, &place[n], keys[i], key_lens[i],
                         buf == NULL ? NULL : (char *)buf + used, size - used,
                         &values[i]);
        if (rc == SHD_OK && values[i].type == SHD_LIST)
            rc = SHD_ISLIST;
        if (rc == SHD_OK && values[i].type == SHD_STRING)
            used += values[i].len;
        /* A look that a change made void may have left something there. */
        if (rc != SHD_OK && rc != SHD_SPACE && rc != SHD_ISLIST)
            values[i].type = SHD_NIL;
        codes[i] = rc;
        if (worst == SHD_OK && !is_answer(rc))
            worst = rc;
    }
    return worst;
}

static int set_one(const struct dict *d, uint32_t op, const void *key,
                   size_t key_len, const struct shd_value *v,
                   const void *bytes, uint32_t *forcible)
{
    struct item item;
    int rc = key_check(key, key_len);

    if (rc == SHD_OK)
        rc = item_args(&item, key, key_len, v->type, bytes, (size_t)v->len,
                       v->number, v->ttl_ms, v->flags);
    if (rc != SHD_OK)
        return rc;
    if (v->type != SHD_NIL)
        return store_item(d, op, &item, forcible);
    if ((op & 3) != SHD_SET)
        return error_set(SHD_INVAL, "a nil can only be set");
    rc = store_delete(d, key, key_len);
    return rc == SHD_NOTFOUND ? SHD_OK : rc;
}

int shd_set_multi(shd_dict *dict, uint32_t op, uint32_t count,
                  const void *const *keys, const size_t *key_lens,
                  const struct shd_value *values, const void *const *bytes,
                  int32_t *codes, uint32_t *forcible)
{
    int worst;

    if (forcible != NULL)
        *forcible = 0;
    if ((op & ~(uint32_t)SHD_SAFE) > SHD_REPLACE)
        return error_set(SHD_INVAL, "no such store operation: %u", op);
    if (count > 0 && (keys == NULL || key_lens == NULL || values == NULL ||
                      bytes == NULL || codes == NULL))
        return error_set(SHD_INVAL, "shd_set_multi: an array is NULL");
    worst = writer(dict);
    if (worst != SHD_OK)
        return same_for_all(codes, count, worst);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t forced = 0;

        if (i % MULTI_BATCH == 0)
            multi_fetch_to_change(&dict->dict, keys + i, key_lens + i,
                                  count - i < MULTI_BATCH ? count - i
                                                          : MULTI_BATCH);
        codes[i] = set_one(&dict->dict, op, keys[i], key_lens[i], &values[i],
                           bytes[i], &forced);
        if (forced != 0 && forcible != NULL)
            *forcible = 1;
        if (worst == SHD_OK && codes[i] != SHD_OK)
            worst = codes[i];
    }
    return worst;
}
