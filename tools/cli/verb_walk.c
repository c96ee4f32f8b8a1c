/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict keys, dump: what a dict holds. Both walk by shd_scan and keep one
 * entry in memory; they hold up no worker. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

#define KEY_MAX_BYTES 65535

/* ---- dump --------------------------------------------------------------- */

struct walk {
    const struct cli_args *args;
    const char *dict; /* printed before each entry, NULL: it was asked for */
    const char *separator; /* JSON: before the next entry */
    uint32_t flags;
    uint64_t max; /* entries, 0: all */
    void (*print)(struct walk *w, const char *key, size_t len,
                  const struct shd_value *v);
    char *value; /* NULL: keys only */
    size_t value_size;
    char keys[2][KEY_MAX_BYTES]; /* the last one, and the next */
};

static void entry_json(struct walk *w, const char *key, size_t len,
                       const struct shd_value *v)
{
    json_t *json = json_object();

    if (w->dict)
        json_object_set_new(json, "dict",
                            cli_json_bytes(w->dict, strlen(w->dict)));
    json_object_set_new(json, "key", cli_json_bytes(key, len));
    if (cli_json_value(json, v, w->value) != 0) {
        json_decref(json);
        json = NULL;
    }
    fputs(w->separator, stdout);
    w->separator = ",\n";
    cli_json_write(w->args, json);
}

static void entry_text(struct walk *w, const char *key, size_t len,
                       const struct shd_value *v)
{
    char text[64];

    if (w->dict) {
        cli_escape(stdout, w->dict, strlen(w->dict));
        putchar('\t');
    }
    cli_escape(stdout, key, len);
    printf("\t%s\t%d\t", cli_type_name(v->type), v->flags);
    if (v->ttl_ms == 0) {
        fputs("-\t", stdout);
    } else {
        cli_number_format((double)v->ttl_ms / 1000, text, sizeof(text));
        printf("%s\t", text);
    }
    if (v->type == SHD_STRING) {
        cli_escape(stdout, w->value, (size_t)v->len);
    } else if (v->type == SHD_NUMBER) {
        cli_number_format(v->number, text, sizeof(text));
        fputs(text, stdout);
    } else if (v->type == SHD_BOOLEAN) {
        fputs(v->number != 0 ? "true" : "false", stdout);
    } else {
        printf("%llu elements", (unsigned long long)v->len);
    }
    putchar('\n');
}

/* The entry after keys[at], into keys[!at]: again with more room if its
 * value did not fit, or grew meanwhile. */
static int walk_next(struct walk *w, shd_dict *dict, unsigned at,
                     const char *after, size_t after_len, size_t *len,
                     struct shd_value *v)
{
    for (;;) {
        int code = shd_scan(dict, after, after_len, w->flags, w->keys[!at],
                            KEY_MAX_BYTES, len, w->value, w->value_size, v);
        if (code != SHD_OK || v->type != SHD_STRING || w->value == NULL ||
            v->len <= w->value_size)
            return code;
        if (cli_grow(&w->value, &w->value_size, (size_t)v->len) != 0) {
            cli_message(w->args, "out of memory");
            exit(CLI_FAILED);
        }
    }
}

static int walk_dict(struct walk *w, shd_dict *dict)
{
    const char *after = NULL;
    size_t len = 0, next;
    struct shd_value v;
    unsigned at = 0;
    uint64_t n = 0;
    int code;

    while ((code = walk_next(w, dict, at, after, len, &next, &v)) == SHD_OK) {
        at = !at;
        after = w->keys[at];
        len = next;
        w->print(w, after, len, &v);
        if (++n == w->max || ferror(stdout)) /* cli_finish says why */
            return SHD_OK;
    }
    return code == SHD_NOTFOUND ? SHD_OK : code;
}

static int walk_segment(struct walk *w, shd_segment *segment)
{
    struct shd_object_info o = {.struct_size = sizeof(o)};
    shd_dict *dict;
    int code;

    for (uint32_t i = 0;; i++) {
        code = shd_object_info(segment, i, &o);
        if (code == SHD_INVAL)
            return SHD_OK;
        if (code == SHD_OK && o.kind == SHD_OBJECT_DICT)
            code = shd_dict_open(segment, o.name, NULL, &dict);
        if (code == SHD_OK && o.kind == SHD_OBJECT_DICT) {
            w->dict = o.name;
            code = walk_dict(w, dict);
            shd_dict_close(dict);
        }
        /* One that is destroyed meanwhile is left out. */
        if (code != SHD_OK && code != SHD_NOTFOUND && code != SHD_GONE)
            return code;
    }
}

/* Opens what the words name, and walks it. */
static int walk(struct cli_args *args, struct walk *w)
{
    const char *dict_name = args->words[1];
    shd_segment *segment;
    shd_dict *dict;
    int status = dict_name
                     ? cli_open(args, args->words[0], dict_name, CLI_READ,
                                &segment, &dict)
                     : cli_attach(args, args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    if (args->json)
        putchar('[');
    int code = dict_name ? walk_dict(w, dict) : walk_segment(w, segment);
    if (args->json)
        puts("]");
    if (code != SHD_OK)
        status = cli_answer(args, args->words[0], code);
    if (dict_name)
        shd_dict_close(dict);
    shd_segment_close(segment);
    return status;
}

static struct walk *walk_new(struct cli_args *args)
{
    struct walk *w = calloc(1, sizeof(*w));

    if (w == NULL) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    w->args = args;
    w->separator = "";
    return w;
}

static int dump_run(struct cli_args *args)
{
    struct walk *w = walk_new(args);

    w->flags = cli_option(args, "expired") ? SHD_SCAN_EXPIRED : 0;
    w->print = args->json ? entry_json : entry_text;
    if (cli_grow(&w->value, &w->value_size, 65536) != 0) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    int status = walk(args, w);
    free(w->value);
    free(w);
    return status;
}

static const struct cli_option dump_options[] = {
    {"expired", 'x', NULL, "Expired entries that are still stored, too"},
    {NULL}};

const struct cli_verb verb_dump = {
    .name = "dump",
    .words = "SEGMENT [DICT]",
    .summary = "Print every entry: key, type, flags, ttl, value",
    .options = dump_options,
    .words_min = 1,
    .words_max = 2,
    .run = dump_run};

/* ---- keys --------------------------------------------------------------- */

static void key_print(struct walk *w, const char *key, size_t len,
                      const struct shd_value *v)
{
    (void)v;
    if (w->args->json) {
        fputs(w->separator, stdout);
        w->separator = ",\n";
        cli_json_write(w->args, cli_json_bytes(key, len));
    } else {
        cli_escape(stdout, key, len);
        putchar('\n');
    }
}

/* The order of age is kept in lists that only the lock makes readable. */
static int keys_oldest(struct cli_args *args, struct walk *w)
{
    shd_segment *segment;
    shd_keys *keys;
    shd_dict *dict;
    int status = cli_open(args, args->words[0], args->words[1], CLI_WRITE,
                          &segment, &dict);

    if (status != CLI_YES)
        return status;
    int code = shd_keys_get(dict, w->max, &keys);
    shd_dict_close(dict);
    shd_segment_close(segment);
    if (code != SHD_OK)
        return cli_answer(args, args->words[1], code);
    if (args->json)
        putchar('[');
    for (uint64_t i = 0; i < shd_keys_count(keys); i++) {
        size_t len;
        const char *key = shd_keys_at(keys, i, &len);
        key_print(w, key, len, NULL);
    }
    if (args->json)
        puts("]");
    shd_keys_free(keys);
    return CLI_YES;
}

static int keys_run(struct cli_args *args)
{
    const char *text = cli_option(args, "max");
    uint64_t max = text ? cli_count(args, "--max", text, INT64_MAX) : 0;
    struct walk *w = walk_new(args);

    w->max = max;
    w->print = key_print;
    int status =
        cli_option(args, "oldest") ? keys_oldest(args, w) : walk(args, w);
    free(w);
    return status;
}

static const struct cli_option keys_options[] = {
    {"max", 'm', "N", "At most N keys; 0, the default, is all"},
    {"oldest", 'o', NULL, "The least recently stored first; takes locks"},
    {NULL}};

const struct cli_verb verb_keys = {.name = "keys",
                                   .words = "SEGMENT DICT",
                                   .summary = "Print the live keys",
                                   .options = keys_options,
                                   .words_min = 2,
                                   .words_max = 2,
                                   .run = keys_run};
