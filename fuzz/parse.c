/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * parse: what reads bytes that are not in a segment, without one. The first
 * byte chooses what the others are:
 *   0  a snapshot's file        1  the records in one
 *   2  a segment's name         3  a segment's header: a sound one, changed
 *   4  a size                   5  an escaped text
 *   6  bytes that are escaped, and read again
 * What is read must be what an independent reader makes of it, where that is
 * simple; what is written for a terminal is nothing that one obeys.
 */
#include "fuzz/file.h"
#include "fuzz/workers.h"
#include "tools/cli/cli.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/segment/header.h"
#include "shm/segment/name.h"

#define KINDS 7u

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "parse: %s\n", what);
    abort();
}

/* Texts are exactly as long as they are. */
static char *text_of(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    if (text == NULL)
        abort();
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

/* ---- snapshots --------------------------------------------------------------- */

static void scan(const unsigned char *bytes, size_t size)
{
    struct record_sums sums = {0};
    int rc = record_scan(bytes, size, &sums);

    if (rc > 0 || rc < SHD_ERROR_LAST_)
        fail("record_scan gave no code");
    if (rc == SHD_OK &&
        sums.objects + sums.entries + sums.elements + sums.messages +
                sums.events > size)
        fail("more records than bytes");
}

static void scan_stream(const uint8_t *data, size_t size)
{
    static struct record_buffer file;

    if (size == 0)
        return;
    file.used = 0;
    file_around(&file, data + 1, size - 1,
                (data[0] & 1) != 0 ? 100 : FILE_BLOCK_MAX);
    scan(file.bytes, file.used);
}

/* ---- segments ---------------------------------------------------------------- */

static void read_name(const uint8_t *data, size_t size)
{
    char *text = text_of(data, size);
    struct segment_name n;
    size_t path, directory;

    memset(&n, 'x', sizeof(n));
    if (name_parse(text, &n) == SHD_OK && n.fd < 0) {
        path = strnlen(n.path, sizeof(n.path));
        directory = strnlen(n.directory, sizeof(n.directory));
        if (path == sizeof(n.path) || directory == sizeof(n.directory))
            fail("a name without an end");
        if (path == 0 || directory == 0)
            fail("a name of nothing");
        if (n.in_tmpfs && (strcmp(n.directory, NAME_TMPFS_DIRECTORY) != 0 ||
                           strchr(text, '/') != NULL))
            fail("a name that leads elsewhere");
    }
    free(text);
}

/* The number of a word, and what it is then; and so on. */
static void read_header(const uint8_t *data, size_t size)
{
    static struct segment_header sound;
    static bool made;
    struct segment_header h;
    char report[80] = "";

    if (!made && header_fill(&sound, NULL, 1) != SHD_OK)
        fail("header_fill");
    made = true;
    h = sound;
    for (; size >= 9; data += 9, size -= 9)
        memcpy((unsigned char *)&h + data[0] % 19 * 8, data + 1, 8);
    if (header_parts_check(&h, report, sizeof(report)) == SHD_OK &&
        (h.extents_at > h.size_bytes || h.size_bytes > SEGMENT_SIZE_MAX ||
         h.workers_at + (uint64_t)h.workers_max * SEGMENT_WORKER_BYTES >
             h.extents_at ||
         h.guards_at + (uint64_t)h.locks_max * SEGMENT_GUARD_BYTES >
             h.catalogue_at))
        fail("a header whose parts overlap");
    if (memchr(report, 0, sizeof(report)) == NULL)
        fail("a report without an end");
}

/* ---- the command -------------------------------------------------------------- */

/* It ends the process: here nobody calls it. */
void cli_usage(const struct cli_args *args, const char *format, ...)
{
    (void)args;
    fail(format);
}

/* Digits and one letter at most, read in another way than strtoull's. */
static bool read_size(const char *text, uint64_t *bytes)
{
    unsigned __int128 n = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++) {
        n = n * 10 + (unsigned)(*p - '0');
        if (n > UINT64_MAX)
            return false;
    }
    if (p == text)
        return false;
    for (unsigned i = 1; i <= 3 && *p != '\0'; i++) {
        if (tolower((unsigned char)*p) == "-kmg"[i]) {
            n <<= 10 * i;
            p++;
            break;
        }
    }
    *bytes = (uint64_t)n;
    return *p == '\0' && n <= UINT64_MAX;
}

static void size_text(const uint8_t *data, size_t size)
{
    char *text = text_of(data, size);
    uint64_t got = 0, wanted = 0;
    bool is_one = cli_size_read(text, &got);

    if (is_one != read_size(text, &wanted) || (is_one && got != wanted))
        fail("another size");
    free(text);
}

static void unescape(const uint8_t *data, size_t size)
{
    char *text = text_of(data, size);
    size_t before = strlen(text), len = 0;

    if (cli_unescape(text, &len) && (len > before || text[len] != '\0'))
        fail("an escaped text grew");
    if (fuzz_planted() && len < before)
        text[size + 1] = '\0';
    free(text);
}

static void escape(const uint8_t *data, size_t size)
{
    static FILE *out;
    static char *text;
    static size_t room;
    size_t len = 0;

    if (out == NULL)
        out = open_memstream(&text, &room);
    if (out == NULL || size == 0)
        return;
    rewind(out);
    ((data[0] & 1) != 0 ? cli_escape : cli_escape_utf8)(out, data + 1,
                                                        size - 1);
    putc('\0', out);
    if (fflush(out) != 0)
        abort();
    for (const char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            fail("a control character for a terminal");
    if (!cli_unescape(text, &len) || len != size - 1 ||
        memcmp(text, data + 1, len) != 0)
        fail("escaped, and not the same again");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const READ[KINDS])(const uint8_t *, size_t) = {
        scan, scan_stream, read_name, read_header, size_text, unescape, escape};

    if (size > 0)
        READ[data[0] % KINDS](data + 1, size - 1);
    return 0;
}
