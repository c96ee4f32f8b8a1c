/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict load: stores what dump has printed. A line at a time, each entry by an
 * operation of its own; what is wrong is named by its line. */
#include "cli.h"
#include "dump.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_SIZE 64

struct load {
    struct cli_args *args;
    shd_segment *segment;
    shd_dict *dict;       /* that lines go into; NULL: none was named yet */
    const char *into;     /* DICT, if given */
    uint32_t op;
    bool create, ended, add;
    char *line;           /* as read; fields are cut in place */
    size_t line_size;
    uint64_t number, entries, elements, expired, kept, bytes;
    char *list_key;       /* of the list whose elements follow */
    size_t list_len, list_size;
    bool in_list, skip_list;
    int64_t list_ttl_ms;
};

static int wrong(const struct load *l, const char *what)
{
    cli_message(l->args, "line %llu: %s; nothing from here on was loaded",
                (unsigned long long)l->number, what);
    return CLI_USAGE;
}

static int refused(const struct load *l, const char *what, int code)
{
    char text[128];

    snprintf(text, sizeof(text), "line %llu: %.80s",
             (unsigned long long)l->number, what);
    return cli_answer(l->args, text, code);
}

/* The next field, which ends at a tab; NULL: there is none. */
static char *field(char **rest)
{
    char *f = *rest;

    if (f == NULL)
        return NULL;
    char *tab = strchr(f, '\t');
    if (tab)
        *tab++ = '\0';
    *rest = tab;
    return f;
}

/* ---- lines that begin with # -------------------------------------------- */

static int make_dict(struct load *l, const char *name, uint64_t capacity,
                     uint64_t max, uint32_t shards)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = capacity,
                                 .capacity_max_bytes = max,
                                 .shards = shards,
                                 .flags = SHD_DICT_ANY_CAPACITY};
    int code = shd_dict_open(l->segment, name, l->create ? &o : NULL,
                             &l->dict);

    if (code == SHD_OK)
        return CLI_YES;
    l->dict = NULL;
    if (code == SHD_NOTFOUND) {
        cli_message(l->args,
                    "no dict \"%s\" in segment \"%s\"; --create makes it as "
                    "it was",
                    name, l->args->words[0]);
        return CLI_ATTACH;
    }
    return refused(l, name, code);
}

static int dict_line(struct load *l, char *rest)
{
    char *name = field(&rest), *capacity = field(&rest), *max = field(&rest);
    char *shards = field(&rest);
    uint64_t bytes, most, n;
    size_t len;

    if (l->into)
        return CLI_YES;
    if (shards == NULL || !cli_unescape(name, &len) || len >= NAME_SIZE ||
        len != strlen(name) || !cli_size_read(capacity, &bytes) ||
        !cli_size_read(max, &most) || !cli_size_read(shards, &n) || n > 256)
        return wrong(l, "this is no #dict line");
    if (l->dict)
        shd_dict_close(l->dict);
    return make_dict(l, name, bytes, most, (uint32_t)n);
}

static int end_line(struct load *l, char *rest)
{
    char *text = field(&rest);
    uint64_t n;

    if (text == NULL || !cli_size_read(text, &n))
        return wrong(l, "this is no #end line");
    if (n != l->entries + l->expired + l->kept)
        return wrong(l, "lines are missing: #end counts more entries, or "
                        "fewer");
    l->ended = true;
    return CLI_YES;
}

static int mark_line(struct load *l, char *line)
{
    char *rest = line, *word = field(&rest);

    l->in_list = false;
    if (strcmp(word, "#dict") == 0)
        return dict_line(l, rest);
    return strcmp(word, "#end") == 0 ? end_line(l, rest) : CLI_YES;
}

/* ---- entries ------------------------------------------------------------ */

struct entry {
    char *key, *value;
    size_t key_len, len;
    uint32_t type;
    int32_t flags;
    int64_t ttl_ms;
    double number;
};

static bool read_double(const char *text, double *number)
{
    char *end;

    *number = strtod(text, &end);
    return end != text && *end == '\0';
}

static uint32_t type_of(const char *name)
{
    for (uint32_t type = SHD_STRING; type <= SHD_LIST; type++)
        if (strcmp(name, cli_type_name(type)) == 0)
            return type;
    return SHD_NIL;
}

static bool read_value(uint32_t type, char *text, size_t *len, double *number)
{
    *len = 0;
    *number = 0;
    if (type == SHD_STRING)
        return cli_unescape(text, len);
    if (type == SHD_NUMBER || type == SHD_LIST)
        return read_double(text, number);
    *number = strcmp(text, "true") == 0;
    return *number != 0 || strcmp(text, "false") == 0;
}

static bool read_entry(char *line, struct entry *e)
{
    char *rest = line, *key = field(&rest), *type = field(&rest);
    char *flags = field(&rest), *ttl = field(&rest), *age = field(&rest);
    char *end;
    double seconds = 0;

    e->key = key;
    e->value = field(&rest);
    if (age == NULL || e->value == NULL || rest != NULL ||
        !cli_unescape(key, &e->key_len))
        return false;
    e->type = type_of(type);
    errno = 0;
    long long n = strtoll(flags, &end, 10);
    if (errno || end == flags || *end || n < INT32_MIN || n > INT32_MAX)
        return false;
    e->flags = (int32_t)n;
    if (strcmp(ttl, "-") != 0 && !read_double(ttl, &seconds))
        return false;
    if (!(seconds >= -1e13 && seconds <= 1e13))
        return false;
    e->ttl_ms = (int64_t)(seconds * 1000 + (seconds < 0 ? -0.5 : 0.5));
    return e->type != SHD_NIL &&
           read_value(e->type, e->value, &e->len, &e->number);
}

/* Its elements follow. Those of a dead list, or one to be left alone, are
 * passed over. */
static int list_begin(struct load *l, const struct entry *e)
{
    struct shd_entry_info info = {.struct_size = sizeof(info)};

    l->in_list = true;
    l->skip_list = e->ttl_ms < 0;
    if (l->skip_list) {
        l->expired++;
        return CLI_YES;
    }
    if (l->add && shd_entry_info(l->dict, e->key, e->key_len, &info) == SHD_OK &&
        info.ttl_ms >= 0) {
        l->skip_list = true;
        l->kept++;
        return CLI_YES;
    }
    if (cli_grow(&l->list_key, &l->list_size, e->key_len + 1) != 0) {
        cli_message(l->args, "out of memory");
        return CLI_FAILED;
    }
    memcpy(l->list_key, e->key, e->key_len);
    l->list_len = e->key_len;
    l->list_ttl_ms = e->ttl_ms;
    l->entries++;
    int code = shd_delete(l->dict, e->key, e->key_len);
    return code == SHD_OK || code == SHD_NOTFOUND ? CLI_YES
                                                  : refused(l, e->key, code);
}

static int element_line(struct load *l, char *line)
{
    char *rest = line + 1, *type = field(&rest), *value = field(&rest);
    uint32_t t = type_of(type);
    double number;
    size_t len;

    if (!l->in_list)
        return wrong(l, "an element, and no list before it");
    if (value == NULL || rest != NULL || (t != SHD_STRING && t != SHD_NUMBER) ||
        !read_value(t, value, &len, &number))
        return wrong(l, "this is no element of a list");
    if (l->skip_list)
        return CLI_YES;
    int code =
        shd_push_expire(l->dict, 0, l->list_key, l->list_len, t, value, len,
                        number, l->list_ttl_ms, NULL);
    if (code != SHD_OK)
        return refused(l, "an element", code);
    l->elements++;
    return CLI_YES;
}

static int entry_line(struct load *l, char *line)
{
    struct entry e;

    l->in_list = false;
    if (!read_entry(line, &e))
        return wrong(l, "this is no entry");
    if (l->dict == NULL)
        return wrong(l, "an entry, and no #dict line before it; name a DICT");
    if (e.type == SHD_LIST)
        return list_begin(l, &e);
    if (e.ttl_ms < 0) {
        l->expired++;
        return CLI_YES;
    }
    int code = shd_store(l->dict, l->op, e.key, e.key_len, e.type, e.value,
                         e.len, e.number, e.ttl_ms, e.flags, NULL);
    if (code == SHD_EXISTS && l->add) {
        l->kept++;
        return CLI_YES;
    }
    if (code != SHD_OK)
        return refused(l, e.key, code);
    l->entries++;
    return CLI_YES;
}

/* ---- the whole ---------------------------------------------------------- */

static int first_line(const struct load *l)
{
    char *end;

    if (strncmp(l->line, DUMP_MAGIC, strlen(DUMP_MAGIC)) != 0)
        return wrong(l, "this is no dump; `shdict dump` writes one");
    long version = strtol(l->line + strlen(DUMP_MAGIC), &end, 10);
    if (*end != '\0' || version != DUMP_VERSION)
        return wrong(l, "a dump of another version");
    return CLI_YES;
}

static int load_lines(struct load *l)
{
    struct cli_progress progress = {.what = "loading"};
    struct stat st;
    ssize_t n;
    int status = CLI_YES;

    if (fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode))
        progress.total = (uint64_t)st.st_size;
    while (status == CLI_YES &&
           (n = getline(&l->line, &l->line_size, stdin)) > 0) {
        l->number++;
        l->bytes += (uint64_t)n;
        if (l->line[n - 1] != '\n') {
            status = wrong(l, "it is cut off");
            break;
        }
        l->line[n - 1] = '\0';
        if (strlen(l->line) != (size_t)n - 1)
            status = wrong(l, "a NUL byte");
        else if (l->number == 1)
            status = first_line(l);
        else if (l->ended)
            status = wrong(l, "something after #end");
        else if (l->line[0] == '#')
            status = mark_line(l, l->line);
        else if (l->line[0] == '\t')
            status = element_line(l, l->line);
        else
            status = entry_line(l, l->line);
        if (progress.total > 0 && l->number % 64 == 0)
            cli_progress_step(&progress, l->bytes / 64 * 64);
    }
    cli_progress_end(&progress);
    if (status == CLI_YES && ferror(stdin)) {
        cli_message(l->args, "standard input: %m");
        return CLI_FAILED;
    }
    if (status == CLI_YES && !l->ended) {
        l->number++;
        return wrong(l, "the dump is cut off: its #end is missing");
    }
    return status;
}

static void print_sum(const struct load *l)
{
    if (l->args->json) {
        cli_json_print(l->args,
                       json_pack("{s:I, s:I, s:I, s:I}", "loaded",
                                 (json_int_t)l->entries, "elements",
                                 (json_int_t)l->elements, "expired",
                                 (json_int_t)l->expired, "kept",
                                 (json_int_t)l->kept));
        return;
    }
    printf("%llu entries loaded", (unsigned long long)l->entries);
    if (l->expired > 0)
        printf(", %llu had expired", (unsigned long long)l->expired);
    if (l->kept > 0)
        printf(", %llu were there already", (unsigned long long)l->kept);
    putchar('\n');
}

static int run(struct cli_args *args)
{
    struct load l = {.args = args,
                     .into = args->words[1],
                     .create = cli_option(args, "create"),
                     .add = cli_option(args, "add")};
    int status;

    l.op = (l.add ? SHD_ADD : SHD_SET) |
           (cli_option(args, "safe") ? (uint32_t)SHD_SAFE : 0);
    if (l.into && l.create)
        cli_usage(args, "--create makes the dicts of the dump: give no DICT");
    status = l.into ? cli_open(args, args->words[0], l.into, CLI_WRITE,
                               &l.segment, &l.dict)
                    : cli_attach(args, args->words[0], CLI_WRITE, &l.segment);
    if (status != CLI_YES)
        return status;
    status = load_lines(&l);
    if (status == CLI_YES || l.entries > 0)
        print_sum(&l);
    if (l.dict)
        shd_dict_close(l.dict);
    shd_segment_close(l.segment);
    free(l.line);
    free(l.list_key);
    return status;
}

static const struct cli_option options[] = {
    {"create", 'c', NULL, "Make the dicts that are not there, as they were"},
    {"add", 'a', NULL, "Leave keys alone that are there"},
    {"safe", 's', NULL, "Evict nothing that is alive"},
    {NULL}};

const struct cli_verb verb_load = {
    .name = "load",
    .words = "SEGMENT [DICT]",
    .summary = "Store what dump has printed, from standard input",
    .options = options,
    .words_min = 1,
    .words_max = 2,
    .run = run};
