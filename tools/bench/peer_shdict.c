/* SPDX-License-Identifier: BSD-2-Clause */
#include "load.h"

#include <stdio.h>
#include <string.h>

#include "shm/shdict.h"

static shd_dict *dict;
static __thread char scanned[65536];
static __thread size_t scanned_len;

static int failed(int rc)
{
    fprintf(stderr, "shdict: %s (%s)\n", shd_strerror(rc), shd_last_error());
    return -1;
}

static int make(const char *dir, uint64_t keys, size_t value, int full)
{
    uint64_t each = 128 + value + value / 3;
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes =
                                     full ? keys * each / 4
                                          : (4ull << 20) + keys * each};
    shd_segment *s;
    int rc = shd_segment_create(NULL, NULL, &s);

    (void)dir;
    if (rc == SHD_OK)
        rc = shd_dict_open(s, "bench", &o, &dict);
    return rc == SHD_OK ? 0 : failed(rc);
}

static int attach(void)
{
    return 0;
}

static int get(const char *key, size_t len, char *buf, size_t size)
{
    struct shd_value v;
    int rc = shd_get(dict, key, len, buf, size, &v);

    return rc == SHD_OK ? 1 : rc == SHD_NOTFOUND ? 0 : failed(rc);
}

static int set(const char *key, size_t len, const char *value, size_t size)
{
    int rc = shd_set(dict, key, len, value, size, 0);

    return rc == SHD_OK ? 1 : failed(rc);
}

static int add(const char *key, size_t len, const char *value, size_t size)
{
    int rc = shd_store(dict, SHD_ADD, key, len, SHD_STRING, value, size, 0, 0,
                       0, NULL);

    return rc == SHD_OK ? 1 : rc == SHD_EXISTS ? 0 : failed(rc);
}

static int del(const char *key, size_t len)
{
    int rc = shd_delete(dict, key, len);

    return rc == SHD_OK ? 1 : rc == SHD_NOTFOUND ? 0 : failed(rc);
}

static int incr(const char *key, size_t len)
{
    double sum;
    int rc = shd_incr(dict, key, len, 1, 1, 0, 0, &sum, NULL);

    return rc == SHD_OK ? 1 : failed(rc);
}

static int multi(const char *const *keys, const size_t *lens, char *buf,
                 size_t size)
{
    static __thread struct shd_value values[MULTI];
    static __thread size_t at[MULTI];
    static __thread int32_t codes[MULTI];
    int rc = shd_get_multi(dict, MULTI, (const void *const *)keys, lens, buf,
                           size, values, at, codes);
    int found = 0;

    if (rc != SHD_OK)
        return failed(rc);
    for (int i = 0; i < MULTI; i++)
        found += codes[i] == SHD_OK;
    return found;
}

static int push(const char *key, size_t len, const char *value, size_t size)
{
    uint64_t n;
    int rc = shd_push(dict, 1, key, len, SHD_STRING, value, size, 0, &n);

    return rc == SHD_OK ? 1 : failed(rc);
}

static int pop(const char *key, size_t len, char *buf, size_t size)
{
    struct shd_value v;
    int rc = shd_pop(dict, 0, key, len, buf, size, &v);

    return rc == SHD_OK ? 1 : rc == SHD_NOTFOUND ? 0 : failed(rc);
}

static int scan(void)
{
    static __thread char buf[65536];
    struct shd_value v;
    int rc = shd_scan(dict, scanned_len > 0 ? scanned : NULL, scanned_len, 0,
                      scanned, sizeof(scanned), &scanned_len, buf, sizeof(buf),
                      &v);

    if (rc == SHD_NOTFOUND)
        scanned_len = 0;
    return rc == SHD_OK || rc == SHD_NOTFOUND ? 1 : failed(rc);
}

const struct peer peer_shdict = {.name = "shdict",
                                 .make = make,
                                 .attach = attach,
                                 .get = get,
                                 .set = set,
                                 .add = add,
                                 .del = del,
                                 .incr = incr,
                                 .multi = multi,
                                 .push = push,
                                 .pop = pop,
                                 .scan = scan,
                                 .threads = 1};
