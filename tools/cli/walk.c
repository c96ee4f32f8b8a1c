/* SPDX-License-Identifier: BSD-2-Clause */
/* Walking over what dicts hold, by shd_scan: one entry is in memory at a time,
 * and no worker is held up. */
#include "cli.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

struct cli_walk *cli_walk_new(struct cli_args *args)
{
    struct cli_walk *w = calloc(1, sizeof(*w));

    if (w == NULL) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    w->args = args;
    w->progress.what = "walking";
    return w;
}

void cli_walk_free(struct cli_walk *w)
{
    free(w->value);
    free(w);
}

static void grow(struct cli_walk *w, size_t size)
{
    if (cli_grow(&w->value, &w->value_size, size) != 0) {
        cli_message(w->args, "out of memory");
        exit(CLI_FAILED);
    }
}

/* The pattern sees what people see: the key as escaped text. */
static bool matches(const struct cli_walk *w, const char *key, size_t len)
{
    char *text = NULL;
    size_t size;
    bool yes;

    if (w->glob == NULL)
        return true;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return false;
    cli_escape(out, key, len);
    fclose(out);
    yes = text != NULL && fnmatch(w->glob, text, FNM_NOESCAPE) == 0;
    free(text);
    return yes;
}

/* The entry after keys[at], into keys[!at]: again with more room if its
 * value did not fit, or grew meanwhile. */
static int next(struct cli_walk *w, unsigned at, const char *after,
                size_t after_len, size_t *len, struct shd_value *v)
{
    for (;;) {
        int code =
            shd_scan(w->dict, after, after_len, w->flags, w->keys[!at],
                     CLI_KEY_MAX, len, w->value, w->value_size, v);
        if (code != SHD_OK || v->type != SHD_STRING || !w->values ||
            v->len <= w->value_size)
            return code;
        grow(w, (size_t)v->len);
    }
}

static int walk_entries(struct cli_walk *w)
{
    const char *after = NULL;
    size_t len = 0, found;
    struct shd_value v;
    unsigned at = 0;
    uint64_t looked = 0;
    int code;

    while ((code = next(w, at, after, len, &found, &v)) == SHD_OK) {
        at = !at;
        after = w->keys[at];
        len = found;
        cli_progress_step(&w->progress, ++looked);
        if (!matches(w, after, len))
            continue;
        code = w->entry(w, after, len, &v);
        if (code != SHD_OK)
            return code;
        if (++w->count == w->max || ferror(stdout)) /* cli_finish says why */
            return SHD_OK;
    }
    return code == SHD_NOTFOUND ? SHD_OK : code;
}

static int walk_dict(struct cli_walk *w)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    int code = shd_dict_info(w->dict, &info);

    if (code != SHD_OK)
        return code;
    w->progress.total = info.entries;
    if (w->dict_begin)
        w->dict_begin(w, &info);
    code = walk_entries(w);
    cli_progress_end(&w->progress);
    if (code == SHD_OK && w->dict_end)
        w->dict_end(w);
    return code;
}

/* *status: as cli_left_out; what is sound is walked over all the same. */
static int walk_segment(struct cli_walk *w, shd_segment *segment, int *status)
{
    struct shd_object_info o = {.struct_size = sizeof(o)};
    int code;

    for (uint32_t i = 0;; i++) {
        code = shd_object_info(segment, i, &o);
        if (code == SHD_INVAL)
            return SHD_OK;
        if (code == SHD_OK && o.kind != SHD_OBJECT_DICT)
            continue;
        if (code == SHD_OK)
            code = shd_dict_open(segment, o.name, NULL, &w->dict);
        if (code == SHD_OK) {
            w->dict_name = o.name;
            code = walk_dict(w);
            shd_dict_close(w->dict);
        }
        if (!cli_left_out(w->args, code, status) && code != SHD_OK)
            return code;
        if (w->max != 0 && w->count >= w->max)
            return SHD_OK;
    }
}

int cli_walk(struct cli_args *args, struct cli_walk *w)
{
    const char *dict_name = args->count > 1 ? args->words[1] : NULL;
    shd_segment *segment;
    int status = dict_name
                     ? cli_open(args, args->words[0], dict_name, CLI_READ,
                                &segment, &w->dict)
                     : cli_attach(args, args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    if (w->values)
        grow(w, 65536);
    if (args->json)
        cli_json_list_begin();
    if (w->begin)
        w->begin(w);
    w->dict_name = dict_name;
    int code = dict_name ? walk_dict(w) : walk_segment(w, segment, &status);
    if (args->json)
        cli_json_list_end();
    if (code != SHD_OK)
        status = cli_answer(args, args->words[0], code);
    if (dict_name)
        shd_dict_close(w->dict);
    shd_segment_close(segment);
    return status;
}
