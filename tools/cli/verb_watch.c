/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict watch: prints a key's value each time another one is found. It looks
 * again and again, and takes no lock: what comes and goes between two looks is
 * not seen. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct look {
    int code; /* SHD_OK, SHD_NOTFOUND, SHD_ISLIST */
    struct shd_value value;
    char *bytes;
    size_t size;
};

static bool same(const struct look *a, const struct look *b)
{
    if (a->code != b->code)
        return false;
    if (a->code == SHD_NOTFOUND)
        return true;
    if (a->value.type != b->value.type || a->value.flags != b->value.flags)
        return false;
    if (a->value.type == SHD_STRING)
        return a->value.len == b->value.len &&
               memcmp(a->bytes, b->bytes, (size_t)a->value.len) == 0;
    return memcmp(&a->value.number, &b->value.number, sizeof(double)) == 0 &&
           a->value.len == b->value.len;
}

static int look(shd_dict *dict, const char *key, size_t len, struct look *l)
{
    l->code = cli_read(dict, key, len, false, &l->bytes, &l->size, &l->value);
    if (l->code == SHD_ISLIST) {
        struct shd_entry_info info = {.struct_size = sizeof(info)};
        l->code = shd_entry_info(dict, key, len, &info);
        memset(&l->value, 0, sizeof(l->value));
        l->value.type = info.type;
        l->value.len = info.len;
        l->value.ttl_ms = info.ttl_ms;
    }
    return l->code == SHD_NOTFOUND ? SHD_OK : l->code;
}

static void print_json(const struct cli_args *args, const char *key,
                       size_t len, const struct look *l)
{
    json_t *json = json_pack("{s:o, s:b}", "key", cli_json_bytes(key, len),
                             "found", l->code == SHD_OK);

    if (l->code == SHD_OK &&
        cli_json_value(json, &l->value, l->bytes) != 0) {
        json_decref(json);
        json = NULL;
    }
    cli_json_print(args, json);
}

static void print_text(const struct look *l)
{
    char text[64];

    if (l->code == SHD_NOTFOUND) {
        puts("-");
        return;
    }
    printf("%s\t", cli_type_name(l->value.type));
    if (l->value.type == SHD_STRING) {
        cli_escape(stdout, l->bytes, (size_t)l->value.len);
    } else if (l->value.type == SHD_NUMBER) {
        cli_number_format(l->value.number, text, sizeof(text));
        fputs(text, stdout);
    } else if (l->value.type == SHD_BOOLEAN) {
        fputs(l->value.number != 0 ? "true" : "false", stdout);
    } else {
        printf("%llu elements", (unsigned long long)l->value.len);
    }
    putchar('\n');
}

static int watch(struct cli_args *args, shd_dict *dict, int64_t ms,
                 uint64_t count)
{
    const struct timespec pause = {.tv_sec = ms / 1000,
                                   .tv_nsec = ms % 1000 * 1000000};
    size_t len = cli_bytes(args, "KEY", args->words[2]);
    struct look looks[2] = {{0}};
    unsigned now = 0;
    uint64_t printed = 0;
    int code;

    while ((code = look(dict, args->words[2], len, &looks[now])) == SHD_OK) {
        if (printed == 0 || !same(&looks[now], &looks[!now])) {
            if (args->json)
                print_json(args, args->words[2], len, &looks[now]);
            else
                print_text(&looks[now]);
            /* Whoever reads a pipe wants to see it now. */
            if (fflush(stdout) != 0 || ++printed == count)
                break;
            now = !now;
        }
        nanosleep(&pause, NULL);
    }
    free(looks[0].bytes);
    free(looks[1].bytes);
    return code;
}

static int run(struct cli_args *args)
{
    const char *interval = cli_option(args, "interval");
    const char *count = cli_option(args, "count");
    int64_t ms = interval ? cli_seconds_ms(args, "--interval", interval) : 100;
    uint64_t n = count ? cli_count(args, "--count", count, INT64_MAX) : 0;
    shd_segment *segment;
    shd_dict *dict;

    if (ms == 0)
        cli_usage(args, "--interval: at least 0.001 seconds");
    int status = cli_open(args, args->words[0], args->words[1], CLI_READ,
                          &segment, &dict);
    if (status != CLI_YES)
        return status;
    int code = watch(args, dict, ms, n);
    if (code != SHD_OK)
        status = cli_answer(args, args->words[2], code);
    shd_dict_close(dict);
    shd_segment_close(segment);
    return status;
}

static const struct cli_option options[] = {
    {"interval", 'i', "SECONDS", "Look again so often; 0.1 by default"},
    {"count", 'n', "N", "End after N lines; 0, the default, is never"},
    {"escaped", 'e', NULL, "KEY is in the form dump and keys print"},
    {NULL}};

const struct cli_verb verb_watch = {
    .name = "watch",
    .words = "SEGMENT DICT KEY",
    .summary = "Print the value of a key each time it has changed",
    .options = options,
    .words_min = 3,
    .words_max = 3,
    .run = run};
