/* SPDX-License-Identifier: BSD-2-Clause */
/* The smallest program that uses the library, as an installed package: an
 * anonymous segment, a dict, a value that goes in and comes out. */
#include <shdict.h>

#include <stdio.h>
#include <string.h>

static int failed(const char *what, int rc)
{
    fprintf(stderr, "%s: %s: %s\n", what, shd_strerror(rc), shd_last_error());
    return 1;
}

int main(void)
{
    struct shd_segment_options so = {.struct_size = sizeof(so),
                                     .size_bytes = 16 << 20};
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 1 << 20};
    shd_segment *segment;
    shd_dict *dict;
    struct shd_value v;
    char buf[16];
    int rc;

    if ((rc = shd_segment_create(NULL, &so, &segment)) != SHD_OK)
        return failed("create", rc);
    if ((rc = shd_dict_open(segment, "d", &o, &dict)) != SHD_OK)
        return failed("open", rc);
    if ((rc = shd_set(dict, "key", 3, "kept", 4, 0)) != SHD_OK)
        return failed("set", rc);
    if ((rc = shd_get(dict, "key", 3, buf, sizeof(buf), &v)) != SHD_OK)
        return failed("get", rc);
    printf("%s %.*s\n", shd_version(), (int)v.len, buf);
    if ((rc = shd_segment_close(segment)) != SHD_OK)
        return failed("close", rc);
    return 0;
}
