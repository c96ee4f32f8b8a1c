/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict dump: every entry, as text that describes itself (dump.h), as JSON,
 * or the keys alone. A list is read in pieces. */
#include "cli.h"
#include "dump.h"

#include <stdlib.h>
#include <string.h>

#define PIECE 256u

struct dump {
    struct cli_walk *walk;
    char *piece; /* bytes of elements */
    size_t piece_size;
};

/* One dump a process. */
static struct dump dump;

static void escape_key(const char *key, size_t len)
{
    if (len > 0 && key[0] == '#') {
        fputs("\\x23", stdout);
        key++;
        len--;
    }
    cli_escape(stdout, key, len);
}

static void print_number(double number)
{
    char text[64];

    cli_number_format(number, text, sizeof(text));
    fputs(text, stdout);
}

static int age_of(struct cli_walk *w, const char *key, size_t len,
                  uint32_t *age)
{
    struct shd_entry_info info = {.struct_size = sizeof(info)};
    int code = shd_entry_info(w->dict, key, len, &info);

    *age = code == SHD_OK ? info.age_min_s : 0;
    /* Gone since: it is printed as it was. */
    return code == SHD_NOTFOUND ? SHD_OK : code;
}

/* ---- lists -------------------------------------------------------------- */

static void element_text(const struct shd_value *v, const char *bytes)
{
    printf("\t%s\t", cli_type_name(v->type));
    if (v->type == SHD_STRING)
        cli_escape(stdout, bytes, (size_t)v->len);
    else
        print_number(v->number);
    putchar('\n');
}

/* "nan" as an element could as well be a string. */
static json_t *number_json(double number)
{
    json_t *json = cli_json_number(number);

    return json_is_string(json) ? json_pack("{s:o}", "number", json) : json;
}

static void element_json(const struct shd_value *v, const char *bytes,
                         bool first)
{
    fputs(first ? "" : ", ", stdout);
    cli_json_write(dump.walk->args,
                   v->type == SHD_STRING
                       ? cli_json_bytes(bytes, (size_t)v->len)
                       : number_json(v->number));
}

/* Elements of a list, a piece at a time; never more than `length`, which has
 * been printed. What is gone meanwhile is missing. */
static int elements(struct cli_walk *w, const char *key, size_t len,
                    uint64_t length)
{
    struct shd_value values[PIECE];
    size_t at[PIECE];
    uint64_t done = 0, now;
    uint32_t n;

    while (done < length) {
        uint32_t max =
            length - done < PIECE ? (uint32_t)(length - done) : PIECE;
        int code = shd_list_read(w->dict, key, len, w->flags, done, max,
                                 dump.piece, dump.piece_size, values, at, &n,
                                 &now);

        if (code == SHD_SPACE) {
            if (cli_grow(&dump.piece, &dump.piece_size,
                         (size_t)values[0].len) == 0)
                continue;
            cli_message(w->args, "out of memory");
            exit(CLI_FAILED);
        }
        if (code == SHD_NOTFOUND || code == SHD_NOTLIST)
            return SHD_OK;
        if (code != SHD_OK || n == 0)
            return code;
        for (uint32_t i = 0; i < n; i++, done++) {
            if (w->args->json)
                element_json(&values[i], dump.piece + at[i], done == 0);
            else
                element_text(&values[i], dump.piece + at[i]);
        }
    }
    return SHD_OK;
}

/* ---- entries ------------------------------------------------------------ */

static int entry_json(struct cli_walk *w, const char *key, size_t len,
                      const struct shd_value *v)
{
    json_t *json = json_object();
    uint32_t age;
    int code = age_of(w, key, len, &age);

    if (code != SHD_OK)
        return code;
    cli_json_list_next();
    if (w->args->count == 1)
        json_object_set_new(json, "dict",
                            cli_json_bytes(w->dict_name,
                                           strlen(w->dict_name)));
    json_object_set_new(json, "key", cli_json_bytes(key, len));
    if (cli_json_value(json, v, w->value) != 0 ||
        json_object_set_new(json, "age", json_integer(age)) != 0) {
        json_decref(json);
        json = NULL;
    }
    if (v->type != SHD_LIST) {
        cli_json_write(w->args, json);
        return SHD_OK;
    }
    json_object_del(json, "value");
    cli_json_write_open(w->args, json);
    fputs(", \"value\": [", stdout);
    code = elements(w, key, len, v->len);
    fputs("]}", stdout);
    return code;
}

static int entry_text(struct cli_walk *w, const char *key, size_t len,
                      const struct shd_value *v)
{
    uint32_t age;
    int code = age_of(w, key, len, &age);

    if (code != SHD_OK)
        return code;
    escape_key(key, len);
    printf("\t%s\t%d\t", cli_type_name(v->type), v->flags);
    if (v->ttl_ms == 0)
        putchar('-');
    else
        print_number((double)v->ttl_ms / 1000);
    printf("\t%u\t", age);
    if (v->type == SHD_STRING)
        cli_escape(stdout, w->value, (size_t)v->len);
    else if (v->type == SHD_NUMBER)
        print_number(v->number);
    else if (v->type == SHD_BOOLEAN)
        fputs(v->number != 0 ? "true" : "false", stdout);
    else
        printf("%llu", (unsigned long long)v->len);
    putchar('\n');
    return v->type == SHD_LIST ? elements(w, key, len, v->len) : SHD_OK;
}

static int key_only(struct cli_walk *w, const char *key, size_t len,
                    const struct shd_value *v)
{
    (void)v;
    if (w->args->json) {
        cli_json_list_next();
        cli_json_write(w->args, cli_json_bytes(key, len));
        return SHD_OK;
    }
    if (w->args->count == 1) {
        cli_escape(stdout, w->dict_name, strlen(w->dict_name));
        putchar('\t');
    }
    cli_escape(stdout, key, len);
    putchar('\n');
    return SHD_OK;
}

static void begin_text(struct cli_walk *w)
{
    (void)w;
    printf(DUMP_MAGIC "%d\n", DUMP_VERSION);
}

static void dict_text(struct cli_walk *w, const struct shd_dict_info *info)
{
    fputs("#dict\t", stdout);
    cli_escape(stdout, w->dict_name, strlen(w->dict_name));
    printf("\t%llu\t%llu\t%u\n#key\ttype\tflags\tttl\tage\tvalue\n",
           (unsigned long long)info->capacity_bytes,
           (unsigned long long)info->capacity_max_bytes, info->shards);
}

static int run(struct cli_args *args)
{
    struct cli_walk *w = cli_walk_new(args);
    bool keys = cli_option(args, "keys");
    bool text = !keys && !args->json;

    dump = (struct dump){.walk = w};
    w->flags = cli_option(args, "expired") ? SHD_SCAN_EXPIRED : 0;
    w->glob = cli_option(args, "match");
    w->entry = keys ? key_only : args->json ? entry_json : entry_text;
    w->begin = text ? begin_text : NULL;
    w->dict_begin = text ? dict_text : NULL;
    w->values = !keys;
    w->progress.what = "dumping";
    if (cli_grow(&dump.piece, &dump.piece_size, 65536) != 0) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    int status = cli_walk(args, w);
    if (text && status == CLI_YES)
        printf("#end\t%llu\n", (unsigned long long)w->count);
    cli_walk_free(w);
    free(dump.piece);
    return status;
}

static const struct cli_option options[] = {
    {"keys", 'k', NULL, "The keys alone, one a line"},
    {"match", 'g', "GLOB", "Entries whose escaped key the pattern matches"},
    {"expired", 'x', NULL, "Expired entries that are still stored, too"},
    {NULL}};

const struct cli_verb verb_dump = {
    .name = "dump",
    .words = "SEGMENT [DICT]",
    .summary = "Print every entry, as text that load reads back",
    .options = options,
    .words_min = 1,
    .words_max = 2,
    .run = run};
