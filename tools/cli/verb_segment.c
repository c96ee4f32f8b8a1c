/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict create, rm: segments and dicts come and go. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static uint32_t parse_mode(const struct cli_args *args)
{
    const char *text = cli_option(args, "mode");
    char *end;

    if (text == NULL)
        return 0;
    unsigned long mode = strtoul(text, &end, 8);
    if (end == text || *end || text[0] < '0' || text[0] > '7' || mode == 0 ||
        mode > 0777)
        cli_usage(args, "--mode: \"%s\" is no file mode like 0640", text);
    return (uint32_t)mode;
}

static uint32_t parse_max(const struct cli_args *args, const char *name,
                          uint64_t max)
{
    const char *text = cli_option(args, name);

    return text ? (uint32_t)cli_count(args, name, text, max) : 0;
}

static int create_failed(const struct cli_args *args, int code)
{
    const char *detail = shd_last_error();

    cli_message(args, "cannot create \"%s\": %s%s", args->words[0],
                detail[0] ? detail : shd_strerror(code),
                code == SHD_EXISTS ? "; it was left alone, --open adds to it"
                                   : "");
    if (code == SHD_NAME || code == SHD_INVAL)
        return CLI_USAGE;
    return code == SHD_EXISTS ? CLI_NO : CLI_ATTACH;
}

static int create_run(struct cli_args *args)
{
    const char *size = cli_option(args, "size");
    bool open = cli_option(args, "open");
    uint32_t flags = 0;
    struct shd_segment_options o = {
        .struct_size = sizeof(o),
        .size_bytes = size ? cli_size(args, "--size", size) : 0,
        .mode = parse_mode(args),
        .workers_max = parse_max(args, "workers-max", 65535),
        .objects_max = parse_max(args, "objects-max", 65535),
        .locks_max = parse_max(args, "locks-max", UINT32_MAX),
        .worker_id = -1,
        .worker_name = "shdict"};
    shd_segment *segment;

    flags |= cli_option(args, "huge-pages") ? (uint32_t)SHD_HUGE_PAGES : 0;
    flags |= cli_option(args, "prefault") ? (uint32_t)SHD_PREFAULT : 0;
    flags |= cli_option(args, "interleave") ? (uint32_t)SHD_INTERLEAVE : 0;
    o.flags = flags;
    cli_dicts_parse(args);
    int code = open ? shd_segment_open(args->words[0], &o, &segment)
                    : shd_segment_create(args->words[0], &o, &segment);
    if (code != SHD_OK)
        return create_failed(args, code);
    int status = cli_dicts_make(args, segment);
    shd_segment_close(segment);
    /* Ours, and not what was asked for: nothing is left of it. */
    if (status != CLI_YES && !open)
        code = shd_segment_destroy(args->words[0]);
    if (code != SHD_OK)
        cli_message(args, "\"%s\" is left behind: %s", args->words[0],
                    shd_last_error());
    if (status == CLI_YES && args->json)
        cli_json_print(
            args,
            json_pack("{s:o}", "created",
                      cli_json_bytes(args->words[0], strlen(args->words[0]))));
    return status;
}

static const struct cli_option create_options[] = {
    {"size", 's', "SIZE", "Room for all dicts, at most and by default 64g"},
    {"mode", 0, "MODE", "File mode, octal; 0600 by default"},
    {"dict", 'd', "NAME=SIZE[,MAX]",
     "Make a dict too, that can grow to MAX; "
     "may be given many times"},
    {"open", 0, NULL, "The segment may exist: add the dicts it lacks"},
    {"prefault", 0, NULL, "Take all memory of the dicts from the system now"},
    {"huge-pages", 0, NULL, "Put what is taken now into huge pages"},
    {"interleave", 0, NULL, "Take memory from all NUMA nodes in turn"},
    {"workers-max", 0, "N", "Worker slots, 1024 by default"},
    {"objects-max", 0, "N", "Room for named objects, 256 by default"},
    {"locks-max", 0, "N", "Locks, one a shard, 4096 by default"},
    {NULL}};

const struct cli_verb verb_create = {.name = "create",
                                     .words = "SEGMENT",
                                     .summary =
                                         "Make a segment, and dicts in it",
                                     .options = create_options,
                                     .words_min = 1,
                                     .words_max = 1,
                                     .run = create_run};

/* What is left to be said after SHD_BUSY and SHD_NOMEM: how far it came. */
static void resize_left(const struct cli_args *args, shd_dict *dict)
{
    struct shd_dict_info i = {.struct_size = sizeof(i)};
    char size[32];

    if (shd_dict_info(dict, &i) == SHD_OK && i.resizing != 0)
        cli_message(args,
                    "the capacity is %s, and pages above it are still in use: "
                    "`shdict resize` again finishes that",
                    cli_size_format(i.capacity_bytes, size, sizeof(size)));
}

static int resize_run(struct cli_args *args)
{
    struct shd_dict_info before = {.struct_size = sizeof(before)};
    struct shd_dict_info after = {.struct_size = sizeof(after)};
    uint64_t bytes = cli_size(args, "SIZE", args->words[2]);
    shd_segment *segment;
    shd_dict *dict;
    int status = cli_open(args, args->words[0], args->words[1], CLI_WRITE,
                          &segment, &dict);

    if (status != CLI_YES)
        return status;
    int code = shd_dict_info(dict, &before);
    if (code == SHD_OK)
        code = shd_dict_resize(dict, bytes);
    if (code == SHD_OK)
        code = shd_dict_info(dict, &after);
    status = code == SHD_OK ? CLI_YES : cli_answer(args, args->words[1], code);
    if (code == SHD_BUSY || code == SHD_NOMEM)
        resize_left(args, dict);
    shd_dict_close(dict);
    shd_segment_close(segment);
    if (status == CLI_YES && args->json)
        cli_json_print(
            args, json_pack("{s:I, s:I, s:I}", "capacity_bytes",
                            (json_int_t)after.capacity_bytes, "was_bytes",
                            (json_int_t)before.capacity_bytes, "evictions",
                            (json_int_t)(after.evictions - before.evictions)));
    return status;
}

const struct cli_verb verb_resize = {
    .name = "resize",
    .words = "SEGMENT DICT SIZE",
    .summary = "Give a dict another capacity, while it is in use",
    .words_min = 3,
    .words_max = 3,
    .run = resize_run};

static int rm_segment(struct cli_args *args)
{
    int code = shd_segment_destroy(args->words[0]);

    if (code == SHD_OK)
        return CLI_YES;
    const char *detail = shd_last_error();
    cli_message(args, "cannot remove \"%s\": %s", args->words[0],
                detail[0] ? detail : shd_strerror(code));
    return cli_exit_code(code);
}

static int rm_dict(struct cli_args *args)
{
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_WRITE, &segment);

    if (status != CLI_YES)
        return status;
    int code = shd_dict_destroy(segment, args->words[1]);
    shd_segment_close(segment);
    return code == SHD_OK ? CLI_YES : cli_answer(args, args->words[1], code);
}

static int rm_run(struct cli_args *args)
{
    int status = args->count == 1 ? rm_segment(args) : rm_dict(args);

    if (args->json)
        cli_json_print(args, json_pack("{s:b}", "removed", status == CLI_YES));
    return status;
}

const struct cli_verb verb_rm = {
    .name = "rm",
    .words = "SEGMENT [DICT]",
    .summary = "Remove a segment's name, or destroy a dict",
    .words_min = 1,
    .words_max = 2,
    .run = rm_run};
