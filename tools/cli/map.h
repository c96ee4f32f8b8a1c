/* SPDX-License-Identifier: BSD-2-Clause */
/* map.h - a picture of a segment's pages: what verb_map.c gathers and
 * map_text.c, map_draw.c, map_json.c show.
 *
 * OWNS   the picture: a number of cells that depends on the room to draw in,
 *        not on the segment, which may be 64 GiB.
 * HOLDS  a cell stands for `group` pages of one strip, the last of a strip
 *        for what is left; the sums of a strip are those of all its pages.
 */
#ifndef SHDICT_CLI_MAP_H
#define SHDICT_CLI_MAP_H

#include "cli.h"

#define MAP_PAGE 4096u
#define MAP_SIZES 32u

enum map_show { MAP_FILL, MAP_CLASS, MAP_AGE, MAP_HOLDS };

/* What pages hold most of. */
enum map_kind {
    MAP_ENTRIES,
    MAP_ELEMENTS,
    MAP_PIECES,
    MAP_OTHER, /* of tables, queues, topics ... */
    MAP_KINDS
};

struct map_count {
    uint64_t pages, used, free, untouched, leaving, damaged, beyond;
    uint64_t bytes;           /* in cells in use, or in use of tables */
    uint64_t held[MAP_KINDS]; /* the same, by what is in them */
    uint64_t age_s;           /* sum over the pages in use */
    uint64_t entries, expired;
};

struct map_cell {
    struct map_count count;
    uint32_t size[MAP_SIZES]; /* pages by size, index as map.size */
};

/* A row of cells: the pages of a dict, or a part of anything. */
struct map_strip {
    char object[64], part[32];
    uint32_t kind; /* SHD_OBJECT_, 0: the segment's own */
    bool pages;    /* of a dict: each has been looked at */
    uint64_t at, bytes, used_bytes, memory_bytes;
    struct map_count sum;
    uint64_t size_pages[MAP_SIZES], size_used[MAP_SIZES],
        size_cells[MAP_SIZES];
    struct map_cell *cell;
    size_t cells;
    uint64_t first_untouched; /* and to its end no page was ever touched, and
                                 none is drawn; pages */
};

struct map {
    const char *segment;
    uint64_t size_bytes, memory_bytes; /* of the file */
    uint64_t group;                    /* pages a cell */
    enum map_show show;
    uint32_t size[MAP_SIZES]; /* of cells, bytes, rising */
    unsigned sizes;
    struct map_strip *strip;
    size_t strips;
};

/* ---- what a cell looks like ----------------------------------------------
 */

/* How much of its pages is in use, 0..1. */
double map_fill(const struct map_count *c);

/* The size most of its used pages are cut into: an index; -1: none is. */
int map_size(const struct map_cell *cell);

/* The mean age of its used pages, seconds; as one of MAP_AGES. */
uint64_t map_age(const struct map_count *c);
#define MAP_AGES 7u
unsigned map_age_step(uint64_t seconds);
extern const char *const map_age_names[MAP_AGES];

enum map_kind map_kind(const struct map_count *c);
extern const char *const map_kind_names[MAP_KINDS];

/* Its colour of the 256 that terminals have, and as 0xrrggbb. */
unsigned map_colour(const struct map *m, const struct map_strip *s,
                    const struct map_cell *cell);
unsigned map_colour_of(const struct map *m, unsigned step);
uint32_t map_rgb(unsigned colour);
unsigned map_steps(const struct map *m); /* that the legend has */
const char *map_step_name(const struct map *m, unsigned step, char *text,
                          size_t size);

/* "cache dict: 256 pages of 4 KiB, ..."; one line. */
void map_title(const struct map *m, const struct map_strip *s, char *text,
               size_t size);

/* "one cell is 16 pages (64K)". */
void map_scale(const struct map *m, char *text, size_t size);

/* ---- showing it ------------------------------------------------------------
 */

void map_text(const struct map *m, unsigned width);

json_t *map_json(const struct map *m);

/* Into a file, which is there wholly or not at all. An exit code. */
int map_svg(const struct cli_args *args, const struct map *m,
            const char *path);
int map_png(const struct cli_args *args, const struct map *m,
            const char *path);

#endif
