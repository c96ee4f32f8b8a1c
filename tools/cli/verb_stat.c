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

    printf("%-20s %llu", f->name, (unsigned long long)f->value);
    if (f->unit == BYTES && f->value >= 1024)
        printf(" (%s)", cli_size_format(f->value, text, sizeof(text)));
    else if (f->unit == TIME)
        printf(" (%s)", cli_time_format(f->value, text, sizeof(text)));
    putchar('\n');
}

static void add_text(const struct cli_args *args, json_t *json,
                     const char *label, const char *text)
{
    if (args->json) {
        json_object_set_new(json, label, cli_json_bytes(text, strlen(text)));
        return;
    }
    printf("%-20s ", label);
    cli_escape(stdout, text, strlen(text));
    putchar('\n');
}

static void add_figures(const struct cli_args *args, json_t *json,
                        const struct figure *figures, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (args->json)
            json_object_set_new(json, figures[i].name,
                                json_integer((json_int_t)figures[i].value));
        else
            print_figure(&figures[i]);
    }
}

static int end(const struct cli_args *args, json_t *json)
{
    if (args->json)
        cli_json_print(args, json);
    else
        json_decref(json);
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
    json_t *json = json_object();
    add_text(args, json, "path", i.path);
    add_figures(args, json, figures, sizeof(figures) / sizeof(figures[0]));
    return end(args, json);
}

/* A line or an element for each size class. */
static void add_classes(const struct cli_args *args, json_t *json,
                        const struct shd_dict_account *a)
{
    json_t *classes = json_array();
    char name[32];

    for (uint32_t i = 0; i < a->classes && i < 32; i++) {
        if (!args->json) {
            if (a->class_pages[i] == 0)
                continue;
            snprintf(name, sizeof(name), "cells_%llu",
                     (unsigned long long)a->class_cell_bytes[i]);
            printf("%-20s %llu used, %llu free, %llu pages\n", name,
                   (unsigned long long)a->class_used_cells[i],
                   (unsigned long long)a->class_free_cells[i],
                   (unsigned long long)a->class_pages[i]);
            continue;
        }
        json_array_append_new(
            classes, json_pack("{s:I,s:I,s:I,s:I}", "cell_bytes",
                               (json_int_t)a->class_cell_bytes[i], "used",
                               (json_int_t)a->class_used_cells[i], "free",
                               (json_int_t)a->class_free_cells[i], "pages",
                               (json_int_t)a->class_pages[i]));
    }
    if (args->json)
        json_object_set_new(json, "classes", classes);
    else
        json_decref(classes);
}

static int stat_dict(struct cli_args *args)
{
    struct shd_dict_info i = {.struct_size = sizeof(i)};
    struct shd_dict_account a = {.struct_size = sizeof(a)};
    shd_segment *segment;
    shd_dict *dict;
    int status = cli_open(args, args->words[0], args->words[1], CLI_READ,
                          &segment, &dict);

    if (status != CLI_YES)
        return status;
    int code = shd_dict_info(dict, &i);
    if (code == SHD_OK)
        code = shd_dict_account(dict, &a);
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
        {"safe_value_max_bytes", BYTES, a.safe_value_max_bytes},
        {"pages", PLAIN, i.pages},
        {"pages_free", PLAIN, i.pages_free},
        {"pages_committed", PLAIN, i.pages_committed},
        {"pages_needed", PLAIN, a.pages_needed},
        {"shards", PLAIN, i.shards},
        {"roots", PLAIN, i.roots},
        {"entries", PLAIN, i.entries},
        {"entries_live", PLAIN, a.entries_live},
        {"entries_expired", PLAIN, a.entries_expired},
        {"evictions", PLAIN, i.evictions},
        {"expirations", PLAIN, i.expirations},
        {"moves", PLAIN, i.moves},
        {"recoveries", PLAIN, i.recoveries},
        {"lock_waits", PLAIN, i.lock_waits}};
    const struct figure parts[] = {
        {"live_bytes", BYTES, a.live_bytes},
        {"expired_bytes", BYTES, a.expired_bytes},
        {"garbage_bytes", BYTES, a.garbage_bytes},
        {"entry_bytes", BYTES, a.entry_bytes},
        {"list_bytes", BYTES, a.list_bytes},
        {"chain_bytes", BYTES, a.chain_bytes},
        {"rounding_bytes", BYTES, a.rounding_bytes},
        {"free_cells_bytes", BYTES, a.free_cells_bytes},
        {"free_pages_bytes", BYTES, a.free_pages_bytes},
        {"page_tail_bytes", BYTES, a.page_tail_bytes},
        {"header_bytes", BYTES, a.header_bytes},
        {"shards_bytes", BYTES, a.shards_bytes},
        {"map_bytes", BYTES, a.map_bytes},
        {"table_bytes", BYTES, a.table_bytes},
        {"roots_bytes", BYTES, a.roots_bytes},
        {"marks_bytes", BYTES, a.marks_bytes},
        {"padding_bytes", BYTES, a.padding_bytes}};
    json_t *json = json_object();

    i.name[sizeof(i.name) - 1] = '\0';
    add_text(args, json, "name", i.name);
    add_figures(args, json, figures, sizeof(figures) / sizeof(figures[0]));
    if (!args->json)
        printf("\n%-20s %llu, the sum of\n", "all_bytes",
               (unsigned long long)a.capacity_bytes);
    else
        json_object_set_new(json, "all_bytes",
                            json_integer((json_int_t)a.capacity_bytes));
    add_figures(args, json, parts, sizeof(parts) / sizeof(parts[0]));
    if (!args->json)
        putchar('\n');
    add_classes(args, json, &a);
    return end(args, json);
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
