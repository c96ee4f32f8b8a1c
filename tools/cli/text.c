/* SPDX-License-Identifier: BSD-2-Clause */
/* Bytes as text. A byte stays itself only if it is printable ASCII, or part
 * of a UTF-8 character that is neither a control nor a change of writing
 * direction, and the terminal (if stdout is one) reads UTF-8: to a terminal
 * that does not, bytes from 0x80 to 0x9f are control codes. */
#include "cli.h"

#include <langinfo.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The length of the UTF-8 character that starts here and its code, or 0. */
static size_t utf8_at(const unsigned char *p, size_t len, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;

    if (p[0] < 0xc2 || p[0] > 0xf4 || n > len)
        return 0;
    uint32_t c = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *code = c;
    return n;
}

/* What a terminal obeys, or nobody sees: C1 controls, line and paragraph
 * separators, changes of direction, what has no width, tags, noncharacters. */
static bool is_harmful(uint32_t c)
{
    static const uint32_t ranges[][2] = {
        {0x80, 0x9f},       {0xad, 0xad},       {0x61c, 0x61c},
        {0x115f, 0x1160},   {0x17b4, 0x17b5},   {0x180b, 0x180f},
        {0x200b, 0x200f},   {0x2028, 0x202e},   {0x2060, 0x206f},
        {0x3164, 0x3164},   {0xfdd0, 0xfdef},   {0xfe00, 0xfe0f},
        {0xfeff, 0xfeff},   {0xffa0, 0xffa0},   {0xfff0, 0xfffb},
        {0xe0000, 0xe0fff}};

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return (c & 0xfffe) == 0xfffe;
}

static bool reads_utf8(int fd)
{
    static int locale = -1;

    if (!isatty(fd))
        return true;
    if (locale < 0)
        locale = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    return locale != 0;
}

static void escape_byte(FILE *out, unsigned char c)
{
    if (c == '\\')
        fputs("\\\\", out);
    else if (c == '\n')
        fputs("\\n", out);
    else if (c == '\r')
        fputs("\\r", out);
    else if (c == '\t')
        fputs("\\t", out);
    else if (c < 0x20 || c >= 0x7f)
        fprintf(out, "\\x%02x", c);
    else
        putc(c, out);
}

static void escape(FILE *out, const void *bytes, size_t len, bool utf8)
{
    const unsigned char *p = bytes;
    uint32_t code;

    for (size_t i = 0; i < len;) {
        size_t n = utf8 && p[i] >= 0x80 ? utf8_at(p + i, len - i, &code) : 0;
        if (n && !is_harmful(code)) {
            fwrite(p + i, 1, n, out);
            i += n;
        } else {
            escape_byte(out, p[i++]);
        }
    }
}

void cli_escape(FILE *out, const void *bytes, size_t len)
{
    static int utf8 = -1;

    if (utf8 < 0)
        utf8 = reads_utf8(STDOUT_FILENO);
    escape(out, bytes, len, utf8 != 0);
}

void cli_escape_utf8(FILE *out, const void *bytes, size_t len)
{
    escape(out, bytes, len, true);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool cli_unescape(char *text, size_t *len)
{
    char *to = text;

    for (const char *p = text; *p; p++) {
        if (*p != '\\') {
            *to++ = *p;
            continue;
        }
        p++;
        if (*p == 'x' && hex(p[1]) >= 0 && hex(p[2]) >= 0) {
            *to++ = (char)(hex(p[1]) << 4 | hex(p[2]));
            p += 2;
        } else if (*p == 'n' || *p == 'r' || *p == 't') {
            *to++ = *p == 'n' ? '\n' : *p == 'r' ? '\r' : '\t';
        } else if (*p == '\\') {
            *to++ = '\\';
        } else {
            return false;
        }
    }
    *len = (size_t)(to - text);
    *to = '\0';
    return true;
}

void cli_message(const struct cli_args *args, const char *format, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    flockfile(stderr);
    fprintf(stderr, "shdict%s%s: ", args->verb ? " " : "",
            args->verb ? args->verb->name : "");
    escape(stderr, text, strlen(text), reads_utf8(STDERR_FILENO));
    putc('\n', stderr);
    funlockfile(stderr);
}

int cli_finish(const struct cli_args *args, int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    cli_message(args, "cannot write to standard output: %m");
    return CLI_FAILED;
}

bool cli_colours(FILE *out)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return (no == NULL || no[0] == '\0') && isatty(fileno(out)) &&
           term != NULL && strcmp(term, "dumb") != 0;
}

/* ---- progress ----------------------------------------------------------- */

#define BAR_CELLS 30
#define BAR_NS 100000000ull

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void draw(const struct cli_progress *p)
{
    uint64_t done = p->done < p->total ? p->done : p->total;

    if (p->total == 0) {
        fprintf(stderr, "\r%s %llu", p->what, (unsigned long long)p->done);
        fflush(stderr);
        return;
    }
    int full = (int)(done * BAR_CELLS / p->total);

    fprintf(stderr, "\r%s [%.*s%*s] %llu of %llu", p->what, full,
            "##############################", BAR_CELLS - full, "",
            (unsigned long long)p->done, (unsigned long long)p->total);
    fflush(stderr);
}

/* A dumb terminal cannot take a line back. */
static bool is_no_place(const struct cli_progress *p)
{
    const char *term = getenv("TERM");

    return !isatty(STDERR_FILENO) || (!p->alone && isatty(STDOUT_FILENO)) ||
           term == NULL || strcmp(term, "dumb") == 0;
}

void cli_progress_step(struct cli_progress *p, uint64_t done)
{
    p->done = done;
    if (!p->begun) {
        p->begun = true;
        p->silent = is_no_place(p);
        p->next_ns = p->silent ? 0 : now_ns() + BAR_NS;
    }
    /* The clock is asked now and then. */
    if (p->silent || done % 64 != 0 || now_ns() < p->next_ns)
        return;
    draw(p);
    p->next_ns = now_ns() + BAR_NS;
}

void cli_progress_end(struct cli_progress *p)
{
    if (p->begun && !p->silent)
        fputs("\r\033[K", stderr);
    p->begun = false;
}

bool cli_table_begin(struct cli_table *table)
{
    memset(table, 0, sizeof(*table));
    table->out = open_memstream(&table->text, &table->len);
    return table->out != NULL;
}

#define TABLE_COLUMNS 16

static void table_widths(const char *text, size_t *width)
{
    size_t column = 0, cell = 0;

    for (const char *p = text; *p; p++) {
        if (*p != '\t' && *p != '\n') {
            cell += ((unsigned char)*p & 0xc0) != 0x80; /* characters */
            continue;
        }
        if (column < TABLE_COLUMNS && cell > width[column])
            width[column] = cell;
        column = *p == '\n' ? 0 : column + 1;
        cell = 0;
    }
}

bool cli_table_end(struct cli_table *table)
{
    size_t width[TABLE_COLUMNS] = {0};
    size_t column = 0, cell = 0;

    /* What could not be grown is said once, and not by fclose. */
    bool whole = ferror(table->out) == 0;
    if (fclose(table->out) != 0 || !whole || table->text == NULL) {
        free(table->text);
        cli_message(&(struct cli_args){0}, "out of memory for a table");
        exit(CLI_FAILED);
    }
    table_widths(table->text, width);
    for (const char *p = table->text; *p; p++) {
        if (*p == '\t') {
            size_t w = column < TABLE_COLUMNS ? width[column] : cell;
            printf("%*s", (int)(w - cell + 2), "");
            column++;
            cell = 0;
        } else {
            putchar(*p);
            cell += ((unsigned char)*p & 0xc0) != 0x80;
            if (*p == '\n')
                column = cell = 0;
        }
    }
    free(table->text);
    return true;
}
