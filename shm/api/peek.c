/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/peek.h"
#include "shm/api/args.h"
#include "shm/worker/registry.h"

#include "shm/api/gates.h" /* last */

#include <string.h>

int shd_entry_info(shd_dict *dict, const void *key, size_t key_len,
                   struct shd_entry_info *info)
{
    struct shd_entry_info found = {.struct_size = sizeof(found)};
    int rc = read_args(dict, key, key_len);

    if (rc == SHD_OK &&
        (info == NULL || info->struct_size != sizeof(*info)))
        rc = error_set(SHD_INVAL, "shd_entry_info: info is NULL, or its "
                                  "struct_size is not set");
    if (rc == SHD_OK)
        rc = peek_entry(&dict->dict, key, key_len, &found);
    if (rc == SHD_OK)
        *info = found;
    return rc;
}

int shd_list_read(shd_dict *dict, const void *key, size_t key_len,
                  uint32_t flags, uint64_t from, uint32_t max, void *buf,
                  size_t size, struct shd_value *values, size_t *at,
                  uint32_t *count, uint64_t *length)
{
    int rc = read_args(dict, key, key_len);

    if (rc != SHD_OK)
        return rc;
    if ((max > 0 && (values == NULL || at == NULL)) || count == NULL ||
        length == NULL || (buf == NULL && size > 0) ||
        (flags & ~(uint32_t)SHD_SCAN_EXPIRED) != 0)
        return error_set(SHD_INVAL, "shd_list_read: an argument is NULL, or "
                                    "a flag unknown");
    return peek_list(&dict->dict, key, key_len, flags != 0, from, max, buf,
                     size, values, at, count, length);
}

int shd_shard_info(shd_dict *dict, uint32_t index, struct shd_shard_info *info)
{
    struct shd_shard_info found = {.struct_size = sizeof(found)};
    int rc = reader(dict);

    if (rc != SHD_OK)
        return rc;
    if (info == NULL || info->struct_size != sizeof(*info))
        return error_set(SHD_INVAL, "shd_shard_info: info is NULL, or its "
                                    "struct_size is not set");
    if (index >= dict->dict.shards)
        return error_set(SHD_INVAL, "there are %u shards, no shard %u",
                         dict->dict.shards, index);
    rc = dict_shard_info(&dict->dict, index, &found);
    if (rc == SHD_OK)
        *info = found;
    return rc;
}

int shd_lease_next(shd_dict *dict, struct shd_lease_info *info, void *key_buf,
                   size_t key_size, size_t *key_len)
{
    struct shd_lease_info found;
    int rc = reader(dict);

    if (rc == SHD_OK &&
        (info == NULL || info->struct_size != sizeof(*info) ||
         key_len == NULL || (key_buf == NULL && key_size > 0)))
        rc = error_set(SHD_INVAL, "shd_lease_next: info, key_buf or key_len "
                                  "is NULL, or info's struct_size is not set");
    if (rc != SHD_OK)
        return rc;
    found = *info;
    rc = peek_lease(&dict->dict, &found, key_buf, key_size, key_len);
    if (rc != SHD_OK)
        return rc;
    found.dead = registry_is_dead(dict->dict.env, found.holder);
    *info = found;
    return SHD_OK;
}
