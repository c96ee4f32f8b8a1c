/* SPDX-License-Identifier: BSD-2-Clause */
/* load.h - what is shared by the two forms that load reads.
 *
 * OWNS   the segment, the dict and the list that what is read goes into.
 * HOLDS  an entry is stored by one operation; a list is removed first, then
 *        filled, an element at a time.
 */
#ifndef SHDICT_CLI_LOAD_H
#define SHDICT_CLI_LOAD_H

#include "cli.h"

#define LOAD_NAME_SIZE 64

struct load {
    struct cli_args *args;
    shd_segment *segment;
    shd_dict *dict;       /* that entries go into; NULL: none was named yet */
    char dict_name[LOAD_NAME_SIZE];
    const char *into;     /* DICT, if given */
    uint32_t op;
    bool create, ended, add;
    char *line;           /* as read; fields are cut in place */
    size_t line_size;
    const char *unit;     /* what number counts: "line", "item" */
    uint64_t number, entries, elements, expired, kept, bytes;
    char *list_key;       /* of the list whose elements follow */
    size_t list_len, list_size;
    bool in_list, skip_list;
    int64_t list_ttl_ms;
    struct cli_progress progress;
};

struct load_entry {
    char *key, *value;
    size_t key_len, len;
    uint32_t type;
    int32_t flags;
    int64_t ttl_ms;
    double number;
};

/* Says what is wrong with what was read, and gives the exit code. */
int load_wrong(const struct load *l, const char *what);

/* SHD_STRING ... SHD_LIST by its name; SHD_NIL: none. */
uint32_t load_type(const char *name);

/* False: no time to live. */
bool load_ttl(double seconds, int64_t *ttl_ms);

/* What follows goes into that dict; capacity 0: it must be there. */
int load_dict(struct load *l, const char *name, uint64_t capacity,
              uint64_t max, uint32_t shards);

/* An entry that is no list; a list, whose elements follow; one of them. Exit
 * codes. */
int load_entry(struct load *l, const struct load_entry *e);
int load_list(struct load *l, const struct load_entry *e);
int load_element(struct load *l, uint32_t type, const char *value, size_t len,
                 double number);

/* How far it is. */
void load_show(struct load *l);

/* Reads what `dump --json` has written, from its first byte on. */
int load_json(struct load *l);

#endif
