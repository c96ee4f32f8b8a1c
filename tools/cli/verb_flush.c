/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict flush: everything expires, or what has expired is freed. */
#include "cli.h"

static int run(struct cli_args *args)
{
    bool only = cli_option(args, "expired");
    uint64_t freed = 0;
    shd_segment *segment;
    shd_dict *dict;
    int status = cli_open(args, args->words[0], args->words[1], CLI_WRITE,
                          &segment, &dict);

    if (status != CLI_YES)
        return status;
    int code = only ? SHD_OK : shd_flush_all(dict);
    if (code == SHD_OK)
        code = shd_flush_expired(dict, 0, &freed);
    shd_dict_close(dict);
    shd_segment_close(segment);
    if (code != SHD_OK)
        return cli_answer(args, args->words[1], code);
    if (args->json)
        cli_json_print(args, json_pack("{s:I}", "freed", (json_int_t)freed));
    else
        printf("%llu entries freed\n", (unsigned long long)freed);
    return CLI_YES;
}

static const struct cli_option options[] = {
    {"expired", 'x', NULL, "Only what has expired already"}, {NULL}};

const struct cli_verb verb_flush = {
    .name = "flush",
    .words = "SEGMENT DICT",
    .summary = "Remove all entries of a dict, or the expired ones",
    .options = options,
    .words_min = 2,
    .words_max = 2,
    .run = run};
