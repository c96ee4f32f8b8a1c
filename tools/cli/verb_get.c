/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict get: one value, byte for byte into a pipe, escaped on a terminal. */
#include "cli.h"

#include <stdlib.h>
#include <unistd.h>

static void print_text(const struct cli_args *args, const struct shd_value *v,
                       const char *bytes)
{
    bool raw = cli_option(args, "raw") || !isatty(STDOUT_FILENO);
    char number[64];

    if (v->type == SHD_STRING && raw)
        fwrite(bytes, 1, (size_t)v->len, stdout);
    else if (v->type == SHD_STRING)
        cli_escape(stdout, bytes, (size_t)v->len);
    else if (v->type == SHD_BOOLEAN)
        fputs(v->number != 0 ? "true" : "false", stdout);
    else {
        cli_number_format(v->number, number, sizeof(number));
        fputs(number, stdout);
    }
    if (!raw)
        putchar('\n');
}

static void print_json(const struct cli_args *args, const char *key,
                       size_t len, int code, const struct shd_value *v,
                       const char *bytes)
{
    json_t *json = json_object();

    json_object_set_new(json, "key", cli_json_bytes(key, len));
    json_object_set_new(json, "found", json_boolean(code == SHD_OK));
    if (code == SHD_OK && cli_json_value(json, v, v->len ? bytes : "") != 0) {
        json_decref(json);
        json = NULL;
    }
    if (code == SHD_OK && cli_option(args, "stale"))
        json_object_set_new(json, "stale", json_boolean(v->ttl_ms < 0));
    cli_json_print(args, json);
}

static int get_or_pop(struct cli_args *args, bool pop)
{
    char *key = args->words[2];
    size_t len = cli_bytes(args, "KEY", key);
    size_t size = 0;
    char *buf = NULL;
    struct shd_value value;
    shd_segment *segment;
    shd_dict *dict;
    int status = cli_open(args, args->words[0], args->words[1],
                          pop ? CLI_WRITE : CLI_READ, &segment, &dict);

    if (status != CLI_YES)
        return status;
    int code = cli_grow(&buf, &size, 65536) ? SHD_NOMEM : SHD_OK;
    if (code == SHD_OK && pop)
        code = cli_take(dict, key, len, &buf, &size, &value);
    else if (code == SHD_OK)
        code = cli_read(dict, key, len, cli_option(args, "stale"), &buf, &size,
                        &value);
    if (args->json && (code == SHD_OK || code == SHD_NOTFOUND))
        print_json(args, key, len, code, &value, buf);
    else if (code == SHD_OK)
        print_text(args, &value, buf);
    status = code == SHD_OK ? CLI_YES : cli_answer(args, key, code);
    free(buf);
    shd_dict_close(dict);
    shd_segment_close(segment);
    return status;
}

static int run(struct cli_args *args)
{
    return get_or_pop(args, false);
}

static int pop_run(struct cli_args *args)
{
    if (args->count == 2)
        return cli_queue_pop(args);
    if (cli_option(args, "wait"))
        cli_usage(args, "--wait is for a queue, which has no KEY");
    return get_or_pop(args, true);
}

static const struct cli_option options[] = {
    {"raw", 'r', NULL, "Write the bytes as they are, to a terminal too"},
    {"stale", 0, NULL, "Take an expired value that is still stored"},
    {"escaped", 'e', NULL, "KEY is in the form dump and keys print"},
    {NULL}};

const struct cli_verb verb_get = {.name = "get",
                                  .words = "SEGMENT DICT KEY",
                                  .summary = "Print the value of a key",
                                  .options = options,
                                  .words_min = 3,
                                  .words_max = 3,
                                  .run = run};

static const struct cli_option pop_options[] = {
    {"raw", 'r', NULL, "Write the bytes as they are, to a terminal too"},
    {"escaped", 'e', NULL, "KEY is in the form dump and keys print"},
    {"wait", 'w', "SECONDS", "Wait so long for a message if there is none"},
    {NULL}};

const struct cli_verb verb_pop = {
    .name = "pop",
    .words = "SEGMENT QUEUE | SEGMENT DICT KEY",
    .summary = "Print a queue's next message, or a key's value; remove it",
    .options = pop_options,
    .words_min = 2,
    .words_max = 3,
    .run = pop_run};
