/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/api/args.h"

int args_refuse_dict(const shd_dict *dict)
{
    if (dict == NULL)
        return error_set(SHD_INVAL, "the dict is NULL");
    if (atomic_load32(&dict->owner->open) == 0)
        return error_set(SHD_CLOSED, "the segment of dict '%s' is closed",
                         dict->dict.name);
    return error_set(SHD_CLOSED, "dict '%s' is closed", dict->dict.name);
}

int args_refuse_key(const void *key, size_t len)
{
    if (len == 0)
        return error_set(SHD_EMPTYKEY, "the key is empty");
    if (len > ENTRY_KEY_MAX)
        return error_set(SHD_LONGKEY, "a key of %zu bytes: at most 65535",
                         len);
    assert(key == NULL);
    return error_set(SHD_INVAL, "the key is NULL");
}
