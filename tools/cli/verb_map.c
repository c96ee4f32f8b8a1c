/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict map: gathers what the pages of a segment are used for. It looks at
 * each page once, a few thousand at a time, and keeps sums: so the picture of
 * 64 GiB takes no more memory here than that of 64 KiB. */
#include "map.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BATCH 1024u
#define LINES_DEFAULT 40u
#define WIDTH_DEFAULT 80u
#define WIDTH_MAX 4096u
#define CELLS_MAX 65536u /* in all strips, but for one in each */

static void *need(const struct cli_args *args, void *memory)
{
    if (memory != NULL)
        return memory;
    cli_message(args, "out of memory");
    exit(CLI_FAILED);
}

/* ---- which strips there are ----------------------------------------------
 */

static struct map_strip *add_strip(const struct cli_args *args, struct map *m,
                                   const struct shd_region *r,
                                   const char *part)
{
    if ((m->strips & (m->strips - 1)) == 0) /* doubled at powers of two */
        m->strip =
            need(args, realloc(m->strip, (m->strips ? 2 * m->strips : 1) *
                                             sizeof(*m->strip)));
    struct map_strip *s = &m->strip[m->strips++];
    memset(s, 0, sizeof(*s));
    memcpy(s->object, r->object, sizeof(s->object));
    snprintf(s->part, sizeof(s->part), "%s", part);
    s->kind = r->kind;
    s->at = r->at;
    return s;
}

/* Parts of one object are one strip, but for the pages of a dict. */
static const char *strip_name(const struct shd_region *r)
{
    if (strcmp(r->part, "damaged") == 0)
        return "damaged";
    if (r->kind == 0)
        return "tables";
    if (r->kind == SHD_OBJECT_DICT)
        return strcmp(r->part, "pages") == 0 ? "pages" : "index";
    return "parts";
}

static void find_strips(const struct cli_args *args, struct map *m,
                        const shd_layout *layout, const char *only)
{
    struct shd_region r = {.struct_size = sizeof(r)};
    uint64_t last = UINT64_MAX;

    for (uint64_t i = 0; shd_layout_at(layout, i, &r) == SHD_OK; i++) {
        const char *name = strip_name(&r);

        m->size_bytes += r.bytes;
        m->memory_bytes += r.memory_bytes;
        if (strcmp(r.part, "room") == 0 ||
            (only != NULL && strcmp(only, r.object) != 0))
            continue;
        struct map_strip *s = m->strips ? &m->strip[m->strips - 1] : NULL;
        if (s == NULL || last != r.generation || strcmp(s->part, name) != 0)
            s = add_strip(args, m, &r, name);
        last = r.generation;
        s->bytes += r.bytes;
        s->used_bytes += r.used_bytes;
        s->memory_bytes += r.memory_bytes;
        s->pages = strcmp(name, "pages") == 0;
    }
}

/* ---- how large it is ------------------------------------------------------
 */

static uint64_t pages_of(uint64_t bytes)
{
    return (bytes + MAP_PAGE - 1) / MAP_PAGE;
}

static uint64_t cells_of(const struct map_strip *s, uint64_t group)
{
    uint64_t pages = s->pages ? s->first_untouched : pages_of(s->memory_bytes);

    return (pages + group - 1) / group;
}

/* Lines, and a title for each strip. */
static uint64_t lines_of(const struct map *m, uint64_t group, unsigned width)
{
    uint64_t lines = 0;

    for (size_t i = 0; i < m->strips; i++)
        lines += 1 + (cells_of(&m->strip[i], group) + width - 1) / width;
    return lines;
}

static uint64_t all_cells(const struct map *m, uint64_t group)
{
    uint64_t n = 0;

    for (size_t i = 0; i < m->strips; i++)
        n += cells_of(&m->strip[i], group);
    return n;
}

/* The least power of two with which it fits; where the titles alone do not,
 * with which each strip is one line. */
static uint64_t group_for(const struct map *m, unsigned width, unsigned lines)
{
    uint64_t group = 1;

    while (group < 1u << 24 && lines_of(m, group, width) > lines &&
           lines_of(m, group, width) > 2 * m->strips)
        group *= 2;
    return group;
}

static uint64_t group_checked(const struct map *m, uint64_t group)
{
    while (all_cells(m, group) > CELLS_MAX + m->strips)
        group *= 2;
    return group;
}

/* ---- the pages of a dict -------------------------------------------------
 */

static unsigned size_index(struct map *m, uint32_t bytes)
{
    unsigned i = 0;

    while (i < m->sizes && m->size[i] != bytes)
        i++;
    if (i == m->sizes && i < MAP_SIZES)
        m->size[m->sizes++] = bytes;
    return i < MAP_SIZES ? i : MAP_SIZES - 1;
}

static void count_page(struct map_count *c, const struct shd_page *p)
{
    uint64_t size = p->cell_bytes;

    c->pages++;
    c->beyond += p->beyond != 0;
    c->free += p->state == SHD_PAGE_FREE;
    c->untouched += p->state == SHD_PAGE_UNTOUCHED;
    c->damaged += p->state == SHD_PAGE_DAMAGED;
    if (p->state != SHD_PAGE_USED && p->state != SHD_PAGE_LEAVING)
        return;
    c->used++;
    c->leaving += p->state == SHD_PAGE_LEAVING;
    c->held[MAP_ENTRIES] += p->entries * size;
    c->held[MAP_ELEMENTS] += p->elements * size;
    c->held[MAP_PIECES] += p->pieces * size;
    c->bytes += (p->entries + p->elements + (uint64_t)p->pieces) * size;
    c->age_s += p->age_s;
    c->entries += p->entries;
    c->expired += p->expired;
}

static void add_page(struct map *m, struct map_strip *s, uint64_t number,
                     const struct shd_page *p)
{
    uint64_t at = number / m->group;
    struct map_cell *cell = at < s->cells ? &s->cell[at] : NULL;

    count_page(&s->sum, p);
    if (cell != NULL)
        count_page(&cell->count, p);
    if (p->cell_bytes == 0)
        return;
    unsigned i = size_index(m, p->cell_bytes);
    s->size_pages[i]++;
    s->size_used[i] += p->entries + p->elements + (uint64_t)p->pieces;
    s->size_cells[i] += p->cells;
    if (cell != NULL)
        cell->size[i]++;
}

/* How many pages there are to look at, and to draw. */
static int measure(shd_segment *segment, struct map_strip *s)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    shd_dict *dict;
    int code = shd_dict_open(segment, s->object, NULL, &dict);

    if (code != SHD_OK)
        return code;
    code = shd_dict_info(dict, &info);
    if (code == SHD_OK)
        s->first_untouched = info.pages_committed;
    shd_dict_close(dict);
    return code;
}

static int look_at_pages(shd_segment *segment, struct map *m,
                         struct map_strip *s, struct cli_progress *progress)
{
    static struct shd_page page[BATCH];
    uint64_t at = 0;
    shd_dict *dict;
    uint32_t n;
    int code = shd_dict_open(segment, s->object, NULL, &dict);

    if (code != SHD_OK)
        return code;
    do {
        code = shd_dict_pages(dict, at, page, BATCH, &n);
        for (uint32_t i = 0; code == SHD_OK && i < n; i++)
            add_page(m, s, at + i, &page[i]);
        at += n;
        cli_progress_step(progress, progress->done + n);
    } while (code == SHD_OK && n > 0);
    shd_dict_close(dict);
    return code;
}

/* What is no page of a dict is known by its sums alone. */
static void spread(const struct map *m, struct map_strip *s)
{
    uint64_t pages = pages_of(s->memory_bytes);
    uint64_t used =
        s->used_bytes < s->memory_bytes ? s->used_bytes : s->memory_bytes;

    s->sum.pages = s->sum.used = pages;
    s->sum.bytes = s->sum.held[MAP_OTHER] = used;
    s->sum.damaged = strcmp(s->part, "damaged") == 0 ? pages : 0;
    for (size_t i = 0; i < s->cells; i++) {
        struct map_count *c = &s->cell[i].count;
        uint64_t before = i * m->group;
        uint64_t n = pages - before < m->group ? pages - before : m->group;

        c->pages = c->used = n;
        c->damaged = s->sum.damaged != 0 ? n : 0;
        c->bytes = c->held[MAP_OTHER] =
            (uint64_t)((double)used * (double)n / (double)pages);
    }
}

static void swap64(uint64_t *a, unsigned i, unsigned j)
{
    uint64_t was = a[i];

    a[i] = a[j];
    a[j] = was;
}

static void swap_sizes(struct map *m, unsigned i, unsigned j)
{
    uint32_t was = m->size[i];

    m->size[i] = m->size[j];
    m->size[j] = was;
    for (size_t k = 0; k < m->strips; k++) {
        struct map_strip *s = &m->strip[k];

        swap64(s->size_pages, i, j);
        swap64(s->size_used, i, j);
        swap64(s->size_cells, i, j);
        for (size_t c = 0; c < s->cells; c++) {
            was = s->cell[c].size[i];
            s->cell[c].size[i] = s->cell[c].size[j];
            s->cell[c].size[j] = was;
        }
    }
}

/* They were numbered as they came. */
static void sort_sizes(struct map *m)
{
    for (unsigned i = 0; i < m->sizes; i++)
        for (unsigned j = i + 1; j < m->sizes; j++)
            if (m->size[j] < m->size[i])
                swap_sizes(m, i, j);
}

static bool passes(int code)
{
    return code == SHD_OK || code == SHD_NOTFOUND || code == SHD_GONE;
}

/* All strips; one that cannot be looked into is shown as damaged. The first
 * code that says so. */
static int look(const struct cli_args *args, shd_segment *segment,
                struct map *m)
{
    struct cli_progress progress = {.what = "looking at pages"};
    int worst = SHD_OK;

    for (size_t i = 0; i < m->strips; i++)
        progress.total += m->strip[i].first_untouched;
    for (size_t i = 0; i < m->strips; i++) {
        struct map_strip *s = &m->strip[i];
        int code = SHD_OK;

        s->cells = (size_t)cells_of(s, m->group);
        s->cell = need(args, calloc(s->cells + 1, sizeof(*s->cell)));
        if (s->pages)
            code = look_at_pages(segment, m, s, &progress);
        else
            spread(m, s);
        if ((strcmp(s->part, "damaged") == 0 || s->sum.damaged > 0) &&
            code == SHD_OK)
            code = SHD_CORRUPT;
        if (!passes(code) && worst == SHD_OK)
            worst = code;
    }
    cli_progress_end(&progress);
    sort_sizes(m);
    return worst;
}

/* ---- the verb --------------------------------------------------------------
 */

static enum map_show show_of(const struct cli_args *args)
{
    static const char *const names[] = {"fill", "class", "age", "kind"};
    const char *text = cli_option(args, "show");

    for (unsigned i = 0; text != NULL && i < 4; i++)
        if (strcmp(text, names[i]) == 0)
            return (enum map_show)i;
    if (text != NULL)
        cli_usage(args, "--show: \"%s\" is none of fill, class, age, kind",
                  text);
    return MAP_FILL;
}

static unsigned environment(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    unsigned long n = text ? strtoul(text, NULL, 10) : 0;

    return n > 0 && n < WIDTH_MAX ? (unsigned)n : otherwise;
}

/* Of the terminal; else what the environment says, or usual ones. */
static void dimensions(unsigned *width, unsigned *lines)
{
    struct winsize w;

    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 &&
        w.ws_col > 0 && w.ws_row > 0) {
        *width = w.ws_col;
        *lines = w.ws_row;
        return;
    }
    *width = environment("COLUMNS", WIDTH_DEFAULT);
    *lines = environment("LINES", LINES_DEFAULT);
}

static int show(const struct cli_args *args, const struct map *m,
                unsigned width)
{
    const char *svg = cli_option(args, "svg"), *png = cli_option(args, "png");
    int status = CLI_YES;

    if (svg != NULL)
        status = map_svg(args, m, svg);
    if (png != NULL && status == CLI_YES)
        status = map_png(args, m, png);
    if (args->json)
        cli_json_print(args, map_json(m));
    else if (svg == NULL && png == NULL)
        map_text(m, width);
    return status;
}

static int gather(const struct cli_args *args, shd_segment *segment,
                  struct map *m, unsigned width, unsigned lines)
{
    const char *only = args->count > 1 ? args->words[1] : NULL;
    const char *group = cli_option(args, "group");
    shd_layout *layout;
    int worst = shd_layout_get(segment, &layout), code;

    if (worst != SHD_OK && worst != SHD_CORRUPT)
        return worst;
    find_strips(args, m, layout, only);
    shd_layout_free(layout);
    for (size_t i = 0; i < m->strips; i++) {
        if (!m->strip[i].pages)
            continue;
        code = measure(segment, &m->strip[i]);
        if (!passes(code) && worst == SHD_OK)
            worst = code;
    }
    m->group = group ? cli_count(args, "--group", group, 1u << 24)
                     : group_for(m, width, lines);
    if (m->group == 0)
        cli_usage(args, "--group: at least 1 page");
    m->group = group_checked(m, m->group);
    code = look(args, segment, m);
    return worst == SHD_OK ? code : worst;
}

static int run(struct cli_args *args)
{
    struct map m = {.segment = args->words[0], .show = show_of(args)};
    shd_segment *segment;
    unsigned width, lines;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    dimensions(&width, &lines);
    /* Room for the heading, the legend, and the prompt after them. */
    lines = lines > 16 ? lines - 8 : 8;
    if (cli_option(args, "svg") || cli_option(args, "png") || args->json) {
        width = 120;
        lines = 80;
    }
    int code = gather(args, segment, &m, width, lines);
    shd_segment_close(segment);
    if (args->count > 1 && m.strips == 0 && passes(code)) {
        cli_message(args,
                    "no object \"%s\" in segment \"%s\"; `shdict ls %s` lists "
                    "them",
                    args->words[1], m.segment, m.segment);
        status = CLI_ATTACH;
    } else if (passes(code) || code == SHD_CORRUPT) {
        status = show(args, &m, width);
    }
    if (!passes(code) && (status == CLI_YES || code != SHD_CORRUPT))
        status = cli_answer(args, m.segment, code);
    for (size_t i = 0; i < m.strips; i++)
        free(m.strip[i].cell);
    free(m.strip);
    return status;
}

static const struct cli_option options[] = {
    {"show", 's', "WHAT",
     "Colours tell: class (the default beside fill), age, or kind of what is "
     "in the pages; without colours, letters do"},
    {"group", 'g', "PAGES", "One cell is so many pages; else as many as fit"},
    {"svg", 0, "FILE", "Draw into a file, as SVG"},
    {"png", 0, "FILE", "Draw into a file, as PNG (by libcairo2)"},
    {NULL}};

const struct cli_verb verb_map = {
    .name = "map",
    .words = "SEGMENT [OBJECT]",
    .summary = "Draw what the pages of a segment are used for",
    .options = options,
    .words_min = 1,
    .words_max = 2,
    .run = run};
