/* SPDX-License-Identifier: BSD-2-Clause */
/* The map in a terminal, or as plain text. Shades tell how full pages are, and
 * colours what --show says; where there are no colours, letters do that. */
#include "map.h"

#include <curses.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <term.h>
#include <unistd.h>

struct text {
    const struct map *map;
    unsigned width;
    bool blocks; /* the locale is UTF-8 */
    int colours; /* 0, 8, or 256 */
    int last;    /* the colour that is set; -1: none */
};

static int colours_of_terminal(void)
{
    int error;

    if (!cli_colours(stdout) || setupterm(NULL, STDOUT_FILENO, &error) != OK)
        return 0;
    int n = tigetnum("colors");
    return n >= 256 ? 256 : n >= 8 ? 8 : 0;
}

/* The nearest of eight. */
static unsigned basic(unsigned colour)
{
    uint32_t rgb = map_rgb(colour);
    unsigned bits = (rgb >> 16 & 0xff) > 127 ? 1 : 0;

    bits |= (rgb >> 8 & 0xff) > 127 ? 2 : 0;
    bits |= (rgb & 0xff) > 127 ? 4 : 0;
    return bits == 0 ? 7 : bits;
}

static void colour(struct text *t, int colour)
{
    if (t->colours == 0 || colour == t->last)
        return;
    if (colour < 0)
        fputs("\033[39m", stdout);
    else if (t->colours == 256)
        printf("\033[38;5;%dm", colour);
    else
        printf("\033[3%um", basic((unsigned)colour));
    t->last = colour;
}

static char letter(const struct text *t, const struct map_strip *s,
                   const struct map_cell *cell)
{
    static const char kinds[] = "elvt";
    int size = map_size(cell);

    if (t->map->show == MAP_HOLDS)
        return kinds[map_kind(&cell->count)];
    if (!s->pages)
        return 't';
    if (t->map->show == MAP_AGE)
        return (char)('0' + (int)map_age_step(map_age(&cell->count)));
    return size < 0 ? '?' : (char)('a' + size);
}

static const char *shade(const struct text *t, double fill)
{
    static const char *const blocks[] = {"░", "▒", "▓", "█"};
    static const char *const ascii[] = {"-", "+", "*", "#"};
    int step = fill <= 0.25 ? 0 : fill <= 0.5 ? 1 : fill <= 0.75 ? 2 : 3;

    return t->blocks ? blocks[step] : ascii[step];
}

/* Letters say what colours would, if there are none. */
static bool by_letters(const struct text *t)
{
    return t->map->show != MAP_FILL && t->colours == 0;
}

static void put_cell(struct text *t, const struct map_strip *s,
                     const struct map_cell *cell)
{
    const struct map_count *c = &cell->count;

    if (c->damaged > 0) {
        colour(t, 196);
        putchar('!');
    } else if (c->used == 0) {
        colour(t, -1);
        fputs(c->free == 0 ? " " : t->blocks ? "·" : ".", stdout);
    } else {
        colour(t, (int)map_colour(t->map, s, cell));
        if (c->leaving > 0)
            putchar('~');
        else if (by_letters(t))
            putchar(letter(t, s, cell));
        else
            fputs(shade(t, map_fill(c)), stdout);
    }
}

static void put_strip(struct text *t, const struct map_strip *s)
{
    char title[256];

    map_title(t->map, s, title, sizeof(title));
    cli_escape(stdout, title, strlen(title));
    putchar('\n');
    for (size_t i = 0; i < s->cells; i++) {
        put_cell(t, s, &s->cell[i]);
        if ((i + 1) % t->width == 0 || i + 1 == s->cells) {
            colour(t, -1);
            putchar('\n');
        }
    }
}

/* Items of the legend, in lines that fit. */
static void item(struct text *t, unsigned *at, const char *mark,
                 int mark_colour, const char *name)
{
    unsigned wide = 1 + (unsigned)strlen(name); /* and the mark */

    if (*at > 0 && *at + 2 + wide > t->width) {
        putchar('\n');
        *at = 0;
    } else if (*at > 0) {
        fputs("  ", stdout);
        *at += 2;
    }
    colour(t, mark_colour);
    fputs(mark, stdout);
    colour(t, -1);
    fputs(name, stdout);
    *at += wide;
}

static void put_shades(struct text *t)
{
    static const char *const names[] = {" to 25% full", " 50%", " 75%",
                                        " 100%"};
    unsigned at = 0;

    for (unsigned i = 0; i < 4 && !by_letters(t); i++)
        item(t, &at, shade(t, 0.2 + 0.25 * i), -1, names[i]);
    item(t, &at, t->blocks ? "·" : ".", -1, " free");
    item(t, &at, "~", -1, " leaving");
    item(t, &at, "!", -1, " damaged");
    putchar('\n');
}

static void put_legend(struct text *t)
{
    static const char *const what[] = {"size of cells:", "size of cells:",
                                       "last taken from, ago:", "mostly:"};
    const struct map *m = t->map;
    unsigned at = 0;

    put_shades(t);
    if (m->show == MAP_FILL && t->colours == 0)
        return;
    item(t, &at, "", -1, what[m->show]);
    for (unsigned i = 0; i < map_steps(m); i++) {
        char name[40] = " ", mark[2] = {0};

        map_step_name(m, i, name + 1, sizeof(name) - 1);
        mark[0] = m->show == MAP_AGE     ? (char)('0' + (int)i)
                  : m->show == MAP_HOLDS ? "elvt"[i]
                                         : (char)('a' + (int)i);
        item(t, &at,
             t->colours == 0 ? mark
             : t->blocks     ? "█"
                             : "#",
             t->colours == 0 ? -1 : (int)map_colour_of(m, i), name);
    }
    putchar('\n');
}

void map_text(const struct map *m, unsigned width)
{
    struct text t = {.map = m,
                     .width = width > 0 ? width : 1,
                     .blocks = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
                     .colours = colours_of_terminal(),
                     .last = -1};
    char memory[24], size[24], scale[64];

    cli_size_format(m->memory_bytes, memory, sizeof(memory));
    cli_size_format(m->size_bytes, size, sizeof(size));
    map_scale(m, scale, sizeof(scale));
    fputs("segment ", stdout);
    cli_escape(stdout, m->segment, strlen(m->segment));
    printf(": %s in memory, of %s of address room; %s\n", memory, size, scale);
    for (size_t i = 0; i < m->strips; i++)
        put_strip(&t, &m->strip[i]);
    put_legend(&t);
}
