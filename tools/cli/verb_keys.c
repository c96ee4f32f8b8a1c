/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict keys: the live keys of a dict. */
#include "cli.h"

#include <stdlib.h>

static void print(const struct cli_args *args, const char *key, size_t len)
{
    if (args->json) {
        cli_json_list_next();
        cli_json_write(args, cli_json_bytes(key, len));
    } else {
        cli_escape(stdout, key, len);
        putchar('\n');
    }
}

static int print_entry(struct cli_walk *w, const char *key, size_t len,
                       const struct shd_value *v)
{
    (void)v;
    print(w->args, key, len);
    return SHD_OK;
}

/* The order of age is kept in lists that only the lock makes readable. */
static int oldest(struct cli_args *args, uint64_t max)
{
    shd_segment *segment;
    shd_keys *keys;
    shd_dict *dict;
    int status = cli_open(args, args->words[0], args->words[1], CLI_WRITE,
                          &segment, &dict);

    if (status != CLI_YES)
        return status;
    int code = shd_keys_get(dict, max, &keys);
    shd_dict_close(dict);
    shd_segment_close(segment);
    if (code != SHD_OK)
        return cli_answer(args, args->words[1], code);
    if (args->json)
        cli_json_list_begin();
    for (uint64_t i = 0; i < shd_keys_count(keys); i++) {
        size_t len;
        const char *key = shd_keys_at(keys, i, &len);
        print(args, key, len);
    }
    if (args->json)
        cli_json_list_end();
    shd_keys_free(keys);
    return CLI_YES;
}

static int run(struct cli_args *args)
{
    const char *text = cli_option(args, "max");
    uint64_t max = text ? cli_count(args, "--max", text, INT64_MAX) : 0;

    if (cli_option(args, "oldest")) {
        if (cli_option(args, "match"))
            cli_usage(args, "--oldest and --match exclude each other");
        return oldest(args, max);
    }
    struct cli_walk *w = cli_walk_new(args);
    w->max = max;
    w->glob = cli_option(args, "match");
    w->entry = print_entry;
    int status = cli_walk(args, w);
    cli_walk_free(w);
    return status;
}

static const struct cli_option options[] = {
    {"max", 'm', "N", "At most N keys; 0, the default, is all"},
    {"match", 'g', "GLOB", "Those whose escaped text the pattern matches"},
    {"oldest", 'o', NULL, "The least recently stored first; takes locks"},
    {NULL}};

const struct cli_verb verb_keys = {.name = "keys",
                                   .words = "SEGMENT DICT",
                                   .summary = "Print the live keys",
                                   .options = options,
                                   .words_min = 2,
                                   .words_max = 2,
                                   .run = run};
