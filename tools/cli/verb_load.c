/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict load: stores what dump has printed. A line at a time (load_json.c: an
 * entry), each entry by an operation of its own; what is wrong is named by its
 * line. */
#include "dump.h"
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int load_wrong(const struct load *l, const char *what)
{
    cli_message(l->args, "%s %llu: %s; nothing from here on was loaded",
                l->unit, (unsigned long long)l->number, what);
    return CLI_USAGE;
}

static int refused(const struct load *l, const char *what, int code)
{
    char text[128];

    snprintf(text, sizeof(text), "%s %llu: %.80s", l->unit,
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

int load_dict(struct load *l, const char *name, uint64_t capacity,
              uint64_t max, uint32_t shards)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = capacity,
                                 .capacity_max_bytes = max,
                                 .shards = shards,
                                 .flags = SHD_DICT_ANY_CAPACITY};
    /* The same again, for each entry of a JSON dump: a look at the name. */
    if (l->dict && strcmp(l->dict_name, name) == 0)
        return CLI_YES;
    if (l->dict)
        shd_dict_close(l->dict);
    int code = shd_dict_open(l->segment, name,
                             l->create && capacity > 0 ? &o : NULL, &l->dict);

    if (code == SHD_OK) {
        snprintf(l->dict_name, sizeof(l->dict_name), "%s", name);
        return CLI_YES;
    }
    l->dict = NULL;
    if (code == SHD_NOTFOUND) {
        cli_message(l->args,
                    capacity > 0
                        ? "no dict \"%s\" in segment \"%s\"; --create makes "
                          "it as it was"
                        : "no dict \"%s\" in segment \"%s\", and JSON does "
                          "not say how large it was: make it first, `shdict "
                          "create --open --dict`",
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
    if (shards == NULL || !cli_unescape(name, &len) || len >= LOAD_NAME_SIZE ||
        len != strlen(name) || !cli_size_read(capacity, &bytes) ||
        !cli_size_read(max, &most) || !cli_size_read(shards, &n) || n > 256)
        return load_wrong(l, "this is no #dict line");
    return load_dict(l, name, bytes, most, (uint32_t)n);
}

static int end_line(struct load *l, char *rest)
{
    char *text = field(&rest);
    uint64_t n;

    if (text == NULL || !cli_size_read(text, &n))
        return load_wrong(l, "this is no #end line");
    if (n != l->entries + l->expired + l->kept)
        return load_wrong(l, "lines are missing: #end counts more entries, or "
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

static bool read_double(const char *text, double *number)
{
    char *end;

    *number = strtod(text, &end);
    return end != text && *end == '\0';
}

uint32_t load_type(const char *name)
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

bool load_ttl(double seconds, int64_t *ttl_ms)
{
    if (!(seconds >= -1e13 && seconds <= 1e13))
        return false;
    *ttl_ms = (int64_t)(seconds * 1000 + (seconds < 0 ? -0.5 : 0.5));
    return true;
}

static bool read_entry(char *line, struct load_entry *e)
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
    e->type = load_type(type);
    errno = 0;
    long long n = strtoll(flags, &end, 10);
    if (errno || end == flags || *end || n < INT32_MIN || n > INT32_MAX)
        return false;
    e->flags = (int32_t)n;
    if (strcmp(ttl, "-") != 0 && !read_double(ttl, &seconds))
        return false;
    if (!load_ttl(seconds, &e->ttl_ms))
        return false;
    return e->type != SHD_NIL &&
           read_value(e->type, e->value, &e->len, &e->number);
}

/* Its elements follow. Those of a dead list, or one to be left alone, are
 * passed over. */
int load_list(struct load *l, const struct load_entry *e)
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

int load_element(struct load *l, uint32_t type, const char *value, size_t len,
                 double number)
{
    if (l->skip_list)
        return CLI_YES;
    int code =
        shd_push_expire(l->dict, 0, l->list_key, l->list_len, type, value, len,
                        number, l->list_ttl_ms, NULL);
    if (code != SHD_OK)
        return refused(l, "an element", code);
    l->elements++;
    return CLI_YES;
}

int load_entry(struct load *l, const struct load_entry *e)
{
    if (e->ttl_ms < 0) {
        l->expired++;
        return CLI_YES;
    }
    int code = shd_store(l->dict, l->op, e->key, e->key_len, e->type, e->value,
                         e->len, e->number, e->ttl_ms, e->flags, NULL);
    if (code == SHD_EXISTS && l->add) {
        l->kept++;
        return CLI_YES;
    }
    if (code != SHD_OK)
        return refused(l, e->key, code);
    l->entries++;
    return CLI_YES;
}

void load_show(struct load *l)
{
    if (l->number % 64 == 0)
        cli_progress_step(&l->progress, l->bytes / 64 * 64);
}

/* ---- lines with entries ------------------------------------------------- */

static int element_line(struct load *l, char *line)
{
    char *rest = line + 1, *type = field(&rest), *value = field(&rest);
    uint32_t t = load_type(type);
    double number;
    size_t len;

    if (!l->in_list)
        return load_wrong(l, "an element, and no list before it");
    if (value == NULL || rest != NULL || (t != SHD_STRING && t != SHD_NUMBER) ||
        !read_value(t, value, &len, &number))
        return load_wrong(l, "this is no element of a list");
    return load_element(l, t, value, len, number);
}

static int entry_line(struct load *l, char *line)
{
    struct load_entry e;

    l->in_list = false;
    if (!read_entry(line, &e))
        return load_wrong(l, "this is no entry");
    if (l->dict == NULL)
        return load_wrong(l, "an entry, and no #dict line before it; name a "
                             "DICT");
    return e.type == SHD_LIST ? load_list(l, &e) : load_entry(l, &e);
}

/* ---- the whole ---------------------------------------------------------- */

static int first_line(const struct load *l)
{
    char *end;

    if (strncmp(l->line, DUMP_MAGIC, strlen(DUMP_MAGIC)) != 0)
        return load_wrong(l, "this is no dump; `shdict dump` writes one");
    long version = strtol(l->line + strlen(DUMP_MAGIC), &end, 10);
    if (*end != '\0' || version != DUMP_VERSION)
        return load_wrong(l, "a dump of another version");
    return CLI_YES;
}

static int load_line(struct load *l, size_t n)
{
    if (l->line[n - 1] != '\n')
        return load_wrong(l, "it is cut off");
    l->line[n - 1] = '\0';
    if (strlen(l->line) != n - 1)
        return load_wrong(l, "a NUL byte");
    if (l->number == 1)
        return first_line(l);
    if (l->ended)
        return load_wrong(l, "something after #end");
    if (l->line[0] == '#')
        return mark_line(l, l->line);
    return l->line[0] == '\t' ? element_line(l, l->line)
                              : entry_line(l, l->line);
}

static int load_text(struct load *l)
{
    int status = CLI_YES;
    ssize_t n;

    while (status == CLI_YES &&
           (n = getline(&l->line, &l->line_size, stdin)) > 0) {
        l->number++;
        l->bytes += (uint64_t)n;
        status = load_line(l, (size_t)n);
        load_show(l);
    }
    if (status == CLI_YES && !l->ended && !ferror(stdin)) {
        l->number++;
        return load_wrong(l, "the dump is cut off: its #end is missing");
    }
    return status;
}

/* Either form: JSON begins with a brace. */
static int load_any(struct load *l)
{
    struct stat st;
    int status, c = getchar();

    if (c != EOF)
        ungetc(c, stdin);
    if (fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode))
        l->progress.total = (uint64_t)st.st_size;
    l->progress.what = "loading";
    l->progress.alone = true;
    status = c == '{' ? load_json(l) : load_text(l);
    cli_progress_end(&l->progress);
    if (ferror(stdin)) {
        cli_message(l->args, "standard input: %m");
        return CLI_FAILED;
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
                     .unit = "line",
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
    status = load_any(&l);
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
    .summary = "Store what dump has printed, text or JSON, from standard input",
    .options = options,
    .words_min = 1,
    .words_max = 2,
    .run = run};
