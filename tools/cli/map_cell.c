/* SPDX-License-Identifier: BSD-2-Clause */
/* What a cell of the map looks like, wherever it is drawn. */
#include "map.h"

#include <string.h>

const char *const map_age_names[MAP_AGES] = {
    "under 1 s", "1 s", "10 s", "1 min", "10 min", "1 h", "6 h and over"};

const char *const map_kind_names[MAP_KINDS] = {"entries", "list elements",
                                               "long values", "tables"};

/* Of the 256 colours: small cells to large ones round the rainbow, young pages
 * to old ones, kinds. */
static const unsigned char classes[] = {196, 202, 208, 214, 220, 226, 190,
                                        154, 118, 82,  46,  48,  50,  51,
                                        45,  39,  33,  63,  99,  135, 201};
static const unsigned char ages[MAP_AGES] = {196, 208, 220, 154, 43, 33, 61};
static const unsigned char kinds[MAP_KINDS] = {39, 214, 165, 245};

#define CLASSES (sizeof(classes) / sizeof(classes[0]))

double map_fill(const struct map_count *c)
{
    double all = (double)(c->used * MAP_PAGE);

    return c->used == 0 ? 0 : (double)c->bytes / all;
}

int map_size(const struct map_cell *cell)
{
    int most = -1;

    for (int i = 0; i < (int)MAP_SIZES; i++)
        if (cell->size[i] > (most < 0 ? 0 : cell->size[most]))
            most = i;
    return most;
}

uint64_t map_age(const struct map_count *c)
{
    return c->used == 0 ? 0 : c->age_s / c->used;
}

unsigned map_age_step(uint64_t seconds)
{
    static const uint32_t from[MAP_AGES] = {0, 1, 10, 60, 600, 3600, 21600};
    unsigned step = MAP_AGES - 1;

    while (from[step] > seconds)
        step--;
    return step;
}

enum map_kind map_kind(const struct map_count *c)
{
    enum map_kind most = MAP_ENTRIES;

    for (unsigned k = 1; k < MAP_KINDS; k++)
        if (c->held[k] > c->held[most])
            most = (enum map_kind)k;
    return most;
}

/* ---- colours ---------------------------------------------------------------
 */

unsigned map_steps(const struct map *m)
{
    return m->show == MAP_AGE     ? MAP_AGES
           : m->show == MAP_HOLDS ? (unsigned)MAP_KINDS
                                  : m->sizes;
}

unsigned map_colour_of(const struct map *m, unsigned step)
{
    if (m->show == MAP_AGE)
        return ages[step % MAP_AGES];
    if (m->show == MAP_HOLDS)
        return kinds[step % MAP_KINDS];
    if (m->sizes <= 1)
        return classes[step % CLASSES];
    return classes[(step * (CLASSES - 1) / (m->sizes - 1)) % CLASSES];
}

const char *map_step_name(const struct map *m, unsigned step, char *text,
                          size_t size)
{
    if (m->show == MAP_AGE)
        snprintf(text, size, "%s", map_age_names[step % MAP_AGES]);
    else if (m->show == MAP_HOLDS)
        snprintf(text, size, "%s", map_kind_names[step % MAP_KINDS]);
    else
        snprintf(text, size, "%u", m->size[step % MAP_SIZES]);
    return text;
}

unsigned map_colour(const struct map *m, const struct map_strip *s,
                    const struct map_cell *cell)
{
    int size = map_size(cell);

    if (m->show == MAP_HOLDS)
        return map_colour_of(m, map_kind(&cell->count));
    if (!s->pages)
        return kinds[MAP_OTHER];
    if (m->show == MAP_AGE)
        return map_colour_of(m, map_age_step(map_age(&cell->count)));
    return size < 0 ? kinds[MAP_OTHER] : map_colour_of(m, (unsigned)size);
}

uint32_t map_rgb(unsigned colour)
{
    static const unsigned level[] = {0, 95, 135, 175, 215, 255};
    unsigned n;

    if (colour < 16 || colour > 255)
        return 0;
    if (colour >= 232) {
        n = 8 + 10 * (colour - 232);
        return n << 16 | n << 8 | n;
    }
    n = colour - 16;
    return level[n / 36] << 16 | level[n / 6 % 6] << 8 | level[n % 6];
}

/* ---- sentences -------------------------------------------------------------
 */

static int append(char *text, size_t size, int at, const char *format,
                  const char *what, uint64_t n)
{
    if (at < 0 || (size_t)at >= size)
        return at;
    return at + snprintf(text + at, size - (size_t)at, format,
                         (unsigned long long)n, what);
}

static void title_of_pages(const struct map_strip *s, char *text, size_t size)
{
    const struct map_count *c = &s->sum;
    int at = snprintf(text, size,
                      "%s dict: %llu pages, %llu used and %.0f%% "
                      "full",
                      s->object, (unsigned long long)c->pages,
                      (unsigned long long)c->used, 100 * map_fill(c));
    const struct {
        uint64_t n;
        const char *what;
    } more[] = {{c->free, "free"},
                {c->untouched, "never touched"},
                {c->leaving, "leaving"},
                {c->beyond, "above the capacity"},
                {c->damaged, "damaged"}};

    for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
        if (more[i].n > 0)
            at = append(text, size, at, ", %llu %s", more[i].what, more[i].n);
}

void map_title(const struct map *m, const struct map_strip *s, char *text,
               size_t size)
{
    char used[24], memory[24];

    if (s->pages) {
        title_of_pages(s, text, size);
        return;
    }
    cli_size_format(s->used_bytes, used, sizeof(used));
    cli_size_format(s->memory_bytes, memory, sizeof(memory));
    if (strcmp(s->part, "damaged") == 0)
        snprintf(text, size, "%s %s: damaged, %s in memory", s->object,
                 shd_object_kind_name(s->kind), memory);
    else if (s->kind == 0)
        snprintf(text, size,
                 "locks and tables of the segment: %s used, %s in memory",
                 used, memory);
    else if (strcmp(s->part, "index") == 0)
        snprintf(text, size, "%s index: %s used, %s in memory", s->object,
                 used, memory);
    else
        snprintf(text, size, "%s %s: %s used, %s in memory", s->object,
                 shd_object_kind_name(s->kind), used, memory);
    (void)m;
}

void map_scale(const struct map *m, char *text, size_t size)
{
    char bytes[24];

    cli_size_format(m->group * MAP_PAGE, bytes, sizeof(bytes));
    if (m->group == 1)
        snprintf(text, size, "each cell is a page (%s)", bytes);
    else
        snprintf(text, size, "each cell is %llu pages (%s)",
                 (unsigned long long)m->group, bytes);
}
