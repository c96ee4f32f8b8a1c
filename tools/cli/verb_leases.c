/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict leases: elements of lists that workers have taken out on a lease. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* What is shown, of one dict after the other. */
struct show {
    struct cli_args *args;
    FILE *out;
    json_t *list;
    char key[CLI_KEY_MAX];
};

static const char *state_name(const struct shd_lease_info *l)
{
    return l->dead ? "dead" : l->moving ? "moving" : "held";
}

static const char *type_name(uint32_t type)
{
    return type == SHD_STRING ? "string" : type == SHD_NUMBER ? "number" : "-";
}

static void show_json(struct show *s, const char *dict, size_t len,
                      const struct shd_lease_info *l)
{
    json_array_append_new(
        s->list,
        json_pack("{s:o, s:o, s:I, s:b, s:b, s:I, s:i, s:s, s:I}", "dict",
                  cli_json_bytes(dict, strlen(dict)), "list",
                  len == 0 ? json_null() : cli_json_bytes(s->key, len),
                  "holder", (json_int_t)l->holder, "dead", (int)l->dead,
                  "moving", (int)l->moving, "lease", (json_int_t)l->lease,
                  "shard", (int)l->shard, "type", type_name(l->type), "len",
                  (json_int_t)l->len));
}

static void show_row(const struct show *s, const char *dict, size_t len,
                     const struct shd_lease_info *l)
{
    cli_escape(s->out, dict, strlen(dict));
    putc('\t', s->out);
    if (len == 0)
        putc('-', s->out);
    cli_escape(s->out, s->key, len);
    fprintf(s->out, "\t%s\t%llu\t%llu\t%s", state_name(l),
            (unsigned long long)l->holder, (unsigned long long)l->lease,
            type_name(l->type));
    if (l->type == SHD_STRING)
        fprintf(s->out, " of %llu bytes", (unsigned long long)l->len);
    putc('\n', s->out);
}

static int show_dict(struct show *s, const char *name, shd_dict *dict)
{
    struct shd_lease_info l = {.struct_size = sizeof(l)};
    size_t len;
    int code;

    while ((code = shd_lease_next(dict, &l, s->key, sizeof(s->key), &len)) ==
           SHD_OK) {
        if (s->args->json)
            show_json(s, name, len, &l);
        else
            show_row(s, name, len, &l);
    }
    return code == SHD_NOTFOUND ? SHD_OK : code;
}

/* SHD_NOTFOUND: that object is no dict (any more). */
static int show_object(struct show *s, shd_segment *segment, uint32_t index)
{
    struct shd_object_info o = {.struct_size = sizeof(o)};
    shd_dict *dict;
    int code = shd_object_info(segment, index, &o);

    if (code == SHD_OK && o.kind != SHD_OBJECT_DICT)
        return SHD_NOTFOUND;
    if (code == SHD_OK)
        code = shd_dict_open(segment, o.name, NULL, &dict);
    if (code != SHD_OK)
        return code;
    code = show_dict(s, o.name, dict);
    shd_dict_close(dict);
    return code;
}

static int show_all(struct show *s)
{
    shd_segment *segment;
    int damaged = CLI_YES;
    int status = cli_attach(s->args, s->args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    for (uint32_t i = 0; status == CLI_YES; i++) {
        int code = show_object(s, segment, i);

        if (code == SHD_INVAL)
            break;
        if (!cli_left_out(s->args, code, &damaged) && code != SHD_OK)
            status = cli_answer(s->args, s->args->words[0], code);
    }
    shd_segment_close(segment);
    return status == CLI_YES ? damaged : status;
}

static int show_one(struct show *s)
{
    const char *name = s->args->words[1];
    shd_segment *segment;
    shd_dict *dict;
    int status = cli_open(s->args, s->args->words[0], name, CLI_READ, &segment,
                          &dict);

    if (status != CLI_YES)
        return status;
    int code = show_dict(s, name, dict);
    if (code != SHD_OK)
        status = cli_answer(s->args, name, code);
    shd_dict_close(dict);
    shd_segment_close(segment);
    return status;
}

static int run(struct cli_args *args)
{
    struct show *s = calloc(1, sizeof(*s));
    struct cli_table table;

    if (s == NULL || !cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    s->args = args;
    s->out = table.out;
    s->list = json_array();
    fputs("DICT\tLIST\tSTATE\tHOLDER\tLEASE\tELEMENT\n", table.out);
    int status = args->words[1] == NULL ? show_all(s) : show_one(s);
    bool shown = status == CLI_YES || args->words[1] == NULL;
    if (shown && args->json)
        cli_json_print(args, s->list);
    else
        json_decref(s->list);
    free(s);
    if (!shown || args->json) {
        fclose(table.out);
        free(table.text);
        return status;
    }
    return cli_table_end(&table) ? status : CLI_FAILED;
}

const struct cli_verb verb_leases = {
    .name = "leases",
    .words = "SEGMENT [DICT]",
    .summary = "List who has which elements of lists on a lease",
    .words_min = 1,
    .words_max = 2,
    .run = run};
