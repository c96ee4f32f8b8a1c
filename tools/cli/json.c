/* SPDX-License-Identifier: BSD-2-Clause */
/* JSON by jansson. Documents are pure ASCII, so that no terminal is moved by
 * them, and one document (or one entry of a stream) is one line. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *base64(const unsigned char *p, size_t len)
{
    static const char digit[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc(len / 3 * 4 + 5);
    size_t n = 0;

    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < len; i += 3) {
        size_t rest = len - i;
        uint32_t v = (uint32_t)p[i] << 16;
        if (rest > 1)
            v |= (uint32_t)p[i + 1] << 8;
        if (rest > 2)
            v |= p[i + 2];
        text[n++] = digit[v >> 18];
        text[n++] = digit[v >> 12 & 63];
        text[n++] = rest > 1 ? digit[v >> 6 & 63] : '=';
        text[n++] = rest > 2 ? digit[v & 63] : '=';
    }
    json_t *json = json_pack("{s:s#}", "base64", text, n);
    free(text);
    return json;
}

json_t *cli_json_bytes(const void *bytes, size_t len)
{
    json_t *json = json_stringn(len ? bytes : "", len);

    return json ? json : base64(bytes, len);
}

json_t *cli_json_number(double number)
{
    char text[64];

    if (!isfinite(number)) {
        cli_number_format(number, text, sizeof(text));
        return json_string(text);
    }
    if (fabs(number) < 9007199254740992.0 && number == trunc(number) &&
        !(number == 0 && signbit(number)))
        return json_integer((json_int_t)number);
    return json_real(number);
}

json_t *cli_json_ttl(int64_t ttl_ms)
{
    return ttl_ms == 0 ? json_null() : cli_json_number((double)ttl_ms / 1000);
}

const char *cli_type_name(uint32_t type)
{
    static const char *const names[] = {"nil", "string", "number", "boolean",
                                        "list"};

    return type < sizeof(names) / sizeof(names[0]) ? names[type] : "unknown";
}

int cli_json_value(json_t *object, const struct shd_value *value,
                   const void *bytes)
{
    json_t *v = NULL;

    if (value->type == SHD_STRING && bytes != NULL)
        v = cli_json_bytes(bytes, (size_t)value->len);
    else if (value->type == SHD_NUMBER)
        v = cli_json_number(value->number);
    else if (value->type == SHD_BOOLEAN)
        v = json_boolean(value->number != 0);
    else
        v = json_null();
    if (v == NULL ||
        json_object_set_new(object, "type",
                            json_string(cli_type_name(value->type))) ||
        json_object_set_new(object, "value", v) ||
        json_object_set_new(object, "flags", json_integer(value->flags)) ||
        json_object_set_new(object, "ttl", cli_json_ttl(value->ttl_ms)))
        return -1;
    if (value->type != SHD_LIST)
        return 0;
    return json_object_set_new(object, "length",
                               json_integer((json_int_t)value->len));
}

/* jansson leaves DEL as it is; it can only stand in a string. */
static int write_ascii(const char *text, size_t len, void *out)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] == 0x7f)
            fputs("\\u007f", out);
        else
            putc(text[i], out);
    return ferror((FILE *)out) ? -1 : 0;
}

/* The digits its longest number needs: 0.1 is then written as 0.1. */
static int digits_of(const json_t *json)
{
    const char *key;
    json_t *item;
    size_t index;
    char text[64];
    int most = 1, n;

    if (json_is_real(json))
        return cli_number_format(json_real_value(json), text, sizeof(text));
    json_object_foreach((json_t *)(uintptr_t)json, key, item)
    {
        n = digits_of(item);
        most = n > most ? n : most;
    }
    json_array_foreach(json, index, item)
    {
        n = digits_of(item);
        most = n > most ? n : most;
    }
    return most;
}

/* Holds the last byte back. */
struct open_object {
    int last;
};

static int write_open(const char *text, size_t len, void *context)
{
    struct open_object *o = context;

    for (size_t i = 0; i < len; i++) {
        if (o->last >= 0) {
            char c = (char)o->last;
            if (write_ascii(&c, 1, stdout) != 0)
                return -1;
        }
        o->last = (unsigned char)text[i];
    }
    return 0;
}

static size_t flags_of(const struct cli_args *args, const json_t *json)
{
    if (json == NULL) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    return JSON_ENSURE_ASCII | JSON_ENCODE_ANY |
           JSON_REAL_PRECISION((size_t)digits_of(json));
}

void cli_json_write(const struct cli_args *args, json_t *json)
{
    size_t flags = flags_of(args, json);

    if (json_dump_callback(json, write_ascii, stdout, flags) != 0)
        exit(cli_finish(args, CLI_FAILED));
    json_decref(json);
}

void cli_json_write_open(const struct cli_args *args, json_t *json)
{
    struct open_object o = {-1};
    size_t flags = flags_of(args, json);

    if (json_dump_callback(json, write_open, &o, flags) != 0)
        exit(cli_finish(args, CLI_FAILED));
    json_decref(json);
}

void cli_json_print(const struct cli_args *args, json_t *json)
{
    json_t *whole = json_pack("{s:i}", "schema", CLI_SCHEMA);

    if (json_is_object(json)) {
        if (whole != NULL && json_object_update(whole, json) != 0) {
            json_decref(whole);
            whole = NULL;
        }
        json_decref(json);
    } else if (whole != NULL) {
        json_object_set_new(whole, "items", json);
    }
    cli_json_write(args, whole);
    putchar('\n');
}

static const char *list_separator;

void cli_json_list_begin(void)
{
    printf("{\"schema\": %d, \"items\": [", CLI_SCHEMA);
    list_separator = "\n";
}

void cli_json_list_next(void)
{
    fputs(list_separator, stdout);
    list_separator = ",\n";
}

void cli_json_list_end(void)
{
    puts("\n]}");
}
