/* SPDX-License-Identifier: BSD-2-Clause */
/* cli.h - what the verbs of the `shdict` command share.
 *
 * OWNS   the command line, stdout and stderr of this process; nothing in a
 *        segment: all of that goes through shdict.h.
 * HOLDS  data on stdout, messages on stderr, one line each; no byte that
 *        came from a segment or the command line reaches a terminal
 *        unescaped, unless --raw asks for it.
 * CRASH  a verb killed anywhere is a dead worker like any other.
 */
#ifndef SHDICT_CLI_H
#define SHDICT_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>
#include <shdict.h>

/* Exit codes; the manual pages promise them. */
enum {
    CLI_YES = 0,     /* done, or: yes */
    CLI_NO = 1,      /* absent, exists already, wrong type, no room */
    CLI_USAGE = 2,   /* the command line is wrong */
    CLI_ATTACH = 3,  /* the segment or the dict cannot be opened */
    CLI_CORRUPT = 4, /* the segment contradicts itself */
    CLI_FAILED = 5   /* busy, a system call failed, stdout is closed */
};

/* ---- verbs and their command lines (args.c) ---------------------------- */

struct cli_option {
    const char *name; /* long; NULL ends a table */
    char letter;      /* short, or 0 */
    const char *arg;  /* name of its argument, NULL: it has none */
    const char *help; /* one sentence, no line break */
};

struct cli_args;

struct cli_verb {
    const char *name;
    const char *words; /* "SEGMENT [DICT]" */
    const char *summary;
    const struct cli_option *options; /* --json and --help come by itself */
    unsigned words_min;
    unsigned words_max;
    bool command; /* the words are a command: options end at the first */
    int (*run)(struct cli_args *args);
};

#define CLI_GIVEN_MAX 128

struct cli_args {
    const struct cli_verb *verb;
    char **words; /* NULL after the last */
    unsigned count;
    bool json;
    unsigned given_count;
    struct {
        const struct cli_option *option;
        const char *value;
    } given[CLI_GIVEN_MAX];
};

extern const struct cli_verb verb_ls, verb_stat, verb_workers, verb_get,
    verb_set, verb_append, verb_touch, verb_pop, verb_delete, verb_incr,
    verb_keys, verb_dump, verb_load, verb_check, verb_create, verb_resize, verb_rm,
    verb_reap, verb_sidecar, verb_supervise, verb_topics, verb_publish,
    verb_follow, verb_locks, verb_export, verb_flush, verb_completion,
    verb_leases, verb_top, verb_map, verb_layout, verb_watch, verb_queues, verb_push,
    verb_peek, verb_drain,
    verb_mailboxes, verb_send, verb_request, verb_requeue, verb_save,
    verb_restore;

/* All of them, in the order of the help; NULL after the last. */
const struct cli_verb *const *cli_verbs(void);

/* Reads argv[1..] (argv[0] is the verb). Prints the help and exits 0, or a
 * message and exits 2, where that is due. */
void cli_args_parse(struct cli_args *args, const struct cli_verb *verb,
                    int argc, char **argv);

/* The value of an option as given last; NULL if not given. "" for one that
 * takes no argument. */
const char *cli_option(const struct cli_args *args, const char *name);

/* The values of one given many times: the index-th, or NULL. */
const char *cli_option_at(const struct cli_args *args, const char *name,
                          unsigned index);

/* Says what is wrong with the command line and exits 2. */
void cli_usage(const struct cli_args *args, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));

/* ---- numbers (number.c) ------------------------------------------------ */

/* These exit 2 with a message that names `what` when the text is wrong. */
uint64_t cli_size(const struct cli_args *args, const char *what,
                  const char *text); /* bytes, with k, m, g */
uint64_t cli_count(const struct cli_args *args, const char *what,
                   const char *text, uint64_t max);
double cli_number(const struct cli_args *args, const char *what,
                  const char *text);
int64_t cli_seconds_ms(const struct cli_args *args, const char *what,
                       const char *text); /* seconds, rounded up to ms */

/* The shortest decimal that reads back as the same double. Returns its
 * digits (1..17). */
int cli_number_format(double number, char *text, size_t size);

/* "64M", "1.5G", "4096". */
const char *cli_size_format(uint64_t bytes, char *text, size_t size);

/* Wall clock ms since 1970 as "2024-05-01T12:00:00Z". */
const char *cli_time_format(uint64_t ms, char *text, size_t size);

/* The same without a message: false if it is none. */
bool cli_size_read(const char *text, uint64_t *bytes);

/* ---- --dict NAME=SIZE[,MAX] (dicts.c) ---------------------------------- */

/* Exits 2 if one is malformed: before anything is made. */
void cli_dicts_parse(const struct cli_args *args);

/* Opens or makes them all; an exit code, with a message if not 0. */
int cli_dicts_make(const struct cli_args *args, shd_segment *segment);

/* ---- objects of any kind (kinds.c) ------------------------------------- */

enum cli_unit { CLI_GAUGE, CLI_BYTES, CLI_COUNTER };

struct cli_figure {
    const char *name, *help;
    enum cli_unit unit;
    uint64_t value;
};

#define CLI_FIGURES_MAX 32u

struct cli_object {
    char name[64];
    uint32_t kind;
    uint64_t generation;
    unsigned figures;
    struct cli_figure figure[CLI_FIGURES_MAX];
};

/* The object in that slot: SHD_NOTFOUND there is none, SHD_INVAL past the
 * end. SHD_CORRUPT: its name is "" if that cannot be told either. */
int cli_object_at(shd_segment *segment, uint32_t index,
                  struct cli_object *object);

/* A figure by its name; 0 if the kind has no such. */
uint64_t cli_figure(const struct cli_object *object, const char *name);
bool cli_has_figure(const struct cli_object *object, const char *name);

/* How many things are in it: entries, messages, events, permits taken. */
uint64_t cli_entries(const struct cli_object *object);

/* ---- text (text.c) ----------------------------------------------------- */

/* Writes bytes so that they are one line, harmless to a terminal, and can be
 * read back: \\ \n \r \t and \xNN; printable UTF-8 stays if the terminal
 * reads it. */
void cli_escape(FILE *out, const void *bytes, size_t len);

/* The same for what always reads UTF-8. */
void cli_escape_utf8(FILE *out, const void *bytes, size_t len);

/* Undoes it in place; false if the text is no such thing. */
bool cli_unescape(char *text, size_t *len);

/* "shdict VERB: message" on stderr, escaped, one line. */
void cli_message(const struct cli_args *args, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Called before a message that ends the command in the middle of anything;
 * NULL: nothing is. For who has the terminal in another mode. */
extern void (*cli_last_words)(void);

/* Flushes stdout; CLI_FAILED with a message if what was written before could
 * not be, else `status`. */
int cli_finish(const struct cli_args *args, int status);

/* A table for people: a row is count cells separated by tabs, columns are
 * aligned when the table ends. The cells hold no tabs or newlines. */
struct cli_table {
    char *text;
    size_t len;
    FILE *out;
};
bool cli_table_begin(struct cli_table *table);
bool cli_table_end(struct cli_table *table);

/* May this stream be coloured? Only a terminal, not a dumb one, and not if
 * NO_COLOR says no. */
bool cli_colours(FILE *out);

/* A bar on stderr if that is a terminal, and stdout is not, or nothing is
 * written there meanwhile. It has no colours. */
struct cli_progress {
    bool alone; /* nothing goes to stdout meanwhile */
    const char *what; /* "dumping" */
    uint64_t done, total; /* total 0: nobody knows */
    uint64_t next_ns; /* when to draw again; 0: nothing drawn yet */
    bool silent, begun;
};
void cli_progress_step(struct cli_progress *p, uint64_t done);
void cli_progress_end(struct cli_progress *p);

/* ---- JSON (json.c) ----------------------------------------------------- */

/* The version of all documents: an object has it as its member "schema", and
 * a list is the member "items" of such an object. It goes up when a member
 * goes or changes its meaning; more members may come without that. */
#define CLI_SCHEMA 1

/* A JSON string when the bytes are UTF-8, else {"base64": "..."}. NULL: no
 * memory. */
json_t *cli_json_bytes(const void *bytes, size_t len);

/* A number; the strings "inf", "-inf", "nan" for what JSON cannot say. */
json_t *cli_json_number(double number);

/* null for a time to live of 0 (never), else seconds. */
json_t *cli_json_ttl(int64_t ttl_ms);

/* Type, value (or length), flags and ttl of what a read found, into object.
 * `bytes` is the string, NULL if it was not read. */
int cli_json_value(json_t *object, const struct shd_value *value,
                   const void *bytes);

/* Writes the value without a newline; takes the reference. NULL (no memory) or
 * a failed write ends the process with CLI_FAILED. */
void cli_json_write(const struct cli_args *args, json_t *json);

/* The same of an object, without its last brace: members follow. */
void cli_json_write_open(const struct cli_args *args, json_t *json);

/* A whole document, with its schema and a newline. */
void cli_json_print(const struct cli_args *args, json_t *json);

/* A list that is written item by item. */
void cli_json_list_begin(void);
void cli_json_list_next(void);
void cli_json_list_end(void);

/* "string", "number", "boolean", "list". */
const char *cli_type_name(uint32_t type);

/* ---- walking (walk.c) -------------------------------------------------- */

#define CLI_KEY_MAX 65535u

/* Each entry of what the words name: SEGMENT, or SEGMENT DICT. */
struct cli_walk {
    const struct cli_args *args;
    uint32_t flags; /* SHD_SCAN_EXPIRED */
    const char *glob; /* on the escaped key; NULL: all */
    uint64_t max; /* entries, 0: all */
    bool values;  /* strings are read as well, into `value` */
    void (*begin)(struct cli_walk *w); /* it is attached; all may be NULL */
    void (*dict_begin)(struct cli_walk *w, const struct shd_dict_info *info);
    void (*dict_end)(struct cli_walk *w);
    int (*entry)(struct cli_walk *w, const char *key, size_t len,
                 const struct shd_value *v); /* a code */
    /* filled by cli_walk: */
    shd_dict *dict;
    const char *dict_name;
    uint64_t count; /* entries given so far */
    char *value;
    size_t value_size;
    struct cli_progress progress;
    char keys[2][CLI_KEY_MAX]; /* the last one, and the next */
};
int cli_walk(struct cli_args *args, struct cli_walk *w);
struct cli_walk *cli_walk_new(struct cli_args *args);
void cli_walk_free(struct cli_walk *w);

/* ---- segments and dicts (attach.c) ------------------------------------- */

enum cli_mode { CLI_READ, CLI_WRITE };

/* Attaches, or says why not and returns an exit code. 0: *out is attached. */
int cli_attach(const struct cli_args *args, const char *name,
               enum cli_mode mode, shd_segment **out);

/* Attaches and opens a dict. */
int cli_open(const struct cli_args *args, const char *name, const char *dict,
             enum cli_mode mode, shd_segment **segment, shd_dict **out);

/* Says what an operation answered and gives the exit code for it. `what`
 * begins the sentence: the name of what was worked on. */
int cli_answer(const struct cli_args *args, const char *what, int code);

/* There is no such object, or one of another kind: says what to do. `kind` is
 * what it should be: "dict". code: what opening it answered. */
int cli_no_object(const struct cli_args *args, const char *segment,
                  const char *object, const char *kind, int code);

/* In a loop over objects: is there nothing to show of this one? It is gone, or
 * it is damaged: then the others are shown all the same, the first such is
 * named, and *status gets the exit code. */
bool cli_left_out(const struct cli_args *args, int code, int *status);

/* The exit code alone. */
int cli_exit_code(int code);

/* A string value of any length: grows *buf (malloc) as needed. */
int cli_read(shd_dict *dict, const void *key, size_t key_len, bool stale,
             char **buf, size_t *size, struct shd_value *value);

/* The same, and the key is gone then. What does not fit is not taken. */
int cli_take(shd_dict *dict, const void *key, size_t key_len, char **buf,
             size_t *size, struct shd_value *value);

/* A buffer of at least `size` bytes in *buf; what it held is lost. */
int cli_grow(char **buf, size_t *held, size_t size);

/* All of standard input into *buf (malloc). 0 or -1, with errno. */
int cli_read_input(char **buf, size_t *len);

/* shdict pop SEGMENT QUEUE (verb_queue.c). */
int cli_queue_pop(struct cli_args *args);

/* peek of a mailbox: of one worker's box if there is a WORKER, else of all. */
int cli_mailbox_peek(const struct cli_args *args, uint64_t max);

/* Is the verb's object a mailbox? */
bool cli_is_mailbox(const struct cli_args *args);

/* KEY or VALUE as bytes: as it is, or unescaped in place with --escaped. */
size_t cli_bytes(const struct cli_args *args, const char *what, char *word);

#endif
