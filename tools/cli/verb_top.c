/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict top: what goes on in a segment, on the whole screen, by ncurses. It
 * only looks: read-only, without a lock. */
#include "cli.h"

#include <curses.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SHARDS_SHOWN 8

struct shard {
    char dict[64];
    uint64_t generation;
    uint32_t index;
    struct shd_shard_info info;
    double changes, waits; /* a second */
};

/* All figures at one time. */
struct look {
    struct timespec at;
    struct cli_object *object;
    size_t objects, objects_room;
    struct shard *shard;
    size_t shards, shards_room;
};

enum sort { BY_READS, BY_CHANGES, BY_WAITS, BY_NAME };

struct top {
    struct cli_args *args;
    shd_segment *segment;
    struct look look[2];
    unsigned now;
    double seconds; /* between the two */
    enum sort sort;
    bool colours;
    int row; /* the next to be drawn */
};

static void leave_screen(void)
{
    (void)endwin();
}

static void *room_for(struct top *t, void *array, size_t n, size_t *room,
                      size_t size)
{
    if (n < *room)
        return array;
    *room = *room ? 2 * *room : 16;
    void *more = realloc(array, *room * size);
    if (more == NULL) {
        endwin();
        cli_message(t->args, "out of memory");
        exit(CLI_FAILED);
    }
    return more;
}

static int look_shards(struct top *t, struct look *l,
                       const struct cli_object *o)
{
    shd_dict *dict;
    int code = shd_dict_open(t->segment, o->name, NULL, &dict);

    for (uint32_t i = 0; code == SHD_OK; i++) {
        l->shard = room_for(t, l->shard, l->shards, &l->shards_room,
                            sizeof(*l->shard));
        struct shard *s = &l->shard[l->shards];
        memset(s, 0, sizeof(*s));
        s->info.struct_size = sizeof(s->info);
        code = shd_shard_info(dict, i, &s->info);
        if (code != SHD_OK)
            break;
        memcpy(s->dict, o->name, sizeof(s->dict));
        s->generation = o->generation;
        s->index = i;
        l->shards++;
    }
    if (code == SHD_INVAL || code == SHD_GONE) {
        shd_dict_close(dict);
        return SHD_OK;
    }
    return code == SHD_NOTFOUND ? SHD_OK : code;
}

static int look(struct top *t, struct look *l)
{
    l->objects = l->shards = 0;
    clock_gettime(CLOCK_MONOTONIC, &l->at);
    for (uint32_t i = 0;; i++) {
        l->object = room_for(t, l->object, l->objects, &l->objects_room,
                             sizeof(*l->object));
        struct cli_object *o = &l->object[l->objects];
        int code = cli_object_at(t->segment, i, o);
        if (code == SHD_INVAL)
            return SHD_OK;
        if (code == SHD_NOTFOUND || code == SHD_CORRUPT)
            continue; /* what is damaged, `check` names */
        if (code == SHD_OK && o->kind == SHD_OBJECT_DICT)
            code = look_shards(t, l, o);
        if (code != SHD_OK)
            return code;
        l->objects++;
    }
}

/* ---- what has changed --------------------------------------------------- */

static double rate(const struct top *t, const struct cli_object *now,
                   const char *name)
{
    const struct look *before = &t->look[!t->now];

    for (size_t i = 0; i < before->objects; i++) {
        const struct cli_object *o = &before->object[i];
        uint64_t a = cli_figure(o, name), b = cli_figure(now, name);
        if (o->generation == now->generation)
            return b > a ? (double)(b - a) / t->seconds : 0;
    }
    return 0;
}

static void shard_rates(struct top *t)
{
    const struct look *before = &t->look[!t->now];
    struct look *now = &t->look[t->now];
    size_t k = 0;

    /* Both are in the order of the slots. */
    for (size_t i = 0; i < now->shards; i++) {
        struct shard *s = &now->shard[i];
        while (k < before->shards &&
               before->shard[k].generation != s->generation)
            k++;
        if (k == before->shards) {
            k = 0;
            continue;
        }
        if (before->shard[k].index != s->index)
            continue;
        const struct shd_shard_info *was = &before->shard[k++].info;
        s->changes = (double)(s->info.changes - was->changes) / t->seconds;
        s->waits = (double)(s->info.lock_waits - was->lock_waits) / t->seconds;
    }
}

static int by_heat(const void *a, const void *b)
{
    const struct shard *x = a, *y = b;

    if (x->changes != y->changes)
        return x->changes > y->changes ? -1 : 1;
    return x->waits > y->waits ? -1 : x->waits < y->waits;
}

/* qsort gives no context. */
static const struct top *sorted;

static double key_of(const struct cli_object *o)
{
    switch (sorted->sort) {
    case BY_READS:
        return rate(sorted, o, "hits") + rate(sorted, o, "misses");
    case BY_CHANGES:
        return rate(sorted, o, "changes");
    case BY_WAITS:
        return rate(sorted, o, "lock_waits");
    default:
        return 0;
    }
}

static int by_sort(const void *a, const void *b)
{
    const struct cli_object *x = a, *y = b;
    double p = key_of(x), q = key_of(y);

    return p != q ? (p > q ? -1 : 1) : strcmp(x->name, y->name);
}

/* ---- drawing ------------------------------------------------------------ */

static void line(struct top *t, attr_t attribute, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void line(struct top *t, attr_t attribute, const char *format, ...)
{
    char text[512];
    va_list ap;

    if (t->row >= LINES - 1)
        return;
    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    attrset((int)attribute);
    mvaddnstr(t->row++, 0, text, COLS);
    if (attribute & A_REVERSE)
        mvchgat(t->row - 1, 0, -1, attribute,
                0, NULL);
    attrset((int)A_NORMAL);
}

/* A name in at most `width` characters, none of which does anything. */
static const char *name_of(const char *name, char *text, size_t size)
{
    size_t n = 0;

    for (; *name && n + 1 < size; name++) {
        unsigned char c = (unsigned char)*name;
        text[n++] = c < 0x20 || c >= 0x7f ? '?' : *name;
    }
    text[n] = '\0';
    return text;
}

static attr_t warning(const struct top *t, bool yes)
{
    return !yes ? A_NORMAL : t->colours ? COLOR_PAIR(1) | A_BOLD : A_BOLD;
}

static void draw_head(struct top *t, unsigned alive, unsigned dead)
{
    struct shd_segment_info s = {.struct_size = sizeof(s)};
    char used[16], name[64];

    if (shd_segment_info(t->segment, &s) != SHD_OK)
        return;
    line(t, A_BOLD, "shdict top: %s   %s used   every %.1f s",
         name_of(t->args->words[0], name, sizeof(name)),
         cli_size_format(s.committed_bytes, used, sizeof(used)), t->seconds);
    line(t, warning(t, dead > 0),
         "workers %u alive, %u dead   deaths %llu   recoveries %llu", alive,
         dead, (unsigned long long)s.deaths, (unsigned long long)s.recoveries);
}

/* "98%"; "-": it cannot be full. */
static const char *full_of(const struct cli_object *o, char *text, size_t size)
{
    static const struct {
        const char *part, *whole;
    } shares[] = {{"free_bytes", "capacity_bytes"},
                  {"cells_used", "cells"},
                  {"kept_bytes", "capacity_bytes"},
                  {"taken", "permits"}};

    snprintf(text, size, "-");
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        uint64_t whole = cli_figure(o, shares[i].whole);

        if (!cli_has_figure(o, shares[i].part) || whole == 0)
            continue;
        double share =
            100 * (double)cli_figure(o, shares[i].part) / (double)whole;
        snprintf(text, size, "%.0f%%", i == 0 ? 100 - share : share);
        break;
    }
    return text;
}

static void draw_objects(struct top *t)
{
    struct look *l = &t->look[t->now];

    sorted = t;
    qsort(l->object, l->objects, sizeof(*l->object), by_sort);
    line(t, A_REVERSE, "%-20s %-7s %10s %6s %10s %9s %9s %8s %9s %6s",
         "OBJECT", "KIND", "READS/S", "HITS", "CHANGES/S", "EVICTED/S",
         "EXPIRED/S", "WAITS/S", "ENTRIES", "FULL");
    for (size_t i = 0; i < l->objects; i++) {
        const struct cli_object *o = &l->object[i];
        double hits = rate(t, o, "hits"), misses = rate(t, o, "misses");
        char name[21], hit[16] = "-", full[16];

        if (hits + misses > 0)
            snprintf(hit, sizeof(hit), "%.1f%%",
                     100 * hits / (hits + misses));
        line(t, warning(t, rate(t, o, "evictions") > 0),
             "%-20s %-7s %10.0f %6s %10.0f %9.0f %9.0f %8.0f %9llu %6s",
             name_of(o->name, name, sizeof(name)), shd_object_kind_name(o->kind),
             hits + misses, hit, rate(t, o, "changes"),
             rate(t, o, "evictions"), rate(t, o, "expirations"),
             rate(t, o, "lock_waits"),
             (unsigned long long)cli_figure(
                 o, cli_has_figure(o, "ready") ? "ready" : "entries"),
             full_of(o, full, sizeof(full)));
    }
}

static void draw_shards(struct top *t)
{
    struct look *l = &t->look[t->now];
    struct shard *copy = malloc((l->shards + 1) * sizeof(*copy));

    if (copy == NULL)
        return;
    /* What is compared with next stays in its order. */
    memcpy(copy, l->shard, l->shards * sizeof(*copy));
    qsort(copy, l->shards, sizeof(*copy), by_heat);
    line(t, A_NORMAL, "%s", "");
    line(t, A_REVERSE, "%-20s %7s %10s %8s %9s %9s  %s", "HOTTEST SHARDS",
         "SHARD", "CHANGES/S", "WAITS/S", "ENTRIES", "PAGES", "LOCKED BY");
    for (size_t i = 0; i < l->shards && i < SHARDS_SHOWN; i++) {
        const struct shard *s = &copy[i];
        char name[21], holder[24] = "-";

        if (s->info.holder)
            snprintf(holder, sizeof(holder), "%llu",
                     (unsigned long long)s->info.holder);
        line(t, warning(t, s->waits > 0), "%-20s %7u %10.0f %8.0f %9llu %9u  %s",
             name_of(s->dict, name, sizeof(name)), s->index, s->changes,
             s->waits, (unsigned long long)s->info.entries, s->info.pages,
             holder);
    }
    free(copy);
}

static void draw_workers(struct top *t, unsigned *alive, unsigned *dead,
                         bool draw)
{
    struct shd_worker_info w = {.struct_size = sizeof(w)};
    int code;

    if (draw) {
        line(t, A_NORMAL, "%s", "");
        line(t, A_REVERSE, "%8s %7s %11s %-7s %6s %12s  %s", "PID", "WORKER",
             "GENERATION", "STATE", "LOCKS", "INCARNATION", "NAME");
    }
    for (uint32_t i = 0;
         (code = shd_worker_info(t->segment, i, &w)) != SHD_INVAL; i++) {
        char name[33];

        if (code != SHD_OK)
            continue;
        bool gone = w.state == SHD_WORKER_DEAD;
        *(gone ? dead : alive) += 1;
        if (draw)
            line(t, warning(t, gone), "%8u %7d %11u %-7s %6u %12llu  %s",
                 w.pid, w.worker_id, w.generation, gone ? "dead" : "alive",
                 w.locks_held, (unsigned long long)w.incarnation,
                 name_of(w.name, name, sizeof(name)));
    }
}

static void draw(struct top *t)
{
    unsigned alive = 0, dead = 0, ignored = 0;

    erase();
    t->row = 0;
    draw_workers(t, &alive, &dead, false);
    draw_head(t, alive, dead);
    line(t, A_NORMAL, "%s", "");
    draw_objects(t);
    draw_shards(t);
    draw_workers(t, &ignored, &ignored, true);
    attrset((int)A_DIM);
    mvaddnstr(LINES - 1, 0,
              "q quit   sorted by: r reads, c changes, w waits, n name", COLS);
    attrset((int)A_NORMAL);
    refresh();
}

/* ---- the screen --------------------------------------------------------- */

static int measure(struct top *t)
{
    int code = look(t, &t->look[!t->now]);

    if (code != SHD_OK)
        return code;
    t->now = !t->now;
    const struct timespec *a = &t->look[!t->now].at, *b = &t->look[t->now].at;
    t->seconds = (double)(b->tv_sec - a->tv_sec) +
                 (double)(b->tv_nsec - a->tv_nsec) / 1e9;
    shard_rates(t);
    return SHD_OK;
}

/* False: enough. */
static bool key(struct top *t, int c)
{
    switch (c) {
    case 'q':
    case 'Q':
    case 27:
        return false;
    case 'r':
        t->sort = BY_READS;
        break;
    case 'c':
        t->sort = BY_CHANGES;
        break;
    case 'w':
        t->sort = BY_WAITS;
        break;
    case 'n':
        t->sort = BY_NAME;
        break;
    default:
        break;
    }
    return true;
}

static int show(struct top *t, int interval_ms)
{
    int code = look(t, &t->look[t->now]), c;

    cli_last_words = leave_screen;
    initscr();
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    t->colours = cli_colours(stdout) && has_colors();
    if (t->colours) {
        start_color();
        use_default_colors();
        init_pair(1, COLOR_RED, -1);
    }
    timeout(interval_ms < 200 ? interval_ms : 200);
    while (code == SHD_OK) {
        c = getch();
        if (c != ERR && !key(t, c))
            break;
        if (c != ERR) {
            draw(t);
            continue;
        }
        code = measure(t);
        draw(t);
        timeout(interval_ms);
    }
    endwin();
    return code;
}

static int run(struct cli_args *args)
{
    const char *interval = cli_option(args, "interval");
    int64_t ms = interval ? cli_seconds_ms(args, "--interval", interval)
                          : 1000;
    struct top t = {.args = args, .seconds = 1};

    if (ms < 10 || ms > 3600000)
        cli_usage(args, "--interval: 0.01 to 3600 seconds");
    if (args->json)
        cli_usage(args, "--json: `shdict stat --interval --json` has it");
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        cli_usage(args, "this wants a terminal; `shdict stat --interval` "
                        "does not");
    int status = cli_attach(args, args->words[0], CLI_READ, &t.segment);
    if (status != CLI_YES)
        return status;
    int code = show(&t, (int)ms);
    shd_segment_close(t.segment);
    for (int i = 0; i < 2; i++) {
        free(t.look[i].object);
        free(t.look[i].shard);
    }
    return code == SHD_OK ? CLI_YES : cli_answer(args, args->words[0], code);
}

static const struct cli_option options[] = {
    {"interval", 'i', "SECONDS", "Look again so often; every second by default"},
    {NULL}};

const struct cli_verb verb_top = {
    .name = "top",
    .words = "SEGMENT",
    .summary = "Watch rates, hot shards and workers on the whole screen",
    .options = options,
    .words_min = 1,
    .words_max = 1,
    .run = run};
