/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict ls: the segments of this machine, or the objects of one. */
#include "cli.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define SHM_DIRECTORY "/dev/shm"
#define SHM_PREFIX "shdict-"

struct summary {
    const char *state; /* "ok", or the code's name */
    struct shd_segment_info info;
    unsigned objects, workers, dead;
};

static void count(shd_segment *segment, struct summary *s)
{
    struct shd_object_info object = {.struct_size = sizeof(object)};
    struct shd_worker_info worker = {.struct_size = sizeof(worker)};

    for (uint32_t i = 0; i < s->info.objects_max; i++)
        s->objects += shd_object_info(segment, i, &object) == SHD_OK;
    for (uint32_t i = 0; i < s->info.workers_max; i++) {
        if (shd_worker_info(segment, i, &worker) != SHD_OK)
            continue;
        if (worker.state == SHD_WORKER_ALIVE)
            s->workers++;
        else
            s->dead++;
    }
}

static void look(const char *name, struct summary *s)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .flags = SHD_ATTACH_READONLY};
    shd_segment *segment;

    memset(s, 0, sizeof(*s));
    s->info.struct_size = sizeof(s->info);
    int code = shd_segment_attach(name, &o, &segment);
    if (code == SHD_OK) {
        code = shd_segment_info(segment, &s->info);
        if (code == SHD_OK)
            count(segment, s);
        shd_segment_close(segment);
    }
    s->state = code == SHD_OK ? "ok" : shd_strerror(code);
}

static json_t *segment_json(const char *name, const struct summary *s)
{
    return json_pack("{s:o, s:s, s:I, s:I, s:i, s:i, s:i}", "name",
                     cli_json_bytes(name, strlen(name)), "state", s->state,
                     "size_bytes", (json_int_t)s->info.size_bytes,
                     "committed_bytes", (json_int_t)s->info.committed_bytes,
                     "objects", (int)s->objects, "workers", (int)s->workers,
                     "workers_dead", (int)s->dead);
}

static void segment_row(FILE *out, const char *name, const struct summary *s)
{
    char room[16], used[16];

    cli_escape(out, name, strlen(name));
    fprintf(out, "\t%s\t%s\t%u\t%u\t%s\n",
            cli_size_format(s->info.size_bytes, room, sizeof(room)),
            cli_size_format(s->info.committed_bytes, used, sizeof(used)),
            s->objects, s->workers, s->state);
}

static int is_segment(const struct dirent *entry)
{
    return strncmp(entry->d_name, SHM_PREFIX, strlen(SHM_PREFIX)) == 0;
}

static int list_segments(struct cli_args *args)
{
    struct dirent **entries;
    int n = scandir(SHM_DIRECTORY, &entries, is_segment, alphasort);
    json_t *list = json_array();
    struct cli_table table;

    if (n < 0) {
        cli_message(args, SHM_DIRECTORY ": %m");
        return CLI_FAILED;
    }
    if (!cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        return CLI_FAILED;
    }
    fputs("NAME\tROOM\tUSED\tOBJECTS\tWORKERS\tSTATE\n", table.out);
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name + strlen(SHM_PREFIX);
        struct summary s;
        look(name, &s);
        if (args->json)
            json_array_append_new(list, segment_json(name, &s));
        else
            segment_row(table.out, name, &s);
        free(entries[i]);
    }
    free(entries);
    if (args->json) {
        cli_json_print(args, list);
        fclose(table.out);
        free(table.text);
        return CLI_YES;
    }
    json_decref(list);
    return cli_table_end(&table) ? CLI_YES : CLI_FAILED;
}

static json_t *object_json(const struct shd_object_info *o,
                           const struct shd_dict_info *d)
{
    bool dict = o->kind == SHD_OBJECT_DICT;

    return json_pack(
        "{s:o, s:s, s:I, s:o, s:o, s:I, s:I}", "name",
        cli_json_bytes(o->name, strnlen(o->name, sizeof(o->name))), "kind",
        shd_object_kind_name(o->kind), "capacity_bytes",
        (json_int_t)o->size_bytes, "free_bytes",
        dict ? json_integer((json_int_t)d->free_bytes) : json_null(),
        "entries", dict ? json_integer((json_int_t)d->entries) : json_null(),
        "created_ms",
        (json_int_t)o->created_ms, "generation", (json_int_t)o->generation);
}

/* What other verbs tell of what is no dict: `shdict queues` ... */
static void object_row(FILE *out, const struct shd_object_info *o,
                       const struct shd_dict_info *d)
{
    char size[16], room[16], made[32];

    if (o->kind != SHD_OBJECT_DICT) {
        cli_escape(out, o->name, strnlen(o->name, sizeof(o->name)));
        fprintf(out, "\t%s\t%s\t-\t-\t%s\n", shd_object_kind_name(o->kind),
                cli_size_format(o->size_bytes, size, sizeof(size)),
                cli_time_format(o->created_ms, made, sizeof(made)));
        return;
    }

    cli_escape(out, o->name, strnlen(o->name, sizeof(o->name)));
    fprintf(out, "\t%s\t%s\t%s\t%llu\t%s\n",
            shd_object_kind_name(o->kind),
            cli_size_format(o->size_bytes, size, sizeof(size)),
            cli_size_format(d->free_bytes, room, sizeof(room)),
            (unsigned long long)d->entries,
            cli_time_format(o->created_ms, made, sizeof(made)));
}

/* What the dict says of itself. One that goes away meanwhile is SHD_GONE or
 * SHD_NOTFOUND: it is left out. */
static int dict_info(shd_segment *segment, const char *name,
                     struct shd_dict_info *info)
{
    shd_dict *dict;

    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    int code = shd_dict_open(segment, name, NULL, &dict);
    if (code != SHD_OK)
        return code;
    code = shd_dict_info(dict, info);
    shd_dict_close(dict);
    return code;
}

static int list_objects(struct cli_args *args)
{
    struct shd_object_info object = {.struct_size = sizeof(object)};
    struct shd_dict_info info;
    struct cli_table table;
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);
    json_t *list;
    int code;

    if (status != CLI_YES)
        return status;
    list = json_array();
    if (!cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    fputs("NAME\tKIND\tCAPACITY\tFREE\tENTRIES\tCREATED\n", table.out);
    int damaged = CLI_YES;
    for (uint32_t i = 0; status == CLI_YES; i++) {
        code = shd_object_info(segment, i, &object);
        if (code == SHD_INVAL)
            break;
        if (code == SHD_OK && object.kind == SHD_OBJECT_DICT)
            code = dict_info(segment, object.name, &info);
        if (cli_left_out(args, code, &damaged))
            continue;
        if (code != SHD_OK)
            status = cli_answer(args, args->words[0], code);
        else if (args->json)
            json_array_append_new(list, object_json(&object, &info));
        else
            object_row(table.out, &object, &info);
    }
    status = status == CLI_YES ? damaged : status;
    shd_segment_close(segment);
    if (args->json) {
        cli_json_print(args, list);
        fclose(table.out);
        free(table.text);
        return status;
    }
    json_decref(list);
    return cli_table_end(&table) ? status : CLI_FAILED;
}

static int run(struct cli_args *args)
{
    return args->count == 0 ? list_segments(args) : list_objects(args);
}

const struct cli_verb verb_ls = {
    .name = "ls",
    .words = "[SEGMENT]",
    .summary = "List the segments in " SHM_DIRECTORY ", or a segment's objects",
    .words_max = 1,
    .run = run};
