/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The public dictionary: checks the arguments and the handle, turns times to
 * live into instants, and calls the floor below. The contracts are in
 * shdict.h.
 */
#include "shm/api/args.h"
#include "shm/base/error.h"
#include "shm/base/hash.h"
#include "shm/dict/account.h"
#include "shm/dict/entry.h"
#include "shm/dict/picture.h"
#include "shm/dict/read.h"
#include "shm/dict/resize.h"
#include "shm/dict/store.h"
#include "shm/dict/walk.h"

#include "shm/api/gates.h" /* last */

#include <stdlib.h>
#include <string.h>

/* ---- handles ---------------------------------------------------------- */

static struct shd_dict *find_open(shd_segment *segment, const char *name,
                                  uint64_t generation)
{
    for (struct shd_dict *d = segment->dicts; d != NULL; d = d->next) {
        if (d->dict.generation == generation &&
            strcmp(d->dict.name, name) == 0)
            return d;
    }
    return NULL;
}

/* A closed handle answers SHD_CLOSED for as long as can be: the oldest is used
 * again only when there are many, so that opening and closing for ever takes
 * no memory. */
static struct shd_dict *find_closed(shd_segment *segment)
{
    struct shd_dict *oldest = NULL;
    uint32_t closed = 0;

    for (struct shd_dict *d = segment->dicts; d != NULL; d = d->next) {
        if (d->open == 0) {
            oldest = d;
            closed++;
        }
    }
    return closed >= HANDLE_CLOSED_MAX ? oldest : NULL;
}

static int intern(shd_segment *segment, const struct dict *dict,
                  shd_dict **out)
{
    struct shd_dict *d = find_open(segment, dict->name, dict->generation);

    if (d == NULL) {
        d = find_closed(segment);
        if (d == NULL) {
            d = calloc(1, sizeof(*d));
            if (d == NULL)
                return error_set(SHD_NOMEM, "no memory for a dict handle");
            d->owner = segment;
            d->next = segment->dicts;
            segment->dicts = d;
        }
    }
    /* One that was closed may have been so with its segment, which lies
     * elsewhere since. */
    if (d->open == 0)
        d->dict = *dict;
    atomic_store32(&d->open, d->open + 1);
    *out = d;
    return SHD_OK;
}

int shd_dict_open(shd_segment *segment, const char *name,
                  const struct shd_dict_options *o, shd_dict **out)
{
    struct shd_dict_options options = {0};
    struct dict dict;
    int rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    if (name == NULL || out == NULL)
        return error_set(SHD_INVAL, "shd_dict_open: name or out is NULL");
    if (o != NULL) {
        if (o->struct_size < sizeof(uint32_t) ||
            o->struct_size > sizeof(options))
            return error_set(SHD_INVAL,
                             "struct shd_dict_options of %u bytes: this "
                             "library knows %zu",
                             o->struct_size, sizeof(options));
        memcpy(&options, o, o->struct_size);
    }
    if ((options.flags & ~(uint32_t)SHD_DICT_ANY_CAPACITY) != 0)
        return error_set(SHD_INVAL, "shd_dict_open: unknown flags %u",
                         options.flags);
    rc = catalogue_name_check(name);
    if (rc != SHD_OK)
        return rc;
    rc = dict_open(&segment->env, name, NULL, &dict);
    if (rc == SHD_NOTFOUND && options.capacity_bytes != 0)
        rc = handle_writer(segment);
    if (rc == SHD_OK)
        rc = dict_open(&segment->env, name, &options, &dict);
    if (rc == SHD_OK && segment->segment.prefault) {
        rc = handle_writer(segment);
        if (rc == SHD_OK)
            rc = dict_prefault(&dict);
    }
    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    rc = intern(segment, &dict, out);
    handle_tables_unlock();
    return rc;
}

int shd_dict_close(shd_dict *dict)
{
    int rc = SHD_OK;

    if (dict == NULL)
        return error_set(SHD_INVAL, "the dict is NULL");
    handle_tables_lock();
    if (dict->open == 0)
        rc = error_set(SHD_CLOSED, "the dict is closed");
    else
        atomic_store32(&dict->open, dict->open - 1);
    handle_tables_unlock();
    return rc;
}

int shd_dict_destroy(shd_segment *segment, const char *name)
{
    int rc = handle_writer(segment);

    if (rc != SHD_OK)
        return rc;
    if (name == NULL)
        return error_set(SHD_INVAL, "the name is NULL");
    return catalogue_destroy(&segment->env, name);
}

/* ---- one key ---------------------------------------------------------- */

static inline bool get_args_are_good(const shd_dict *dict, const void *key,
                                     size_t key_len, const void *buf,
                                     size_t size, const struct shd_value *v)
{
    return dict != NULL && atomic_load32(&dict->open) != 0 &&
           key_is_good(key, key_len) && v != NULL &&
           (buf != NULL || size == 0);
}

/* Apart, as all that is not the rule: what is then needs no stack. */
static __attribute__((noinline)) int
refuse_get(const shd_dict *dict, const void *key, size_t key_len)
{
    int rc = read_args(dict, key, key_len);

    return rc != SHD_OK
               ? rc
               : error_set(SHD_INVAL, "shd_get: v or buf is NULL");
}

int shd_get(shd_dict *dict, const void *key, size_t key_len, void *buf,
            size_t size, struct shd_value *v)
{
    if (!get_args_are_good(dict, key, key_len, buf, size, v))
        return refuse_get(dict, key, key_len);
    return read_get(&dict->dict, key, key_len, buf, size, v);
}

int shd_get_stale(shd_dict *dict, const void *key, size_t key_len, void *buf,
                  size_t size, struct shd_value *v)
{
    int rc;

    if (!get_args_are_good(dict, key, key_len, buf, size, v))
        return refuse_get(dict, key, key_len);
    rc = read_value(&dict->dict, key, key_len, buf, size, READ_STALE, v);
    return rc == SHD_OK && v->type == SHD_LIST ? SHD_ISLIST : rc;
}

int shd_ttl(shd_dict *dict, const void *key, size_t key_len, int64_t *ttl_ms)
{
    struct shd_value v;
    int rc = read_args(dict, key, key_len);

    if (rc != SHD_OK)
        return rc;
    if (ttl_ms == NULL)
        return error_set(SHD_INVAL, "shd_ttl: ttl_ms is NULL");
    rc = read_value(&dict->dict, key, key_len, NULL, 0,
                    READ_STALE | READ_NO_MARK | READ_DESCRIBE, &v);
    if (rc == SHD_OK)
        *ttl_ms = v.ttl_ms;
    return rc;
}

int shd_llen(shd_dict *dict, const void *key, size_t key_len, uint64_t *length)
{
    struct shd_value v;
    int rc = read_args(dict, key, key_len);

    if (rc != SHD_OK)
        return rc;
    if (length == NULL)
        return error_set(SHD_INVAL, "shd_llen: length is NULL");
    rc = read_value(&dict->dict, key, key_len, NULL, 0, READ_DESCRIBE, &v);
    if (rc == SHD_NOTFOUND) {
        *length = 0;
        return SHD_OK;
    }
    if (rc != SHD_OK)
        return rc;
    if (v.type != SHD_LIST)
        return SHD_NOTLIST;
    *length = v.len;
    return SHD_OK;
}

/* Any store, and any fault. */
static __attribute__((noinline)) int
store_other(shd_dict *dict, uint32_t op, const void *key, size_t key_len,
            uint32_t type, const void *value, size_t len, double number,
            int64_t ttl_ms, int32_t flags, uint32_t *forcible)
{
    struct item item = {.key = key,
                        .key_len = key_len,
                        .type = type,
                        .flags = flags,
                        .value = value,
                        .len = type == SHD_STRING ? len : 0,
                        .number = number};
    int rc = write_args(dict, key, key_len);

    if (rc != SHD_OK)
        return rc;
    if ((op & ~(uint32_t)SHD_SAFE) > SHD_REPLACE)
        return error_set(SHD_INVAL, "no such store operation: %u", op);
    rc = value_check(type, value, len, number);
    if (rc == SHD_OK)
        rc = instant(ttl_ms, &item.expires);
    return rc != SHD_OK ? rc : store_item(&dict->dict, op, &item, forcible);
}

/* What most are, and nothing is wrong with it. */
static inline __attribute__((always_inline)) bool
store_is_simple(const shd_dict *dict, uint32_t op, const void *key,
                size_t key_len, uint32_t type, const void *value, size_t len,
                int64_t ttl_ms, int32_t flags)
{
    return (op & ~(uint32_t)SHD_SAFE) == SHD_SET && ttl_ms >= 0 &&
           (type == SHD_STRING ? value != NULL
                               : type == SHD_NUMBER && len == 0) &&
           store_is_plain(op, key_len, type, len, flags) && dict != NULL &&
           atomic_load32(&dict->open) != 0 &&
           atomic_load64(&dict->owner->env.incarnation) != 0 &&
           key_is_good(key, key_len);
}

/* A simple one that expires. */
static __attribute__((noinline)) int
store_for(shd_dict *dict, uint32_t op, const void *key, size_t key_len,
          uint32_t type, const void *value, size_t len, double number,
          int64_t ttl_ms, int32_t flags, uint32_t *forcible)
{
    uint64_t expires;
    int rc = instant(ttl_ms, &expires);

    (void)flags;
    return rc != SHD_OK ? rc
                        : store_plain(&dict->dict, op, key, key_len, type,
                                      value, len, number, expires, forcible);
}

int shd_store(shd_dict *dict, uint32_t op, const void *key, size_t key_len,
              uint32_t type, const void *value, size_t len, double number,
              int64_t ttl_ms, int32_t flags, uint32_t *forcible)
{
    if (forcible != NULL)
        *forcible = 0;
    if (store_is_simple(dict, op, key, key_len, type, value, len, ttl_ms,
                        flags))
        return ttl_ms == 0
                   ? store_plain(&dict->dict, op, key, key_len, type, value,
                                 len, number, 0, forcible)
                   : store_for(dict, op, key, key_len, type, value, len,
                               number, ttl_ms, flags, forcible);
    return store_other(dict, op, key, key_len, type, value, len, number,
                       ttl_ms, flags, forcible);
}

int shd_set(shd_dict *dict, const void *key, size_t key_len, const void *value,
            size_t len, int64_t ttl_ms)
{
    if (store_is_simple(dict, SHD_SET, key, key_len, SHD_STRING, value, len,
                        ttl_ms, 0))
        return ttl_ms == 0
                   ? store_plain(&dict->dict, SHD_SET, key, key_len,
                                 SHD_STRING, value, len, 0, 0, NULL)
                   : store_for(dict, SHD_SET, key, key_len, SHD_STRING, value,
                               len, 0, ttl_ms, 0, NULL);
    return store_other(dict, SHD_SET, key, key_len, SHD_STRING, value, len, 0,
                       ttl_ms, 0, NULL);
}

int shd_delete(shd_dict *dict, const void *key, size_t key_len)
{
    int rc = write_args(dict, key, key_len);

    return rc != SHD_OK ? rc : store_delete(&dict->dict, key, key_len);
}

int shd_incr(shd_dict *dict, const void *key, size_t key_len, double by,
             int has_init, double init, int64_t init_ttl_ms, double *result,
             uint32_t *forcible)
{
    uint64_t expires;
    double sum;
    int rc;

    if (forcible != NULL)
        *forcible = 0;
    rc = write_args(dict, key, key_len);
    if (rc == SHD_OK)
        rc = instant(has_init ? init_ttl_ms : 0, &expires);
    if (rc != SHD_OK)
        return rc;
    return store_incr(&dict->dict, key, key_len, by, has_init != 0, init,
                      expires, result != NULL ? result : &sum, forcible);
}

int shd_expire(shd_dict *dict, const void *key, size_t key_len, int64_t ttl_ms)
{
    uint64_t expires;
    int rc = write_args(dict, key, key_len);

    if (rc == SHD_OK)
        rc = instant(ttl_ms, &expires);
    return rc != SHD_OK ? rc
                        : store_expire(&dict->dict, key, key_len, expires);
}

int shd_push(shd_dict *dict, int left, const void *key, size_t key_len,
             uint32_t type, const void *value, size_t len, double number,
             uint64_t *length)
{
    struct item element;
    int rc = push_args(dict, key, key_len, &element, type, value, len, number);

    return rc != SHD_OK ? rc
                        : store_push(&dict->dict, left != 0, &element, key,
                                     key_len, STORE_KEEP, length);
}

/* ---- the whole dict --------------------------------------------------- */

int shd_flush_all(shd_dict *dict)
{
    int rc = writer(dict);

    return rc != SHD_OK ? rc : store_flush_all(&dict->dict);
}

int shd_flush_expired(shd_dict *dict, uint64_t max, uint64_t *freed)
{
    int rc = writer(dict);

    if (freed != NULL)
        *freed = 0;
    return rc != SHD_OK ? rc : store_flush_expired(&dict->dict, max, freed);
}

int shd_dict_info(shd_dict *dict, struct shd_dict_info *info)
{
    struct shd_dict_info full;
    int rc = reader(dict);

    if (rc != SHD_OK)
        return rc;
    if (info == NULL || info->struct_size < sizeof(uint32_t))
        return error_set(SHD_INVAL, "info is NULL or its size is not set");
    memset(&full, 0, sizeof(full));
    rc = dict_info(&dict->dict, &full);
    if (rc != SHD_OK)
        return rc;
    full.struct_size =
        info->struct_size < sizeof(full) ? info->struct_size : sizeof(full);
    memcpy(info, &full, full.struct_size);
    return SHD_OK;
}

int shd_dict_resize(shd_dict *dict, uint64_t capacity_bytes)
{
    int rc = writer(dict);

    return rc != SHD_OK ? rc : resize_dict(&dict->dict, capacity_bytes);
}

int shd_dict_account(shd_dict *dict, struct shd_dict_account *account)
{
    struct shd_dict_account full;
    int rc = reader(dict);

    if (rc != SHD_OK)
        return rc;
    if (account == NULL || account->struct_size < sizeof(uint32_t))
        return error_set(SHD_INVAL, "account is NULL or its size is not set");
    rc = account_take(&dict->dict, &full, NULL);
    if (rc != SHD_OK)
        return rc;
    full.struct_size = account->struct_size < sizeof(full)
                           ? account->struct_size
                           : sizeof(full);
    memcpy(account, &full, full.struct_size);
    return SHD_OK;
}

int shd_dict_pages(shd_dict *dict, uint64_t first, struct shd_page *pages,
                   uint32_t max, uint32_t *count)
{
    int rc = reader(dict);

    if (rc != SHD_OK)
        return rc;
    if ((pages == NULL && max > 0) || count == NULL)
        return error_set(SHD_INVAL, "shd_dict_pages: pages or count is NULL");
    return picture_pages(&dict->dict, first, pages, max, count);
}

int shd_capacity(shd_dict *dict, uint64_t *bytes)
{
    int rc = reader(dict);

    if (rc != SHD_OK)
        return rc;
    if (bytes == NULL)
        return error_set(SHD_INVAL, "bytes is NULL");
    if (dict_gone(&dict->dict, 0))
        return dict_gone_error(&dict->dict);
    uint64_t capacity = dict_capacity(&dict->dict);

    if (dict_gone(&dict->dict, 0))
        return dict_gone_error(&dict->dict);
    *bytes = capacity;
    return SHD_OK;
}

int shd_free_space(shd_dict *dict, uint64_t *bytes)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    int rc = shd_dict_info(dict, &info);

    if (rc != SHD_OK)
        return rc;
    if (bytes == NULL)
        return error_set(SHD_INVAL, "bytes is NULL");
    *bytes = info.free_bytes;
    return SHD_OK;
}

int shd_scan(shd_dict *dict, const void *after, size_t after_len,
             uint32_t flags, void *key_buf, size_t key_size, size_t *key_len,
             void *buf, size_t size, struct shd_value *v)
{
    int rc = reader(dict);

    if (rc == SHD_OK && after != NULL)
        rc = key_check(after, after_len);
    if (rc != SHD_OK)
        return rc;
    if (key_buf == NULL || key_len == NULL || v == NULL ||
        (buf == NULL && size > 0))
        return error_set(SHD_INVAL, "shd_scan: an output is NULL");
    if ((flags & ~(uint32_t)SHD_SCAN_EXPIRED) != 0)
        return error_set(SHD_INVAL, "shd_scan: unknown flags %u", flags);
    return walk_after(&dict->dict, after, after_len,
                      (flags & SHD_SCAN_EXPIRED) != 0, key_buf, key_size,
                      key_len, buf, size, v);
}

/* ---- lists of keys ---------------------------------------------------- */

struct shd_keys {
    char *bytes;
    size_t used, size;
    size_t *at; /* [n + 1] offsets into bytes */
    uint64_t n, slots;
    uint64_t *index; /* open addressing, key number + 1; made on demand */
    uint64_t indexed, index_size;
};

static int keys_add(void *context, const void *key, size_t len)
{
    struct shd_keys *k = context;

    if (k->used + len > k->size) {
        size_t size = (k->size + len) * 2;
        char *bytes = realloc(k->bytes, size);

        if (bytes == NULL)
            return error_set(SHD_NOMEM, "no memory for a list of keys");
        k->bytes = bytes;
        k->size = size;
    }
    if (k->n + 2 > k->slots) {
        uint64_t slots = k->slots * 2 + 64;
        size_t *at = realloc(k->at, slots * sizeof(*at));

        if (at == NULL)
            return error_set(SHD_NOMEM, "no memory for a list of keys");
        k->at = at;
        k->slots = slots;
    }
    memcpy(k->bytes + k->used, key, len);
    k->at[k->n] = k->used;
    k->used += len;
    k->at[++k->n] = k->used;
    return SHD_OK;
}

static uint64_t *keys_slot(const struct shd_keys *k, const void *key,
                           size_t len)
{
    uint64_t i = hash_bytes(key, len, 0) & (k->index_size - 1);

    while (k->index[i] != 0) {
        uint64_t n = k->index[i] - 1;

        if (k->at[n + 1] - k->at[n] == len &&
            memcmp(k->bytes + k->at[n], key, len) == 0)
            break;
        i = (i + 1) & (k->index_size - 1);
    }
    return &k->index[i];
}

static bool keys_reindex(struct shd_keys *k)
{
    uint64_t size = 1024;
    uint64_t *index;

    while (size < k->n * 4)
        size *= 2;
    index = calloc(size, sizeof(*index));
    if (index == NULL)
        return false;
    free(k->index);
    k->index = index;
    k->index_size = size;
    k->indexed = 0;
    return true;
}

/* Has the key been given? Without memory for the index it looks at all. */
static bool keys_seen(void *context, const void *key, size_t len)
{
    struct shd_keys *k = context;

    if (k->n * 2 >= k->index_size && !keys_reindex(k)) {
        for (uint64_t i = 0; i < k->n; i++) {
            if (k->at[i + 1] - k->at[i] == len &&
                memcmp(k->bytes + k->at[i], key, len) == 0)
                return true;
        }
        return false;
    }
    for (; k->indexed < k->n; k->indexed++) {
        uint64_t i = k->indexed;

        *keys_slot(k, k->bytes + k->at[i], k->at[i + 1] - k->at[i]) = i + 1;
    }
    return *keys_slot(k, key, len) != 0;
}

int shd_keys_get(shd_dict *dict, uint64_t max, shd_keys **out)
{
    struct shd_keys *k;
    int rc = reader(dict);

    if (rc == SHD_OK && out == NULL)
        rc = error_set(SHD_INVAL, "out is NULL");
    if (rc != SHD_OK)
        return rc;
    k = calloc(1, sizeof(*k));
    if (k == NULL)
        return error_set(SHD_NOMEM, "no memory for a list of keys");
    rc = walk_keys(&dict->dict, max, keys_add, keys_seen, k);
    if (rc != SHD_OK) {
        shd_keys_free(k);
        return rc;
    }
    *out = k;
    return SHD_OK;
}

uint64_t shd_keys_count(const shd_keys *keys)
{
    return keys == NULL ? 0 : keys->n;
}

const char *shd_keys_at(const shd_keys *keys, uint64_t index, size_t *len)
{
    if (keys == NULL || index >= keys->n)
        return NULL;
    if (len != NULL)
        *len = keys->at[index + 1] - keys->at[index];
    return keys->bytes + keys->at[index];
}

void shd_keys_free(shd_keys *keys)
{
    if (keys == NULL)
        return;
    free(keys->bytes);
    free(keys->at);
    free(keys->index);
    free(keys);
}
