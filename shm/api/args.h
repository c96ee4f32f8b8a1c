/* SPDX-License-Identifier: BSD-2-Clause */
/* api/args.h - the checks that the functions of a dict begin with.
 *
 * OWNS   nothing.
 * LOCK   none is taken, but that writer() may register the process.
 * COST   inlined: they are a part of every get and set.
 */
#ifndef SHD_API_ARGS_H
#define SHD_API_ARGS_H

#include "shm/api/handle.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/dict/entry.h"

/* Why not: the sentence for a handle, or a key, that did not pass. */
int args_refuse_dict(const shd_dict *dict);
int args_refuse_key(const void *key, size_t len);

/* Closing a segment closes its dicts, so one look tells of both. */
static inline int reader(const shd_dict *dict)
{
    return dict != NULL && atomic_load32(&dict->open) != 0
               ? SHD_OK
               : args_refuse_dict(dict);
}

/* Only the open segment of a registered worker has an incarnation, and only
 * one that can be written to. */
static inline int writer(const shd_dict *dict)
{
    int rc = reader(dict);

    if (rc != SHD_OK || atomic_load64(&dict->owner->env.incarnation) != 0)
        return rc;
    return handle_writer(dict->owner);
}

static inline bool key_is_good(const void *key, size_t len)
{
    return len - 1 < ENTRY_KEY_MAX && key != NULL;
}

static inline int key_check(const void *key, size_t len)
{
    return key_is_good(key, len) ? SHD_OK : args_refuse_key(key, len);
}

static inline int read_args(const shd_dict *dict, const void *key, size_t len)
{
    int rc = reader(dict);

    return rc != SHD_OK ? rc : key_check(key, len);
}

static inline int write_args(const shd_dict *dict, const void *key, size_t len)
{
    int rc = key_check(key, len);

    return rc != SHD_OK ? rc : writer(dict);
}

/* 0: never; what would end after the clock's 48 bits never ends. */
static inline int instant(int64_t ttl_ms, uint64_t *expires)
{
    uint64_t now;

    *expires = 0;
    if (ttl_ms < 0)
        return error_set(SHD_INVAL,
                         "a time to live of %lld ms: it must not "
                         "be negative",
                         (long long)ttl_ms);
    if (ttl_ms == 0)
        return SHD_OK;
    now = clock_now_ms();
    if ((uint64_t)ttl_ms <= ENTRY_EXPIRES_MASK - now)
        *expires = now + (uint64_t)ttl_ms;
    return SHD_OK;
}

static inline int value_check(uint32_t type, const void *value, size_t len,
                              double number)
{
    switch (type) {
    case SHD_STRING:
        if (value == NULL && len > 0)
            return error_set(SHD_INVAL, "the value is NULL");
        if (len > UINT32_MAX)
            return error_set(SHD_TOOBIG,
                             "a value of %zu bytes: at most "
                             "4 GiB - 1",
                             len);
        return SHD_OK;
    case SHD_NUMBER:
        return SHD_OK;
    case SHD_BOOLEAN:
        if (number != 0 && number != 1)
            return error_set(SHD_INVAL, "a boolean's number must be 0 or 1");
        return SHD_OK;
    default:
        return error_set(SHD_INVAL, "type %u cannot be stored", type);
    }
}

/* Fills a list's new element. */
static inline int push_args(const shd_dict *dict, const void *key,
                            size_t key_len, struct item *element,
                            uint32_t type, const void *value, size_t len,
                            double number)
{
    int rc = write_args(dict, key, key_len);

    *element = (struct item){.type = type,
                             .value = value,
                             .len = type == SHD_STRING ? len : 0,
                             .number = number};
    if (rc != SHD_OK)
        return rc;
    if (type != SHD_STRING && type != SHD_NUMBER)
        return error_set(SHD_INVAL, "a list holds strings and numbers only");
    return value_check(type, value, len, number);
}

#endif
