/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict set, append, touch, delete, incr: changes of one key. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct target {
    shd_segment *segment;
    shd_dict *dict;
    char *key;
    size_t len;
};

static int target_open(struct cli_args *args, struct target *t)
{
    t->key = args->words[2];
    t->len = cli_bytes(args, "KEY", t->key);
    return cli_open(args, args->words[0], args->words[1], CLI_WRITE,
                    &t->segment, &t->dict);
}

static void target_close(struct target *t)
{
    shd_dict_close(t->dict);
    shd_segment_close(t->segment);
}

/* ---- set ---------------------------------------------------------------- */

struct item {
    uint32_t type, op;
    char *bytes; /* SHD_STRING; malloc'ed if read is true */
    size_t len;
    bool read;
    double number;
    int64_t ttl_ms;
    int32_t flags;
    bool cas; /* only over this value, of the same type: */
    char *old;
    size_t old_len;
    double old_number;
};

static uint32_t store_op(const struct cli_args *args)
{
    bool add = cli_option(args, "add"), replace = cli_option(args, "replace");

    if (add && replace)
        cli_usage(args, "--add and --replace exclude each other");
    return (add       ? SHD_ADD
            : replace ? SHD_REPLACE
                      : SHD_SET) |
           (cli_option(args, "safe") ? SHD_SAFE : 0);
}

static int32_t store_flags(const struct cli_args *args)
{
    const char *text = cli_option(args, "flags");
    char *end;

    if (text == NULL)
        return 0;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno || end == text || *end || n < INT32_MIN || n > INT32_MAX)
        cli_usage(args, "--flags: \"%s\" is no 32-bit integer", text);
    return (int32_t)n;
}

static double boolean(const struct cli_args *args, const char *word)
{
    if (strcmp(word, "true") == 0 || strcmp(word, "1") == 0)
        return 1;
    if (strcmp(word, "false") == 0 || strcmp(word, "0") == 0)
        return 0;
    cli_usage(args, "VALUE: \"%s\" is neither true nor false", word);
}

/* All of standard input, in malloc'ed memory. */
static int read_input(struct item *item)
{
    size_t size = 65536;

    item->read = true;
    item->bytes = malloc(size);
    for (;;) {
        if (item->bytes == NULL) {
            errno = ENOMEM;
            return -1;
        }
        ssize_t n =
            read(STDIN_FILENO, item->bytes + item->len, size - item->len);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -1;
        item->len += n > 0 ? (size_t)n : 0;
        if (item->len < size)
            continue;
        char *bigger = realloc(item->bytes, size *= 2);
        if (bigger == NULL)
            free(item->bytes);
        item->bytes = bigger;
    }
}

/* --old: what must be there. */
static void old_parse(const struct cli_args *args, struct item *item)
{
    static char old[131072];
    const char *text = cli_option(args, "old");

    item->cas = text != NULL;
    if (text == NULL)
        return;
    if (item->op != SHD_SET)
        cli_usage(args, "--old excludes --add, --replace and --safe");
    if (item->type == SHD_NUMBER) {
        item->old_number = cli_number(args, "--old", text);
    } else if (item->type == SHD_BOOLEAN) {
        item->old_number = boolean(args, text);
    } else {
        /* A copy, for it may be unescaped in place. */
        if (strlen(text) >= sizeof(old))
            cli_usage(args, "--old: longer than 131071 bytes");
        strcpy(old, text);
        item->old = old;
        item->old_len = cli_bytes(args, "--old", old);
    }
}

static void item_parse(struct cli_args *args, struct item *item)
{
    bool number = cli_option(args, "number");
    bool truth = cli_option(args, "boolean");
    const char *ttl = cli_option(args, "ttl");
    char *word = args->words[3];

    memset(item, 0, sizeof(*item));
    item->type = number ? SHD_NUMBER : truth ? SHD_BOOLEAN : SHD_STRING;
    item->op = store_op(args);
    item->flags = store_flags(args);
    item->ttl_ms = ttl ? cli_seconds_ms(args, "--ttl", ttl) : 0;
    if (number && truth)
        cli_usage(args, "--number and --boolean exclude each other");
    old_parse(args, item);
    if (cli_option(args, "stdin")) {
        if (word || number || truth)
            cli_usage(args, "--stdin takes no VALUE, and gives a string");
        return;
    }
    if (word == NULL)
        cli_usage(args, "%s wanted, 3 words given", args->verb->words);
    if (number)
        item->number = cli_number(args, "VALUE", word);
    else if (truth)
        item->number = boolean(args, word);
    else {
        item->bytes = word;
        item->len = cli_bytes(args, "VALUE", word);
    }
}

static int set_run(struct cli_args *args)
{
    struct target t;
    struct item item;
    uint32_t forcible = 0;

    item_parse(args, &item);
    if (cli_option(args, "stdin") && read_input(&item) != 0) {
        cli_message(args, "standard input: %m");
        return CLI_FAILED;
    }
    int status = target_open(args, &t);
    if (status != CLI_YES)
        goto out;
    int code = item.cas ? shd_cas(t.dict, t.key, t.len, item.type, item.old,
                                  item.old_len, item.old_number, item.type,
                                  item.bytes, item.len, item.number,
                                  item.ttl_ms, item.flags, &forcible)
                        : shd_store(t.dict, item.op, t.key, t.len, item.type,
                                    item.bytes, item.len, item.number,
                                    item.ttl_ms, item.flags, &forcible);
    status = code == SHD_OK ? CLI_YES : cli_answer(args, t.key, code);
    if (args->json)
        cli_json_print(args, json_pack("{s:b, s:b}", "stored", code == SHD_OK,
                                       "forcible", forcible != 0));
    target_close(&t);
out:
    if (item.read)
        free(item.bytes);
    return status;
}

static const struct cli_option set_options[] = {
    {"ttl", 't', "SECONDS", "Time to live; 0, the default, is for ever"},
    {"flags", 'f', "N", "The user's flags, a 32-bit integer"},
    {"number", 'n', NULL, "VALUE is a number"},
    {"boolean", 'b', NULL, "VALUE is true or false"},
    {"stdin", 0, NULL, "Read the value from standard input"},
    {"safe", 's', NULL, "Evict nothing that is alive"},
    {"add", 'a', NULL, "Only if the key is absent or expired"},
    {"replace", 0, NULL, "Only if the key is there"},
    {"old", 'o', "OLD", "Only if it holds OLD, of the same type"},
    {"escaped", 'e', NULL, "KEY, VALUE, OLD are in the form dump prints"},
    {NULL}};

const struct cli_verb verb_set = {.name = "set",
                                  .words = "SEGMENT DICT KEY VALUE",
                                  .summary = "Store a value under a key",
                                  .options = set_options,
                                  .words_min = 3,
                                  .words_max = 4,
                                  .run = set_run};

/* ---- append ------------------------------------------------------------- */

static int append_run(struct cli_args *args)
{
    char *value = args->words[3];
    size_t len = cli_bytes(args, "VALUE", value);
    const char *ttl = cli_option(args, "init-ttl");
    int64_t ttl_ms = ttl ? cli_seconds_ms(args, "--init-ttl", ttl) : 0;
    uint64_t length = 0;
    struct target t;

    if (ttl && !cli_option(args, "create"))
        cli_usage(args, "--init-ttl wants --create");
    int status = target_open(args, &t);
    if (status != CLI_YES)
        return status;
    int code = shd_append(
        t.dict, cli_option(args, "before") != NULL, t.key, t.len, value, len,
        cli_option(args, "create") ? "" : NULL, 0, ttl_ms, &length, NULL);
    status = code == SHD_OK ? CLI_YES : cli_answer(args, t.key, code);
    if (code == SHD_OK && args->json)
        cli_json_print(args, json_pack("{s:I}", "length", (json_int_t)length));
    else if (code == SHD_OK)
        printf("%llu\n", (unsigned long long)length);
    target_close(&t);
    return status;
}

static const struct cli_option append_options[] = {
    {"before", 'b', NULL, "Put it before the value, not after it"},
    {"create", 'c', NULL, "If the key is absent, store VALUE"},
    {"init-ttl", 0, "SECONDS", "Time to live of what --create stores"},
    {"escaped", 'e', NULL, "KEY and VALUE are in the form dump prints"},
    {NULL}};

const struct cli_verb verb_append = {.name = "append",
                                     .words = "SEGMENT DICT KEY VALUE",
                                     .summary = "Add to a string, and print "
                                                "its length",
                                     .options = append_options,
                                     .words_min = 4,
                                     .words_max = 4,
                                     .run = append_run};

/* ---- touch -------------------------------------------------------------- */

static int touch_run(struct cli_args *args)
{
    const char *ttl = cli_option(args, "ttl");
    int64_t ttl_ms = ttl ? cli_seconds_ms(args, "--ttl", ttl) : SHD_KEEP_TTL;
    struct target t;
    int status = target_open(args, &t);

    if (status != CLI_YES)
        return status;
    int code = shd_touch(t.dict, t.key, t.len, ttl_ms);
    status = code == SHD_OK ? CLI_YES : cli_answer(args, t.key, code);
    if (args->json)
        cli_json_print(args, json_pack("{s:b}", "touched", code == SHD_OK));
    target_close(&t);
    return status;
}

static const struct cli_option touch_options[] = {
    {"ttl", 't', "SECONDS", "New time to live; 0 is for ever"},
    {"escaped", 'e', NULL, "KEY is in the form dump and keys print"},
    {NULL}};

const struct cli_verb verb_touch = {.name = "touch",
                                    .words = "SEGMENT DICT KEY",
                                    .summary = "Make a key the last to be "
                                               "evicted",
                                    .options = touch_options,
                                    .words_min = 3,
                                    .words_max = 3,
                                    .run = touch_run};

/* ---- delete ------------------------------------------------------------- */

static int delete_run(struct cli_args *args)
{
    struct target t;
    int status = target_open(args, &t);

    if (status != CLI_YES)
        return status;
    int code = shd_delete(t.dict, t.key, t.len);
    status = code == SHD_OK ? CLI_YES : cli_answer(args, t.key, code);
    if (args->json)
        cli_json_print(args, json_pack("{s:b}", "deleted", code == SHD_OK));
    target_close(&t);
    return status;
}

static const struct cli_option delete_options[] = {
    {"escaped", 'e', NULL, "KEY is in the form dump and keys print"}, {NULL}};

const struct cli_verb verb_delete = {.name = "delete",
                                     .words = "SEGMENT DICT KEY",
                                     .summary = "Remove a key",
                                     .options = delete_options,
                                     .words_min = 3,
                                     .words_max = 3,
                                     .run = delete_run};

/* ---- incr --------------------------------------------------------------- */

static int incr_run(struct cli_args *args)
{
    const char *init = cli_option(args, "init");
    const char *ttl = cli_option(args, "init-ttl");
    double by = cli_number(args, "BY", args->words[3]);
    double first = init ? cli_number(args, "--init", init) : 0;
    int64_t ttl_ms = ttl ? cli_seconds_ms(args, "--init-ttl", ttl) : 0;
    double result;
    char text[64];
    struct target t;

    if (ttl && !init)
        cli_usage(args, "--init-ttl wants --init");
    int status = target_open(args, &t);
    if (status != CLI_YES)
        return status;
    int code = shd_incr(t.dict, t.key, t.len, by, init != NULL, first, ttl_ms,
                        &result, NULL);
    status = code == SHD_OK ? CLI_YES : cli_answer(args, t.key, code);
    if (code == SHD_OK && args->json) {
        cli_json_print(args,
                       json_pack("{s:o}", "value", cli_json_number(result)));
    } else if (code == SHD_OK) {
        cli_number_format(result, text, sizeof(text));
        puts(text);
    }
    target_close(&t);
    return status;
}

static const struct cli_option incr_options[] = {
    {"init", 'i', "N", "If the key is absent, store N + BY"},
    {"init-ttl", 0, "SECONDS", "Time to live of what --init stores"},
    {"escaped", 'e', NULL, "KEY is in the form dump and keys print"},
    {NULL}};

const struct cli_verb verb_incr = {.name = "incr",
                                   .words = "SEGMENT DICT KEY BY",
                                   .summary =
                                       "Add to a number, and print the sum",
                                   .options = incr_options,
                                   .words_min = 4,
                                   .words_max = 4,
                                   .run = incr_run};
