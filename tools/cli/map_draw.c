/* SPDX-License-Identifier: BSD-2-Clause */
/* The map as a drawing, of rectangles and lines of text: SVG is written here,
 * PNG is what libcairo makes of the same calls. That library is loaded when it
 * is asked for: linked, it would cost each other verb 5 ms at its start, and
 * bring an X client's libraries onto every server. */
#include "map.h"

#include <cairo.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CELL 8
#define ACROSS 120
#define MARGIN 12
#define LINE 18
#define WIDTH (ACROSS * CELL + 2 * MARGIN)
#define FONT 12
#define SWATCH 10
#define BACK 0x14161au
#define FRONT 0xd8dadfu
#define PALE 0x2a2e35u /* a page that is free */
#define ALARM 0xff3030u

/* ---- libcairo ---------------------------------------------------------- */

#define CAIRO(X)                                                              \
    X(image_surface_create)                                                   \
    X(surface_status) X(surface_write_to_png) X(surface_destroy) X(create)    \
        X(destroy) X(status) X(set_source_rgba) X(rectangle) X(fill)          \
            X(select_font_face) X(set_font_size) X(move_to) X(show_text)      \
                X(status_to_string)

struct cairo {
#define FUNCTION(name) __typeof__(cairo_##name) *name;
    CAIRO(FUNCTION)
#undef FUNCTION
};

/* false, with a message: it is not installed. */
static bool cairo_load(const struct cli_args *args, struct cairo *c)
{
    void *library = dlopen("libcairo.so.2", RTLD_NOW | RTLD_LOCAL);

    if (library == NULL) {
        cli_message(args, "%s; install libcairo2, or use --svg", dlerror());
        return false;
    }
#define FIND(name)                                                            \
    *(void **)(void *)&c->name = dlsym(library, "cairo_" #name);              \
    if (c->name == NULL) {                                                    \
        cli_message(args, "%s", dlerror());                                   \
        return false;                                                         \
    }
    CAIRO(FIND)
#undef FIND
    return true;
}

/* ---- either ------------------------------------------------------------ */

struct canvas {
    FILE *svg; /* or: */
    struct cairo cairo;
    cairo_t *to;
};

static void xml(FILE *out, const char *text)
{
    char *escaped = NULL;
    size_t size;
    FILE *memory = open_memstream(&escaped, &size);

    /* Names are bytes: as on a terminal, then as XML. */
    if (memory == NULL)
        return;
    cli_escape(memory, text, strlen(text));
    fclose(memory);
    for (const char *p = escaped; p != NULL && *p; p++) {
        switch (*p) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            putc(*p, out);
        }
    }
    free(escaped);
}

static void source(struct canvas *c, uint32_t rgb, double opacity)
{
    c->cairo.set_source_rgba(c->to, (rgb >> 16 & 0xff) / 255.0,
                             (rgb >> 8 & 0xff) / 255.0, (rgb & 0xff) / 255.0,
                             opacity);
}

/* `title`, if not NULL, is shown when the pointer rests there. */
static void box(struct canvas *c, int x, int y, int w, int h, uint32_t rgb,
                double opacity, const char *title)
{
    if (c->svg == NULL) {
        source(c, rgb, opacity);
        c->cairo.rectangle(c->to, x, y, w, h);
        c->cairo.fill(c->to);
        return;
    }
    fprintf(c->svg,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" "
            "fill=\"#%06x\"",
            x, y, w, h, rgb);
    if (opacity < 1)
        fprintf(c->svg, " fill-opacity=\"%.2f\"", opacity);
    if (title == NULL) {
        fputs("/>\n", c->svg);
        return;
    }
    fputs("><title>", c->svg);
    xml(c->svg, title);
    fputs("</title></rect>\n", c->svg);
}

static void words(struct canvas *c, int x, int y, const char *text)
{
    if (c->svg == NULL) {
        char *safe = NULL;
        size_t size;
        FILE *memory = open_memstream(&safe, &size);

        if (memory == NULL)
            return;
        cli_escape(memory, text, strlen(text));
        fclose(memory);
        source(c, FRONT, 1);
        c->cairo.move_to(c->to, x, y);
        c->cairo.show_text(c->to, safe);
        free(safe);
        return;
    }
    fprintf(c->svg, "<text x=\"%d\" y=\"%d\">", x, y);
    xml(c->svg, text);
    fputs("</text>\n", c->svg);
}

/* ---- the drawing ------------------------------------------------------- */

static int height_of(const struct map *m)
{
    int h = 2 * MARGIN + 2 * LINE; /* heading, and a gap before the legend */

    for (size_t i = 0; i < m->strips; i++)
        h += LINE + CELL / 2 +
             CELL * (int)((m->strip[i].cells + ACROSS - 1) / ACROSS);
    return h + 2 * LINE;
}

static void cell_title(const struct map *m, const struct map_strip *s,
                       size_t i, char *text, size_t size)
{
    const struct map_cell *cell = &s->cell[i];
    const struct map_count *c = &cell->count;
    int most = map_size(cell);

    if (!s->pages) {
        snprintf(text, size, "%llu pages, %.0f%% in use",
                 (unsigned long long)c->pages, 100 * map_fill(c));
        return;
    }
    int n = snprintf(text, size, "page %llu and on: %llu used, %llu free",
                     (unsigned long long)(i * m->group),
                     (unsigned long long)c->used,
                     (unsigned long long)(c->free + c->untouched));
    if (most >= 0 && n > 0 && (size_t)n < size)
        snprintf(text + n, size - (size_t)n,
                 "; %.0f%% full, mostly %s in cells of %u bytes, last taken "
                 "from %llu s ago%s",
                 100 * map_fill(c), map_kind_names[map_kind(c)], m->size[most],
                 (unsigned long long)map_age(c),
                 c->leaving > 0 ? ", leaving" : "");
}

static void draw_cell(struct canvas *c, const struct map *m,
                      const struct map_strip *s, size_t i, int x, int y)
{
    const struct map_cell *cell = &s->cell[i];
    double fill = map_fill(&cell->count);
    char title[256];

    cell_title(m, s, i, title, sizeof(title));
    if (cell->count.damaged > 0)
        box(c, x, y, CELL - 1, CELL - 1, ALARM, 1, title);
    else if (cell->count.used == 0)
        box(c, x, y, CELL - 1, CELL - 1, PALE, 1, title);
    else
        box(c, x, y, CELL - 1, CELL - 1, map_rgb(map_colour(m, s, cell)),
            0.25 + 0.75 * (fill < 1 ? fill : 1), title);
}

static int draw_strip(struct canvas *c, const struct map *m,
                      const struct map_strip *s, int y)
{
    char title[256];

    map_title(m, s, title, sizeof(title));
    words(c, MARGIN, y + FONT, title);
    y += LINE;
    for (size_t i = 0; i < s->cells; i++)
        draw_cell(c, m, s, i, MARGIN + CELL * (int)(i % ACROSS),
                  y + CELL * (int)(i / ACROSS));
    return y + CELL / 2 + CELL * (int)((s->cells + ACROSS - 1) / ACROSS);
}

static void draw_legend(struct canvas *c, const struct map *m, int y)
{
    unsigned steps = map_steps(m);
    char name[32];

    words(c, MARGIN, y + FONT,
          m->show == MAP_AGE     ? "Colour: last taken from, ago. Brightness: "
                                   "how full. Dark: free. Red: damaged."
          : m->show == MAP_HOLDS ? "Colour: what is in it most. Brightness: "
                                   "how full. Dark: free. Red: damaged."
                                 : "Colour: bytes of its cells. Brightness: "
                                   "how full. Dark: free. Red: damaged.");
    y += LINE;
    for (unsigned i = 0; i < steps; i++) {
        int x = MARGIN + (int)i * (WIDTH - 2 * MARGIN) / (int)steps;

        box(c, x, y + FONT - SWATCH, SWATCH, SWATCH,
            map_rgb(map_colour_of(m, i)), 1, NULL);
        words(c, x + SWATCH + 3, y + FONT,
              map_step_name(m, i, name, sizeof(name)));
    }
}

static void draw(struct canvas *c, const struct map *m)
{
    char memory[24], scale[64], heading[512];
    int y = MARGIN;

    cli_size_format(m->memory_bytes, memory, sizeof(memory));
    map_scale(m, scale, sizeof(scale));
    snprintf(heading, sizeof(heading), "segment %.200s: %s in memory; %s",
             m->segment, memory, scale);
    box(c, 0, 0, WIDTH, height_of(m), BACK, 1, NULL);
    words(c, MARGIN, y + FONT, heading);
    y += LINE + LINE / 2;
    for (size_t i = 0; i < m->strips; i++)
        y = draw_strip(c, m, &m->strip[i], y);
    draw_legend(c, m, y + LINE / 2);
}

/* ---- files ------------------------------------------------------------- */

/* A name beside the path; free it. NULL, with a message: it cannot be made. */
static char *beside(const struct cli_args *args, const char *path, int *fd)
{
    size_t size = strlen(path) + sizeof(".XXXXXX");
    char *temporary = malloc(size);

    if (temporary != NULL)
        snprintf(temporary, size, "%s.XXXXXX", path);
    *fd = temporary != NULL ? mkostemp(temporary, O_CLOEXEC) : -1;
    if (*fd >= 0)
        return temporary;
    cli_message(args, "%s: %m", path);
    free(temporary);
    return NULL;
}

/* As a file that open() makes would be. */
static void usual_mode(int fd)
{
    mode_t mask = umask(0);

    (void)umask(mask);
    (void)fchmod(fd, 0666 & ~mask);
}

static int put_in_place(const struct cli_args *args, char *temporary,
                        const char *path, bool written)
{
    bool done = written && rename(temporary, path) == 0;

    if (!done) {
        cli_message(args, "%s: %m", path);
        (void)unlink(temporary);
    }
    free(temporary);
    return done ? CLI_YES : CLI_FAILED;
}

int map_svg(const struct cli_args *args, const struct map *m, const char *path)
{
    struct canvas c = {0};
    int fd;
    char *temporary = beside(args, path, &fd);

    if (temporary == NULL)
        return CLI_FAILED;
    usual_mode(fd);
    c.svg = fdopen(fd, "w");
    if (c.svg == NULL) {
        (void)close(fd);
        return put_in_place(args, temporary, path, false);
    }
    fprintf(c.svg,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
            "height=\"%d\" viewBox=\"0 0 %d %d\">\n"
            "<g font-family=\"monospace\" font-size=\"%d\" "
            "fill=\"#%06x\">\n",
            WIDTH, height_of(m), WIDTH, height_of(m), FONT, FRONT);
    draw(&c, m);
    fputs("</g>\n</svg>\n", c.svg);
    bool written = !ferror(c.svg);
    written = fclose(c.svg) == 0 && written;
    return put_in_place(args, temporary, path, written);
}

int map_png(const struct cli_args *args, const struct map *m, const char *path)
{
    struct canvas c = {0};
    cairo_status_t status;
    int fd;

    if (!cairo_load(args, &c.cairo))
        return CLI_FAILED;
    char *temporary = beside(args, path, &fd);
    if (temporary == NULL)
        return CLI_FAILED;
    usual_mode(fd);
    (void)close(fd);
    cairo_surface_t *surface =
        c.cairo.image_surface_create(CAIRO_FORMAT_RGB24, WIDTH, height_of(m));
    c.to = c.cairo.create(surface);
    c.cairo.select_font_face(c.to, "monospace", CAIRO_FONT_SLANT_NORMAL,
                             CAIRO_FONT_WEIGHT_NORMAL);
    c.cairo.set_font_size(c.to, FONT);
    draw(&c, m);
    status = c.cairo.status(c.to);
    if (status == CAIRO_STATUS_SUCCESS)
        status = c.cairo.surface_write_to_png(surface, temporary);
    c.cairo.destroy(c.to);
    c.cairo.surface_destroy(surface);
    if (status == CAIRO_STATUS_SUCCESS)
        return put_in_place(args, temporary, path, true);
    cli_message(args, "%s: %s", path, c.cairo.status_to_string(status));
    (void)unlink(temporary);
    free(temporary);
    return CLI_FAILED;
}
