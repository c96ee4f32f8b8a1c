/* SPDX-License-Identifier: BSD-2-Clause */
/* What `dump --json` has written: {"schema": 1, "items": [ENTRY, ...]}, with
 * any white space and in any order, as other programs may have left it. The
 * frame is read here and each ENTRY by jansson, so that one entry is in memory
 * at a time. */
#include "load.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The next byte that is no white space; EOF. */
static int next_byte(struct load *l)
{
    int c;

    do {
        c = getchar();
        l->bytes++;
    } while (c == ' ' || c == '\t' || c == '\n' || c == '\r');
    return c;
}

static bool expect_byte(struct load *l, int wanted)
{
    return next_byte(l) == wanted;
}

/* ---- one entry --------------------------------------------------------- */

static int digit_of(char c)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    return at == NULL ? -1 : (int)(at - digits);
}

/* In place; false: it is no base64. */
static bool from_base64(char *text, size_t *len)
{
    size_t n = 0, in = *len;
    uint32_t bits = 0;

    if (in % 4 != 0)
        return false;
    while (in > 0 && *len - in < 2 && text[in - 1] == '=')
        in--;
    if (in % 4 == 1)
        return false;
    for (size_t i = 0; i < in; i++) {
        int digit = digit_of(text[i]);

        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 0)
            text[n++] = (char)(bits >> (6 - i % 4 * 2));
    }
    *len = n;
    return true;
}

/* A string, or {"base64": "..."}. The bytes are the JSON's own. */
static bool bytes_of(const json_t *json, char **bytes, size_t *len)
{
    const json_t *coded = json_object_get(json, "base64");

    if (json_is_string(json)) {
        *bytes = (char *)(uintptr_t)json_string_value(json);
        *len = json_string_length(json);
        return true;
    }
    if (!json_is_string(coded) || json_object_size(json) != 1)
        return false;
    *bytes = (char *)(uintptr_t)json_string_value(coded);
    *len = json_string_length(coded);
    return from_base64(*bytes, len);
}

/* A number, or what JSON has no number for. */
static bool number_of(const json_t *json, double *number)
{
    const char *text = json_string_value(json);

    if (json_is_number(json)) {
        *number = json_number_value(json);
        return true;
    }
    if (text == NULL)
        return false;
    *number = strcmp(text, "inf") == 0    ? HUGE_VAL
              : strcmp(text, "-inf") == 0 ? -HUGE_VAL
                                          : (double)NAN;
    return isinf(*number) || strcmp(text, "nan") == 0 ||
           strcmp(text, "-nan") == 0;
}

static bool value_of(const json_t *value, struct load_entry *e)
{
    if (e->type == SHD_STRING)
        return bytes_of(value, &e->value, &e->len);
    if (e->type == SHD_NUMBER)
        return number_of(value, &e->number);
    if (e->type == SHD_BOOLEAN)
        e->number = json_is_true(value);
    return e->type == SHD_BOOLEAN ? json_is_boolean(value)
                                  : json_is_array(value);
}

static bool entry_of(const json_t *item, struct load_entry *e)
{
    const json_t *flags = json_object_get(item, "flags");
    const json_t *ttl = json_object_get(item, "ttl");
    const char *type = json_string_value(json_object_get(item, "type"));
    double n = 0, seconds = 0;

    memset(e, 0, sizeof(*e));
    if (type == NULL || !bytes_of(json_object_get(item, "key"), &e->key,
                                  &e->key_len))
        return false;
    e->type = load_type(type);
    if (flags != NULL && !json_is_integer(flags))
        return false;
    n = json_number_value(flags);
    if (n < INT32_MIN || n > INT32_MAX)
        return false;
    e->flags = (int32_t)n;
    if (ttl != NULL && !json_is_null(ttl) && !number_of(ttl, &seconds))
        return false;
    return load_ttl(seconds, &e->ttl_ms) && e->type != SHD_NIL &&
           value_of(json_object_get(item, "value"), e);
}

/* A number, a string, or {"number": "nan"}, which a string might be as well. */
static int element(struct load *l, const json_t *json)
{
    const json_t *number = json_object_get(json, "number");
    char *bytes = NULL;
    size_t len = 0;
    double n = 0;

    if (json_is_number(json) || number != NULL)
        return number_of(number != NULL ? number : json, &n)
                   ? load_element(l, SHD_NUMBER, NULL, 0, n)
                   : load_wrong(l, "an element of its list is none");
    return bytes_of(json, &bytes, &len)
               ? load_element(l, SHD_STRING, bytes, len, 0)
               : load_wrong(l, "an element of its list is none");
}

static int list(struct load *l, const json_t *item,
                const struct load_entry *e)
{
    const json_t *value;
    size_t index;
    int status = load_list(l, e);

    json_array_foreach(json_object_get(item, "value"), index, value)
    {
        if (status != CLI_YES)
            return status;
        status = element(l, value);
    }
    return status;
}

static int dict_of(struct load *l, const json_t *item)
{
    const json_t *json = json_object_get(item, "dict");
    char *name;
    size_t len;

    if (l->into != NULL)
        return CLI_YES;
    if (json == NULL)
        return load_wrong(l, "it does not say of which dict it is; name a "
                             "DICT");
    if (!bytes_of(json, &name, &len) || len != strlen(name))
        return load_wrong(l, "its dict has no name");
    return load_dict(l, name, 0, 0, 0);
}

static int take(struct load *l, const json_t *item)
{
    struct load_entry e;
    int status;

    if (!json_is_object(item) || !entry_of(item, &e))
        return load_wrong(l, "this is no entry");
    status = dict_of(l, item);
    if (status != CLI_YES)
        return status;
    return e.type == SHD_LIST ? list(l, item, &e) : load_entry(l, &e);
}

/* ---- the frame --------------------------------------------------------- */

/* One value from standard input, of which not a byte more is read. NULL: there
 * is none. */
static json_t *value(struct load *l, bool *cut_off)
{
    json_error_t error;
    json_t *json = json_loadf(stdin,
                              JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL |
                                  JSON_DECODE_ANY,
                              &error);

    if (error.position > 0 && json != NULL)
        l->bytes += (uint64_t)error.position;
    *cut_off = json == NULL && feof(stdin);
    return json;
}

static int broken(struct load *l, bool cut_off)
{
    return load_wrong(l, cut_off || feof(stdin)
                             ? "it is cut off"
                             : "this is no JSON that dump writes");
}

static int items(struct load *l)
{
    int c = expect_byte(l, '[') ? next_byte(l) : EOF;

    if (c == ']')
        return CLI_YES;
    for (;;) {
        bool cut_off;
        json_t *item;
        int status;

        l->number++;
        if (c != '{')
            return broken(l, false);
        ungetc(c, stdin);
        item = value(l, &cut_off);
        if (item == NULL)
            return broken(l, cut_off);
        status = take(l, item);
        json_decref(item);
        load_show(l);
        if (status != CLI_YES)
            return status;
        c = next_byte(l);
        if (c == ']')
            return CLI_YES;
        if (c != ',')
            return broken(l, false);
        c = next_byte(l);
    }
}

/* A number has no end of its own, so jansson would read on. */
static int schema(struct load *l)
{
    long n;

    if (scanf("%ld", &n) != 1)
        return broken(l, false);
    return n == CLI_SCHEMA ? CLI_YES
                           : load_wrong(l, "a dump of another version");
}

static int member(struct load *l, bool *has_items)
{
    char name[16] = "";
    int status;

    if (scanf("%15[^\"]", name) != 1 || getchar() != '"' ||
        !expect_byte(l, ':'))
        return broken(l, false);
    if (strcmp(name, "schema") == 0)
        return schema(l);
    if (strcmp(name, "items") != 0)
        return load_wrong(l, "this is no dump; `shdict dump --json` writes "
                             "one");
    status = items(l);
    *has_items = true;
    return status;
}

int load_json(struct load *l)
{
    bool has_items = false;
    int status = CLI_YES, c;

    l->unit = "item";
    if (!expect_byte(l, '{'))
        return broken(l, false);
    do {
        c = next_byte(l);
        status = c == '"' ? member(l, &has_items) : broken(l, false);
        if (status != CLI_YES)
            return status;
        c = next_byte(l);
    } while (c == ',');
    if (c != '}')
        return broken(l, false);
    if (!has_items)
        return load_wrong(l, "this is no dump; `shdict dump --json` writes "
                             "one");
    return next_byte(l) == EOF ? CLI_YES
                               : load_wrong(l, "something after its end");
}
