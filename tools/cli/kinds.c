/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be shown of an object, whatever its kind: a line of the last table
 * for each kind, and figures that stat, its rates and export all print. */
#include "cli.h"

#include <string.h>

#define DICT(member, unit, help)                                              \
    {#member, help, unit, offsetof(struct shd_dict_info, member)}

static const struct {
    const char *name, *help;
    enum cli_unit unit;
    size_t at; /* of an uint64_t */
} dict_figures[] = {
    DICT(entries, CLI_GAUGE, "Entries stored, expired ones included"),
    DICT(capacity_bytes, CLI_BYTES, "Capacity, all overhead included"),
    DICT(free_bytes, CLI_BYTES, "Free pages and free cells"),
    DICT(cells_bytes, CLI_BYTES, "In cells that are in use"),
    DICT(pages, CLI_GAUGE, "Pages of 4096 bytes"),
    DICT(pages_free, CLI_GAUGE, "Pages that are free"),
    DICT(hits, CLI_COUNTER, "Reads that found a live value"),
    DICT(misses, CLI_COUNTER, "Reads that found none"),
    DICT(changes, CLI_COUNTER, "Transactions"),
    DICT(evictions, CLI_COUNTER, "Live entries removed by force"),
    DICT(expirations, CLI_COUNTER, "Expired entries removed"),
    DICT(moves, CLI_COUNTER, "Cells moved to free a page"),
    DICT(lock_waits, CLI_COUNTER, "Lock acquisitions that had to wait"),
    DICT(recoveries, CLI_COUNTER, "Operations of dead workers undone"),
    DICT(resizes, CLI_COUNTER, "Changes of the capacity")};

#define DICT_FIGURES (sizeof(dict_figures) / sizeof(dict_figures[0]))
_Static_assert(DICT_FIGURES <= CLI_FIGURES_MAX, "room for the figures");

static int figures_of_dict(shd_segment *segment, const char *name,
                           struct cli_object *object)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    shd_dict *dict;
    int code = shd_dict_open(segment, name, NULL, &dict);

    if (code != SHD_OK)
        return code;
    code = shd_dict_info(dict, &info);
    shd_dict_close(dict);
    for (size_t i = 0; i < DICT_FIGURES; i++) {
        struct cli_figure *f = &object->figure[i];
        f->name = dict_figures[i].name;
        f->help = dict_figures[i].help;
        f->unit = dict_figures[i].unit;
        memcpy(&f->value, (const char *)&info + dict_figures[i].at,
               sizeof(f->value));
    }
    object->figures = DICT_FIGURES;
    return code;
}

static const struct {
    uint32_t kind;
    const char *name;
    int (*figures)(shd_segment *segment, const char *name,
                   struct cli_object *object);
} kinds[] = {{SHD_OBJECT_DICT, "dict", figures_of_dict}};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

const char *cli_kind_name(uint32_t kind)
{
    for (size_t i = 0; i < KINDS; i++)
        if (kinds[i].kind == kind)
            return kinds[i].name;
    return "unknown";
}

int cli_object_at(shd_segment *segment, uint32_t index,
                  struct cli_object *object)
{
    struct shd_object_info info = {.struct_size = sizeof(info)};
    int code = shd_object_info(segment, index, &info);

    if (code != SHD_OK)
        return code;
    memcpy(object->name, info.name, sizeof(object->name));
    object->name[sizeof(object->name) - 1] = '\0';
    object->kind = info.kind;
    object->generation = info.generation;
    object->figures = 0;
    for (size_t i = 0; i < KINDS; i++)
        if (kinds[i].kind == info.kind)
            code = kinds[i].figures(segment, info.name, object);
    /* Destroyed since. */
    return code == SHD_GONE ? SHD_NOTFOUND : code;
}

uint64_t cli_figure(const struct cli_object *object, const char *name)
{
    for (unsigned i = 0; i < object->figures; i++)
        if (strcmp(object->figure[i].name, name) == 0)
            return object->figure[i].value;
    return 0;
}
