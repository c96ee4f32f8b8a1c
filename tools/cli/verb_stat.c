/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict stat: the figures of a segment, or of one of its dicts. */
#include "cli.h"

#include <string.h>

enum unit { PLAIN, BYTES, TIME };

struct figure {
    const char *name;
    enum unit unit;
    uint64_t value;
};

static void print_figure(const struct figure *f)
{
    char text[32];

    printf("%-18s %llu", f->name, (unsigned long long)f->value);
    if (f->unit == BYTES && f->value >= 1024)
        printf(" (%s)", cli_size_format(f->value, text, sizeof(text)));
    else if (f->unit == TIME)
        printf(" (%s)", cli_time_format(f->value, text, sizeof(text)));
    putchar('\n');
}

static int print(const struct cli_args *args, const char *label,
                 const char *text, const struct figure *figures, size_t n)
{
    if (!args->json) {
        printf("%-18s ", label);
        cli_escape(stdout, text, strlen(text));
        putchar('\n');
        for (size_t i = 0; i < n; i++)
            print_figure(&figures[i]);
        return CLI_YES;
    }
    json_t *json = json_object();
    json_object_set_new(json, label, cli_json_bytes(text, strlen(text)));
    for (size_t i = 0; i < n; i++)
        json_object_set_new(json, figures[i].name,
                            json_integer((json_int_t)figures[i].value));
    cli_json_print(args, json);
    return CLI_YES;
}

static int stat_segment(struct cli_args *args)
{
    struct shd_segment_info i = {.struct_size = sizeof(i)};
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    int code = shd_segment_info(segment, &i);
    shd_segment_close(segment);
    if (code != SHD_OK)
        return cli_answer(args, args->words[0], code);
    const struct figure figures[] = {
        {"layout_version", PLAIN, i.layout_version},
        {"size_bytes", BYTES, i.size_bytes},
        {"committed_bytes", BYTES, i.committed_bytes},
        {"created_ms", TIME, i.created_ms},
        {"pid_namespace", PLAIN, i.creator_pid_namespace},
        {"workers_max", PLAIN, i.workers_max},
        {"objects_max", PLAIN, i.objects_max},
        {"locks_max", PLAIN, i.locks_max},
        {"incarnations", PLAIN, i.incarnations},
        {"deaths", PLAIN, i.deaths},
        {"recoveries", PLAIN, i.recoveries}};
    i.path[sizeof(i.path) - 1] = '\0';
    return print(args, "path", i.path, figures,
                 sizeof(figures) / sizeof(figures[0]));
}

static int stat_dict(struct cli_args *args)
{
    struct shd_dict_info i = {.struct_size = sizeof(i)};
    shd_segment *segment;
    shd_dict *dict;
    int status = cli_open(args, args->words[0], args->words[1], CLI_READ,
                          &segment, &dict);

    if (status != CLI_YES)
        return status;
    int code = shd_dict_info(dict, &i);
    shd_dict_close(dict);
    shd_segment_close(segment);
    if (code != SHD_OK)
        return cli_answer(args, args->words[1], code);
    const struct figure figures[] = {
        {"generation", PLAIN, i.generation},
        {"capacity_bytes", BYTES, i.capacity_bytes},
        {"capacity_max_bytes", BYTES, i.capacity_max_bytes},
        {"resizes", PLAIN, i.resizes},
        {"resizing", PLAIN, i.resizing},
        {"free_bytes", BYTES, i.free_bytes},
        {"index_bytes", BYTES, i.index_bytes},
        {"cells_bytes", BYTES, i.cells_bytes},
        {"value_max_bytes", BYTES, i.value_max_bytes},
        {"pages", PLAIN, i.pages},
        {"pages_free", PLAIN, i.pages_free},
        {"pages_committed", PLAIN, i.pages_committed},
        {"shards", PLAIN, i.shards},
        {"roots", PLAIN, i.roots},
        {"entries", PLAIN, i.entries},
        {"evictions", PLAIN, i.evictions},
        {"expirations", PLAIN, i.expirations},
        {"moves", PLAIN, i.moves},
        {"recoveries", PLAIN, i.recoveries},
        {"lock_waits", PLAIN, i.lock_waits}};
    i.name[sizeof(i.name) - 1] = '\0';
    return print(args, "name", i.name, figures,
                 sizeof(figures) / sizeof(figures[0]));
}

static int run(struct cli_args *args)
{
    return args->count == 1 ? stat_segment(args) : stat_dict(args);
}

const struct cli_verb verb_stat = {
    .name = "stat",
    .words = "SEGMENT [DICT]",
    .summary = "Show the figures of a segment or a dict",
    .words_min = 1,
    .words_max = 2,
    .run = run};
