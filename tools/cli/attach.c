/* SPDX-License-Identifier: BSD-2-Clause */
/* From names to handles, and from the library's codes to sentences and exit
 * codes. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

int cli_exit_code(int code)
{
    switch (code) {
    case SHD_OK:
        return CLI_YES;
    case SHD_NOTFOUND:
    case SHD_EXISTS:
    case SHD_NOMEM:
    case SHD_TOOBIG:
    case SHD_NOTNUMBER:
    case SHD_ISLIST:
    case SHD_NOTLIST:
    case SHD_NOTSTRING:
    case SHD_CHANGED:
    case SHD_MISMATCH:
        return CLI_NO;
    case SHD_INVAL:
    case SHD_NAME:
    case SHD_EMPTYKEY:
    case SHD_LONGKEY:
        return CLI_USAGE;
    case SHD_CORRUPT:
        return CLI_CORRUPT;
    case SHD_FOREIGN:
    case SHD_LAYOUT:
    case SHD_ENDIAN:
    case SHD_NAMESPACE:
    case SHD_PERM:
    case SHD_READONLY:
    case SHD_UNSUPPORTED:
        return CLI_ATTACH;
    default:
        return CLI_FAILED;
    }
}

/* Does the library's last sentence belong to this code? Operations on keys
 * leave none for what is an answer rather than a failure. */
static bool has_detail(int code)
{
    switch (code) {
    case SHD_NOTFOUND:
    case SHD_EXISTS:
    case SHD_NOMEM:
    case SHD_TOOBIG:
    case SHD_NOTNUMBER:
    case SHD_ISLIST:
    case SHD_NOTLIST:
    case SHD_NOTSTRING:
    case SHD_CHANGED:
    case SHD_EMPTYKEY:
    case SHD_LONGKEY:
    case SHD_SPACE:
    case SHD_GONE:
    case SHD_BUSY:
        return false;
    default:
        return shd_last_error()[0] != '\0';
    }
}

static const char *advice(int code)
{
    switch (code) {
    case SHD_BUSY:
        return "; a worker may be stopped: `shdict workers` shows who holds "
               "locks";
    case SHD_CORRUPT:
        return "; `shdict check` names what is damaged";
    case SHD_TOOBIG:
        return "; `shdict stat` shows the largest value it can hold";
    case SHD_NOMEM:
        return "; make the dict larger, or store without --safe";
    default:
        return "";
    }
}

int cli_answer(const struct cli_args *args, const char *what, int code)
{
    cli_message(args, "%.200s: %s%s", what,
                has_detail(code) ? shd_last_error() : shd_strerror(code),
                advice(code));
    return cli_exit_code(code);
}

static const char *attach_advice(int code, enum cli_mode mode)
{
    switch (code) {
    case SHD_NOTFOUND:
        return "; `shdict ls` lists what there is, `shdict create` makes one";
    case SHD_FOREIGN:
        return "; it was left alone";
    case SHD_LAYOUT:
        return "; use the shdict it was made with, or remove it and start "
               "its workers anew";
    case SHD_NAMESPACE:
        return mode == CLI_WRITE
                   ? "; verbs that only read work from here, run this one "
                     "where the workers live"
                   : "";
    case SHD_PERM:
        return "; run as the user it belongs to";
    default:
        return "";
    }
}

int cli_attach(const struct cli_args *args, const char *name,
               enum cli_mode mode, shd_segment **out)
{
    struct shd_segment_options o = {
        .struct_size = sizeof(o),
        .flags = mode == CLI_READ ? SHD_ATTACH_READONLY : 0,
        .worker_id = -1,
        .worker_name = "shdict"};
    int code = shd_segment_attach(name, &o, out);

    if (code == SHD_OK)
        return CLI_YES;
    const char *detail = shd_last_error();
    cli_message(args, "cannot attach to \"%s\": %s%s", name,
                detail[0] ? detail : shd_strerror(code),
                attach_advice(code, mode));
    if (code == SHD_NAME || code == SHD_INVAL)
        return CLI_USAGE;
    return code == SHD_CORRUPT ? CLI_CORRUPT : CLI_ATTACH;
}

int cli_open(const struct cli_args *args, const char *name, const char *dict,
             enum cli_mode mode, shd_segment **segment, shd_dict **out)
{
    int status = cli_attach(args, name, mode, segment);

    if (status != CLI_YES)
        return status;
    int code = shd_dict_open(*segment, dict, NULL, out);
    if (code == SHD_OK)
        return CLI_YES;
    shd_segment_close(*segment);
    return cli_no_object(args, name, dict, "dict", code);
}

int cli_no_object(const struct cli_args *args, const char *segment,
                  const char *object, const char *kind, int code)
{
    if (code == SHD_NOTFOUND)
        cli_message(args,
                    "no %s \"%s\" in segment \"%s\"; `shdict ls %s` lists "
                    "what there is",
                    kind, object, segment, segment);
    else if (code == SHD_MISMATCH)
        cli_message(args, "%s; `shdict ls %s` lists what there is",
                    shd_last_error(), segment);
    else
        return cli_answer(args, object, code);
    return CLI_ATTACH;
}

bool cli_left_out(const struct cli_args *args, int code, int *status)
{
    if (code == SHD_CORRUPT && *status == CLI_YES)
        *status = cli_answer(args, args->words[0], code);
    return code == SHD_NOTFOUND || code == SHD_GONE || code == SHD_CORRUPT;
}

int cli_grow(char **buf, size_t *held, size_t size)
{
    if (size <= *held)
        return 0;
    char *bigger = malloc(size);
    if (bigger == NULL)
        return -1;
    free(*buf);
    *buf = bigger;
    *held = size;
    return 0;
}

int cli_read(shd_dict *dict, const void *key, size_t key_len, bool stale,
             char **buf, size_t *size, struct shd_value *value)
{
    /* The value may grow between two reads; each round is a new answer. */
    for (;;) {
        int code = stale
                       ? shd_get_stale(dict, key, key_len, *buf, *size, value)
                       : shd_get(dict, key, key_len, *buf, *size, value);
        if (code != SHD_SPACE)
            return code;
        if (cli_grow(buf, size, (size_t)value->len) != 0)
            return SHD_NOMEM;
    }
}

int cli_take(shd_dict *dict, const void *key, size_t key_len, char **buf,
             size_t *size, struct shd_value *value)
{
    for (;;) {
        int code = shd_take(dict, key, key_len, *buf, *size, value);
        if (code != SHD_SPACE)
            return code;
        if (cli_grow(buf, size, (size_t)value->len) != 0)
            return SHD_NOMEM;
    }
}

size_t cli_bytes(const struct cli_args *args, const char *what, char *word)
{
    size_t len = strlen(word);

    if (cli_option(args, "escaped") && !cli_unescape(word, &len))
        cli_usage(args, "%s: not in the escaped form (\\\\ \\n \\r \\t \\xNN)",
                  what);
    return len;
}
