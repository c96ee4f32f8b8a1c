/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict stat: the figures of a segment and all its objects, or of one of
 * them; or with --interval, how fast they change. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/* ---- all objects -------------------------------------------------------- */

/* "92.3%", or "-" if there was nothing. */
static const char *ratio(uint64_t hits, uint64_t misses, char *text,
                         size_t size)
{
    if (hits + misses == 0)
        snprintf(text, size, "-");
    else
        snprintf(text, size, "%.1f%%",
                 100 * (double)hits / (double)(hits + misses));
    return text;
}

static json_t *object_json(const struct cli_object *o)
{
    json_t *json = json_object();

    json_object_set_new(json, "name", cli_json_bytes(o->name,
                                                     strlen(o->name)));
    json_object_set_new(json, "kind", json_string(shd_object_kind_name(o->kind)));
    for (unsigned i = 0; i < o->figures; i++)
        json_object_set_new(json, o->figure[i].name,
                            json_integer((json_int_t)o->figure[i].value));
    return json;
}

/* A minus where its kind has no such figure. */
static void size_cell(FILE *out, const struct cli_object *o, const char *name)
{
    char text[16];

    fprintf(out, "%s\t",
            cli_has_figure(o, name)
                ? cli_size_format(cli_figure(o, name), text, sizeof(text))
                : "-");
}

static void count_cell(FILE *out, const struct cli_object *o, const char *name)
{
    if (cli_has_figure(o, name))
        fprintf(out, "%llu\t", (unsigned long long)cli_figure(o, name));
    else
        fputs("-\t", out);
}

static void object_row(FILE *out, const struct cli_object *o)
{
    char hit[16];

    cli_escape(out, o->name, strlen(o->name));
    fprintf(out, "\t%s\t%llu\t", shd_object_kind_name(o->kind),
            (unsigned long long)cli_entries(o));
    size_cell(out, o, "capacity_bytes");
    size_cell(out, o, "free_bytes");
    count_cell(out, o, "hits");
    count_cell(out, o, "misses");
    fprintf(out, "%s\t",
            ratio(cli_figure(o, "hits"), cli_figure(o, "misses"), hit,
                  sizeof(hit)));
    count_cell(out, o, "evictions");
    count_cell(out, o, "expirations");
    if (cli_has_figure(o, "lock_waits"))
        fprintf(out, "%llu\n", (unsigned long long)cli_figure(o, "lock_waits"));
    else
        fputs("-\n", out);
}

/* A row, or an element, for each; nothing if there is none. An exit code. */
static int add_objects(const struct cli_args *args, json_t *json,
                       shd_segment *segment)
{
    json_t *list = json_array();
    struct cli_object o;
    struct cli_table table;
    int code, status = CLI_YES;
    unsigned n = 0;

    if (!cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    fputs("NAME\tKIND\tENTRIES\tCAPACITY\tFREE\tHITS\tMISSES\tRATIO\tEVICTED"
          "\tEXPIRED\tWAITS\n",
          table.out);
    for (uint32_t i = 0; (code = cli_object_at(segment, i, &o)) != SHD_INVAL;
         i++) {
        if (cli_left_out(args, code, &status))
            continue;
        if (code != SHD_OK) {
            status = cli_answer(args, args->words[0], code);
            break;
        }
        n++;
        if (args->json)
            json_array_append_new(list, object_json(&o));
        else
            object_row(table.out, &o);
    }
    json_object_set_new(json, "objects", list);
    if (args->json || n == 0) {
        fclose(table.out);
        free(table.text);
    } else {
        putchar('\n');
        (void)cli_table_end(&table);
    }
    return status;
}

/* ---- one object --------------------------------------------------------- */

/* Finds the object the second word names. CLI_ATTACH and a message: there is
 * none. */
static int find(const struct cli_args *args, shd_segment *segment,
                struct cli_object *o)
{
    int code = SHD_NOTFOUND;

    /* Another one that is damaged does not matter. */
    for (uint32_t i = 0; code != SHD_INVAL; i++) {
        code = cli_object_at(segment, i, o);
        if (code == SHD_INVAL || strcmp(o->name, args->words[1]) != 0)
            continue;
        if (code == SHD_OK)
            return CLI_YES;
        if (code != SHD_NOTFOUND)
            return cli_answer(args, args->words[1], code);
    }
    cli_message(args,
                "no dict or other object \"%s\" in segment \"%s\"; `shdict ls %s` lists "
                "them",
                args->words[1], args->words[0], args->words[0]);
    return CLI_ATTACH;
}

/* Of one that is no dict. */
static int stat_other(struct cli_args *args, const struct cli_object *o)
{
    json_t *json = json_object();

    add_text(args, json, "name", o->name);
    add_text(args, json, "kind", shd_object_kind_name(o->kind));
    for (unsigned i = 0; i < o->figures; i++) {
        const struct figure f = {o->figure[i].name,
                                 o->figure[i].unit == CLI_BYTES ? BYTES
                                                                : PLAIN,
                                 o->figure[i].value};

        add_figures(args, json, &f, 1);
    }
    return end(args, json);
}

/* ---- rates -------------------------------------------------------------- */

struct seen {
    struct cli_object *object;
    size_t n, room;
    struct timespec at;
};

static int look(const struct cli_args *args, shd_segment *segment,
                struct seen *s)
{
    const char *only = args->count > 1 ? args->words[1] : NULL;

    s->n = 0;
    clock_gettime(CLOCK_MONOTONIC, &s->at);
    for (uint32_t i = 0;; i++) {
        if (s->n == s->room) {
            s->room = s->room ? 2 * s->room : 16;
            s->object = realloc(s->object, s->room * sizeof(*s->object));
            if (s->object == NULL)
                return SHD_NOMEM;
        }
        int code = cli_object_at(segment, i, &s->object[s->n]);
        if (code == SHD_INVAL)
            return SHD_OK;
        if (code == SHD_OK &&
            (!only || strcmp(only, s->object[s->n].name) == 0))
            s->n++;
        else if (code != SHD_OK && code != SHD_NOTFOUND && code != SHD_CORRUPT)
            return code;
    }
}

static const struct cli_object *same(const struct seen *s,
                                     const struct cli_object *o)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->object[i].generation == o->generation)
            return &s->object[i];
    return NULL;
}

static uint64_t grown(const struct cli_object *before,
                      const struct cli_object *now, const char *name)
{
    uint64_t a = cli_figure(before, name), b = cli_figure(now, name);

    return b > a ? b - a : 0;
}

/* What comes in: no two kinds share one of these. */
static uint64_t changes(const struct cli_object *before,
                        const struct cli_object *now)
{
    return grown(before, now, "changes") + grown(before, now, "pushed") +
           grown(before, now, "published") + grown(before, now, "grants");
}

static void rates_row(FILE *out, const struct cli_object *before,
                      const struct cli_object *now, double seconds)
{
    uint64_t hits = grown(before, now, "hits");
    uint64_t misses = grown(before, now, "misses");
    char hit[16];

    cli_escape(out, now->name, strlen(now->name));
    fprintf(out, "\t%.0f\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t%llu\n",
            (double)(hits + misses) / seconds,
            ratio(hits, misses, hit, sizeof(hit)),
            (double)changes(before, now) / seconds,
            (double)grown(before, now, "evictions") / seconds,
            (double)grown(before, now, "expirations") / seconds,
            (double)grown(before, now, "lock_waits") / seconds,
            (unsigned long long)cli_entries(now));
}

static json_t *rates_json(const struct cli_object *before,
                          const struct cli_object *now, double seconds)
{
    json_t *json = json_object();

    json_object_set_new(json, "name", cli_json_bytes(now->name,
                                                     strlen(now->name)));
    for (unsigned i = 0; i < now->figures; i++) {
        const struct cli_figure *f = &now->figure[i];
        char name[64];

        if (f->unit != CLI_COUNTER)
            continue;
        snprintf(name, sizeof(name), "%s_per_second", f->name);
        json_object_set_new(
            json, name,
            json_real((double)grown(before, now, f->name) / seconds));
    }
    return json;
}

static void rates(const struct cli_args *args, const struct seen *before,
                  const struct seen *now)
{
    double seconds = (double)(now->at.tv_sec - before->at.tv_sec) +
                     (double)(now->at.tv_nsec - before->at.tv_nsec) / 1e9;
    json_t *list = json_array();
    struct cli_table table;

    if (!cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    fputs("NAME\tREADS/S\tHITS\tCHANGES/S\tEVICTED/S\tEXPIRED/S\tWAITS/S\t"
          "ENTRIES\n",
          table.out);
    for (size_t i = 0; i < now->n; i++) {
        const struct cli_object *was = same(before, &now->object[i]);

        if (was == NULL)
            continue;
        if (args->json)
            json_array_append_new(list,
                                  rates_json(was, &now->object[i], seconds));
        else
            rates_row(table.out, was, &now->object[i], seconds);
    }
    if (args->json) {
        cli_json_print(args, json_pack("{s:f, s:o}", "seconds", seconds,
                                       "objects", list));
        fclose(table.out);
        free(table.text);
    } else {
        json_decref(list);
        (void)cli_table_end(&table);
    }
    fflush(stdout);
}

/* A table each interval, until it is told to end. */
static int stat_rates(struct cli_args *args, int64_t interval_ms,
                      uint64_t count)
{
    const struct timespec pause = {.tv_sec = interval_ms / 1000,
                                   .tv_nsec = interval_ms % 1000 * 1000000};
    struct seen seen[2] = {{0}};
    struct cli_object only;
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment), code;
    unsigned now = 0;

    if (status != CLI_YES)
        return status;
    if (args->count > 1)
        status = find(args, segment, &only);
    if (status != CLI_YES) {
        shd_segment_close(segment);
        return status;
    }
    code = look(args, segment, &seen[0]);
    for (uint64_t i = 0; code == SHD_OK && (count == 0 || i < count); i++) {
        nanosleep(&pause, NULL);
        code = look(args, segment, &seen[!now]);
        if (code != SHD_OK)
            break;
        now = !now;
        rates(args, &seen[!now], &seen[now]);
        if (ferror(stdout)) /* cli_finish says why */
            break;
    }
    free(seen[0].object);
    free(seen[1].object);
    shd_segment_close(segment);
    return code == SHD_OK ? CLI_YES : cli_answer(args, args->words[0], code);
}

/* ---- one segment -------------------------------------------------------- */

static int stat_segment(struct cli_args *args)
{
    struct shd_segment_info i = {.struct_size = sizeof(i)};
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    int code = shd_segment_info(segment, &i);
    if (code != SHD_OK) {
        shd_segment_close(segment);
        return cli_answer(args, args->words[0], code);
    }
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
    status = add_objects(args, json, segment);
    shd_segment_close(segment);
    (void)end(args, json);
    return status;
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

static int stat_dict(struct cli_args *args, shd_segment *segment)
{
    struct shd_dict_info i = {.struct_size = sizeof(i)};
    struct shd_dict_account a = {.struct_size = sizeof(a)};
    shd_dict *dict;
    int code = shd_dict_open(segment, args->words[1], NULL, &dict);

    if (code == SHD_OK) {
        code = shd_dict_info(dict, &i);
        if (code == SHD_OK)
            code = shd_dict_account(dict, &a);
        shd_dict_close(dict);
    }
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
        {"leases", PLAIN, i.leases},
        {"hits", PLAIN, i.hits},
        {"misses", PLAIN, i.misses},
        {"changes", PLAIN, i.changes},
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

static int stat_object(struct cli_args *args)
{
    struct cli_object o;
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    status = find(args, segment, &o);
    if (status == CLI_YES)
        status = o.kind == SHD_OBJECT_DICT ? stat_dict(args, segment)
                                           : stat_other(args, &o);
    shd_segment_close(segment);
    return status;
}

static int run(struct cli_args *args)
{
    const char *interval = cli_option(args, "interval");
    const char *count = cli_option(args, "count");
    uint64_t n = count ? cli_count(args, "--count", count, INT64_MAX) : 0;

    if (count && !interval)
        cli_usage(args, "--count wants --interval");
    if (interval) {
        int64_t ms = cli_seconds_ms(args, "--interval", interval);
        if (ms == 0)
            cli_usage(args, "--interval: at least 0.001 seconds");
        return stat_rates(args, ms, n);
    }
    return args->count == 1 ? stat_segment(args) : stat_object(args);
}

static const struct cli_option options[] = {
    {"interval", 'i', "SECONDS", "Show what changes a second, again and again"},
    {"count", 'n', "N", "With --interval: N times; 0, the default, for ever"},
    {NULL}};

const struct cli_verb verb_stat = {
    .name = "stat",
    .words = "SEGMENT [OBJECT]",
    .summary = "Show the figures of a segment, or of one of its objects",
    .options = options,
    .words_min = 1,
    .words_max = 2,
    .run = run};
