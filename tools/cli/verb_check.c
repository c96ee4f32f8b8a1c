/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict check, reap: is it whole, and clean up after the dead. */
#include "cli.h"

#include <string.h>

static int check_run(struct cli_args *args)
{
    bool lock = cli_option(args, "lock");
    char report[1024] = "";
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], lock ? CLI_WRITE : CLI_READ,
                            &segment);

    if (status != CLI_YES)
        return status;
    int code = shd_segment_check(segment, report, sizeof(report));
    shd_segment_close(segment);
    if (code == SHD_OK || code == SHD_CORRUPT) {
        if (args->json)
            cli_json_print(args,
                           json_pack("{s:b, s:o}", "clean", code == SHD_OK,
                                     "report",
                                     cli_json_bytes(report, strlen(report))));
        else if (code == SHD_OK)
            puts("clean");
        if (code == SHD_CORRUPT)
            cli_message(args, "%s: corrupt: %s", args->words[0], report);
        return cli_exit_code(code);
    }
    if (code == SHD_BUSY && !lock) {
        cli_message(args,
                    "%s: it never stood still: a writer is at work, or died "
                    "at work; try --lock, or `shdict reap`",
                    args->words[0]);
        return CLI_FAILED;
    }
    return cli_answer(args, args->words[0], code);
}

static const struct cli_option check_options[] = {
    {"lock", 'l', NULL, "Attach read-write and lock each shard for a moment"},
    {NULL}};

const struct cli_verb verb_check = {
    .name = "check",
    .words = "SEGMENT",
    .summary = "Walk every invariant of every structure, changing nothing",
    .options = check_options,
    .words_min = 1,
    .words_max = 1,
    .run = check_run};

static int reap_run(struct cli_args *args)
{
    struct shd_segment_info before = {.struct_size = sizeof(before)};
    struct shd_segment_info after = {.struct_size = sizeof(after)};
    uint32_t reaped = 0;
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_WRITE, &segment);

    if (status != CLI_YES)
        return status;
    int code = shd_segment_info(segment, &before);
    if (code == SHD_OK)
        code = shd_reap(segment, &reaped);
    if (code == SHD_OK)
        code = shd_segment_info(segment, &after);
    shd_segment_close(segment);
    if (code != SHD_OK)
        return cli_answer(args, args->words[0], code);
    unsigned long long undone = after.recoveries - before.recoveries;
    if (args->json)
        cli_json_print(args,
                       json_pack("{s:I, s:I}", "reaped", (json_int_t)reaped,
                                 "recovered", (json_int_t)undone));
    else
        printf("%u dead worker%s reaped, %llu operation%s undone\n", reaped,
               reaped == 1 ? "" : "s", undone, undone == 1 ? "" : "s");
    return CLI_YES;
}

const struct cli_verb verb_reap = {
    .name = "reap",
    .words = "SEGMENT",
    .summary = "Undo what dead workers were at, free their slots, wake "
               "waiters",
    .words_min = 1,
    .words_max = 1,
    .run = reap_run};
