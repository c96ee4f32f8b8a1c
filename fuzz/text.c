/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * text: bytes that `shdict load` reads as a dump. The first byte chooses its
 * options. What comes of it, dumped, loaded into a fresh segment and dumped
 * again, is the same text, unless a dict was too small for it.
 */
#include "fuzz/cli.h"
#include "fuzz/workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static shd_segment *segments[2];
static char names[2][24];

static void build(void)
{
    const struct shd_segment_options o = {.struct_size = sizeof(o),
                                          .size_bytes = 700 << 10,
                                          .workers_max = 4,
                                          .objects_max = 12,
                                          .locks_max = 24};
    struct shd_dict_options d = {.struct_size = sizeof(d),
                                 .capacity_bytes = 64 << 10,
                                 .capacity_max_bytes = 64 << 10};

    for (int i = 0; i < 2; i++) {
        shd_dict *dict;

        if (shd_segment_create(NULL, &o, &segments[i]) != SHD_OK)
            abort();
        segments[i]->segment.hash_seed = 7;
        segment_header(&segments[i]->segment)->hash_seed = 7;
        snprintf(names[i], sizeof(names[i]), "fd:%d",
                 segments[i]->segment.fd);
        if (i == 0 && shd_dict_open(segments[i], "d", &d, &dict) != SHD_OK)
            abort();
        workers_build();
        if (shd_worker_join(segments[i], NULL) != SHD_OK)
            abort();
        workers_keep(segments[i]);
        cli_holds(segments[i]);
    }
}

/* Has it been too small for something? */
static bool is_whole(shd_segment *s)
{
    for (uint32_t i = 0; i < 12; i++) {
        struct shd_object_info o = {.struct_size = sizeof(o)};
        struct shd_dict_info info = {.struct_size = sizeof(info)};
        shd_dict *d;

        if (shd_object_info(s, i, &o) != SHD_OK || o.kind != SHD_OBJECT_DICT)
            continue;
        if (shd_dict_open(s, o.name, NULL, &d) != SHD_OK)
            return false;
        if (shd_dict_info(d, &info) != SHD_OK || info.evictions > 0 ||
            info.expirations > 0)
            return false;
        (void)shd_dict_close(d);
    }
    return true;
}

static int dump(int i, char **text, size_t *len)
{
    char verb[] = "dump", program[] = "shdict";
    char *argv[] = {program, verb, names[i], NULL};

    return cli_run(3, argv, "", 0, text, len);
}

static int load(int i, uint8_t options, const void *text, size_t len)
{
    char program[] = "shdict", verb[] = "load", create[] = "--create";
    char add[] = "--add", safe[] = "--safe", dict[] = "d", json[] = "--json";
    char *argv[9] = {program, verb}, *out = NULL;
    size_t out_len = 0;
    int n = 2, rc;

    if ((options & 1) == 0)
        argv[n++] = create;
    if ((options & 2) != 0)
        argv[n++] = add;
    if ((options & 4) != 0)
        argv[n++] = safe;
    if ((options & 8) != 0)
        argv[n++] = json;
    argv[n++] = names[i];
    if ((options & 1) != 0)
        argv[n++] = dict;
    rc = cli_run(n, argv, text, len, &out, &out_len);
    if (fuzz_planted() && rc == 0 && out_len > 0)
        out[out_len + 1] = '.';
    free(out);
    return rc;
}

static _Noreturn void differs(const char *what, const char *a, const char *b)
{
    fprintf(stderr, "text: %s\n---- first:\n%s\n---- second:\n%s\n", what, a,
            b);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *first = NULL, *second = NULL, report[300];
    size_t first_len = 0, second_len = 0;
    int rc;

    if (size < 2)
        return 0;
    if (segments[0] == NULL)
        build();
    workers_begin(segments[0]);
    rc = load(0, data[0], data + 1, size - 1);
    if (workers_changed() &&
        shd_segment_check(segments[0], report, sizeof(report)) != SHD_OK)
        differs("after load", report, "");
    if (rc == 0 && is_whole(segments[0])) {
        if (dump(0, &first, &first_len) != 0)
            differs("dump fails", "", "");
        workers_end();
        workers_begin(segments[1]);
        rc = load(1, 0, first, first_len);
        if (rc == 0 && is_whole(segments[1])) {
            if (dump(1, &second, &second_len) != 0)
                differs("dump fails", "", "");
            if (first_len != second_len ||
                memcmp(first, second, first_len) != 0)
                differs("not the same again", first, second);
        } else if (rc == 2) {
            differs("load refuses what dump wrote", first, "");
        }
    }
    free(first);
    free(second);
    workers_end();
    return 0;
}
