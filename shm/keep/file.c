/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/keep/file.h"
#include "shm/base/error.h"
#include "shm/base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "shdict snapshot\n"
#define MAGIC_BYTES 16u
#define CHECKED_BYTES 56u
#define BLOCK_MAGIC 0x42444853u /* "SHDB" */
#define MODE 0600u
#define TEMP_TRIES 100

/* "fd:N" is descriptor N; else -1. */
static int descriptor_of(const char *path)
{
    char *end;
    long n;

    if (strncmp(path, "fd:", 3) != 0 || path[3] < '0' || path[3] > '9')
        return -1;
    errno = 0;
    n = strtol(path + 3, &end, 10);
    return errno != 0 || *end != '\0' || n > INT32_MAX ? -1 : (int)n;
}

static int path_check(const char *path)
{
    if (path == NULL || path[0] == '\0')
        return error_set(SHD_NAME, "the file's name is empty");
    if (strlen(path) > FILE_PATH_BYTES - 32)
        return error_set(SHD_NAME, "the file's name has %zu bytes, at most "
                                   "%u are allowed",
                         strlen(path), FILE_PATH_BYTES - 32);
    if (strncmp(path, "fd:", 3) == 0 && descriptor_of(path) < 0)
        return error_set(SHD_NAME, "'%.40s' is not 'fd:' and a descriptor's "
                                   "number",
                         path);
    return SHD_OK;
}

static void close_quietly(int fd)
{
    int saved = errno;

    (void)close(fd);
    errno = saved;
}

static int random_number(uint64_t *n)
{
    ssize_t got;

    do {
        got = getrandom(n, sizeof(*n), 0);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof(*n) ? SHD_OK : error_errno("getrandom");
}

/* ---- writing ----------------------------------------------------------- */

/* "a/b/c": "a/b"; "c": "." */
static void directory_of(const char *path, char *directory)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);

    if (slash == path)
        len = 1;
    memcpy(directory, path, len);
    directory[len] = '\0';
    if (len == 0)
        memcpy(directory, ".", 2);
}

static void temp_name(struct file_writer *w)
{
    uint64_t r = 0;

    /* Any name that is free will do. */
    if (random_number(&r) != SHD_OK)
        r = (uint64_t)getpid();
    snprintf(w->temp, sizeof(w->temp), "%.*s.new-%016llx",
             (int)(sizeof(w->temp) - 32), w->path, (unsigned long long)r);
}

static int open_with_temp_name(struct file_writer *w)
{
    for (int i = 0; i < TEMP_TRIES; i++) {
        temp_name(w);
        w->fd = open(w->temp,
                     O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                     MODE);
        if (w->fd >= 0)
            return SHD_OK;
        if (errno != EEXIST)
            break;
    }
    w->temp[0] = '\0';
    return error_errno("creating %.200s", w->path);
}

/* What is renamed over is a file; anything else would be lost, or is a
 * device that was meant to be written to. */
static int target_check(const char *path)
{
    struct stat st;

    if (lstat(path, &st) != 0 || S_ISREG(st.st_mode))
        return SHD_OK;
    return error_set(SHD_NAME,
                     "%.200s is there and is no regular file: give the name "
                     "of a file, or a descriptor as fd:N",
                     path);
}

static int open_for_writing(struct file_writer *w)
{
    char directory[FILE_PATH_BYTES];
    int rc = target_check(w->path);

    if (rc != SHD_OK)
        return rc;
    directory_of(w->path, directory);
    w->is_ours = true;
    w->fd = open(directory, O_TMPFILE | O_WRONLY | O_CLOEXEC, MODE);
    if (w->fd >= 0)
        return SHD_OK;
    if (errno == EOPNOTSUPP || errno == EISDIR)
        return open_with_temp_name(w);
    if (errno == ENOENT)
        return error_set(SHD_NOTFOUND, "there is no directory %.200s",
                         directory);
    return error_errno("creating %.200s", w->path);
}

static int write_all(struct file_writer *w, const unsigned char *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(w->fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
            return error_set(SHD_NOMEM,
                             "writing %.200s: %s; what was there before is "
                             "as it was",
                             w->path, strerror(errno));
        if (n < 0)
            return error_errno("writing %.200s", w->path);
        p += n;
        len -= (size_t)n;
        w->bytes += (uint64_t)n;
    }
    return SHD_OK;
}

static int write_header(struct file_writer *w, uint64_t saved_ms)
{
    unsigned char h[FILE_HEADER_BYTES] = {0};

    memcpy(h, MAGIC, MAGIC_BYTES);
    file_put(h + 16, FILE_VERSION, 4);
    file_put(h + 20, FILE_HEADER_BYTES, 4);
    file_put(h + 24, w->seed, 8);
    file_put(h + 32, saved_ms, 8);
    file_put(h + CHECKED_BYTES, hash_bytes(h, CHECKED_BYTES, 0), 8);
    return write_all(w, h, sizeof(h));
}

int file_writer_begin(struct file_writer *w, const char *path,
                      uint64_t saved_ms)
{
    int rc = path_check(path);

    memset(w, 0, sizeof(*w));
    w->fd = -1;
    if (rc != SHD_OK)
        return rc;
    memcpy(w->path, path, strlen(path) + 1);
    w->block = malloc(FILE_BLOCK_HEAD_BYTES + FILE_BLOCK_MAX);
    if (w->block == NULL)
        return error_set(SHD_NOMEM, "no memory for a block");
    rc = random_number(&w->seed);
    if (rc != SHD_OK)
        return rc;
    w->fd = descriptor_of(path);
    if (w->fd < 0)
        rc = open_for_writing(w);
    return rc == SHD_OK ? write_header(w, saved_ms) : rc;
}

static int block_out(struct file_writer *w)
{
    unsigned char *b = w->block;
    size_t len = FILE_BLOCK_HEAD_BYTES + w->used;

    file_put(b + 8, BLOCK_MAGIC, 4);
    file_put(b + 12, w->used, 4);
    file_put(b + 16, w->number++, 8);
    file_put(b, hash_bytes(b + 8, len - 8, w->seed), 8);
    w->used = 0;
    return write_all(w, b, len);
}

int file_write(struct file_writer *w, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    int rc = SHD_OK;

    while (len > 0 && rc == SHD_OK) {
        size_t n = FILE_BLOCK_MAX - w->used;

        if (n > len)
            n = len;
        memcpy(w->block + FILE_BLOCK_HEAD_BYTES + w->used, p, n);
        w->used += (uint32_t)n;
        p += n;
        len -= n;
        if (w->used == FILE_BLOCK_MAX)
            rc = block_out(w);
    }
    return rc;
}

/* A file without a name gets a temporary one, which takes the place of what is
 * there in one step. */
static int give_name(struct file_writer *w)
{
    char link[40];

    for (int i = 0; w->temp[0] == '\0' && i < TEMP_TRIES; i++) {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", w->fd);
        temp_name(w);
        if (linkat(AT_FDCWD, link, AT_FDCWD, w->temp, AT_SYMLINK_FOLLOW) == 0)
            break;
        w->temp[0] = '\0';
        if (errno != EEXIST)
            return error_errno("giving %.200s its name", w->path);
    }
    if (rename(w->temp, w->path) != 0)
        return error_errno("giving %.200s its name", w->path);
    w->temp[0] = '\0';
    return SHD_OK;
}

/* The name itself is on the disk when its directory is. */
static int sync_directory(const struct file_writer *w)
{
    char directory[FILE_PATH_BYTES];
    int fd, rc = SHD_OK;

    directory_of(w->path, directory);
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* It may be one that may be written to and not read. */
    if (fd < 0)
        return errno == EACCES ? SHD_OK
                               : error_errno("opening %.200s", directory);
    if (fsync(fd) != 0 && errno != EINVAL)
        rc = error_errno("fsync of %.200s", directory);
    close_quietly(fd);
    return rc;
}

int file_writer_finish(struct file_writer *w)
{
    int rc = w->used > 0 ? block_out(w) : SHD_OK;

    if (rc != SHD_OK)
        return rc;
    /* A pipe has nothing to be kept. */
    if (fsync(w->fd) != 0 && (w->is_ours || (errno != EINVAL &&
                                             errno != EROFS)))
        return error_errno("fsync of %.200s", w->path);
    if (!w->is_ours)
        return SHD_OK;
    rc = give_name(w);
    return rc == SHD_OK ? sync_directory(w) : rc;
}

void file_writer_end(struct file_writer *w)
{
    if (w->is_ours && w->fd >= 0)
        close_quietly(w->fd);
    if (w->temp[0] != '\0')
        (void)unlink(w->temp); /* best effort */
    w->temp[0] = '\0';
    w->fd = -1;
    free(w->block);
    w->block = NULL;
}

/* ---- reading ----------------------------------------------------------- */

static int read_some(struct file_reader *r, unsigned char *to, size_t len,
                     size_t *got)
{
    ssize_t n = 0;

    *got = 0;
    if (r->fd < 0) {
        *got = len < r->memory_left ? len : r->memory_left;
        if (*got > 0)
            memcpy(to, r->memory, *got);
        r->memory += *got;
        r->memory_left -= *got;
        r->at += *got;
        return SHD_OK;
    }
    while (*got < len && (n = read(r->fd, to + *got, len - *got)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno("reading %.200s", r->label);
        *got += (size_t)n;
        r->at += (uint64_t)n;
    }
    return SHD_OK;
}

int file_damaged(const struct file_reader *r, const char *format, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    return error_set(SHD_CORRUPT,
                     "%.200s is damaged: %s; take another copy of it, or an "
                     "older snapshot",
                     r->label, text);
}

static int cut_off(const struct file_reader *r)
{
    return error_set(SHD_CORRUPT,
                     "%.200s is cut off at byte %llu, in block %llu: its end "
                     "is missing; take another copy of it, or an older "
                     "snapshot",
                     r->label, (unsigned long long)r->at,
                     (unsigned long long)r->number);
}

static int foreign(const struct file_reader *r)
{
    return error_set(SHD_FOREIGN,
                     "%.200s is no snapshot of a segment: it does not begin "
                     "as one; `shdict save` makes them",
                     r->label);
}

static int header_accept(struct file_reader *r, const unsigned char *h,
                         size_t got)
{
    if (got < MAGIC_BYTES || memcmp(h, MAGIC, MAGIC_BYTES) != 0)
        return foreign(r);
    if (got < FILE_HEADER_BYTES)
        return cut_off(r);
    if (file_get(h + CHECKED_BYTES, 8) == hash_bytes(h, CHECKED_BYTES, 0) &&
        file_get(h + 16, 4) == FILE_VERSION &&
        file_get(h + 20, 4) == FILE_HEADER_BYTES) {
        r->seed = file_get(h + 24, 8);
        r->saved_ms = file_get(h + 32, 8);
        return SHD_OK;
    }
    /* A later one may have its checksum elsewhere. */
    if (file_get(h + 16, 4) > FILE_VERSION && file_get(h + 16, 4) < 1000)
        return error_set(SHD_LAYOUT,
                         "%.200s is a snapshot of version %llu, and this "
                         "shdict knows those up to %u: use a newer one",
                         r->label, (unsigned long long)file_get(h + 16, 4),
                         FILE_VERSION);
    return file_damaged(r, "the checksum of its header is wrong");
}

static int begin(struct file_reader *r)
{
    unsigned char h[FILE_HEADER_BYTES] = {0};
    size_t got;
    int rc;

    r->block = malloc(FILE_BLOCK_HEAD_BYTES + FILE_BLOCK_MAX);
    if (r->block == NULL)
        return error_set(SHD_NOMEM, "no memory for a block");
    rc = read_some(r, h, sizeof(h), &got);
    return rc == SHD_OK ? header_accept(r, h, got) : rc;
}

static int open_for_reading(struct file_reader *r, const char *path)
{
    struct stat st;

    r->fd = descriptor_of(path);
    r->is_ours = r->fd < 0;
    if (r->is_ours)
        r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (r->fd < 0 && errno == ENOENT)
        return error_set(SHD_NOTFOUND, "there is no file %.200s", path);
    if (r->fd < 0)
        return error_errno("opening %.200s", path);
    if (fstat(r->fd, &st) != 0)
        return error_errno("fstat of %.200s", path);
    if (S_ISDIR(st.st_mode))
        return error_set(SHD_FOREIGN, "%.200s is a directory", path);
    r->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    return SHD_OK;
}

int file_reader_begin(struct file_reader *r, const char *path)
{
    int rc = path_check(path);

    memset(r, 0, sizeof(*r));
    r->fd = -1;
    if (rc != SHD_OK)
        return rc;
    snprintf(r->label, sizeof(r->label), "%s", path);
    rc = open_for_reading(r, path);
    return rc == SHD_OK ? begin(r) : rc;
}

int file_reader_begin_memory(struct file_reader *r, const void *bytes,
                             size_t size)
{
    memset(r, 0, sizeof(*r));
    r->fd = -1;
    r->memory = bytes;
    r->memory_left = size;
    r->size = size;
    snprintf(r->label, sizeof(r->label), "the snapshot");
    return begin(r);
}

static int block_damaged(const struct file_reader *r, uint64_t at)
{
    return file_damaged(r, "block %llu, at byte %llu, is not what was written",
                        (unsigned long long)r->number,
                        (unsigned long long)at);
}

static int block_in(struct file_reader *r)
{
    unsigned char *b = r->block;
    uint64_t at = r->at;
    size_t got;
    uint32_t len;
    int rc = read_some(r, b, FILE_BLOCK_HEAD_BYTES, &got);

    if (rc != SHD_OK)
        return rc;
    if (got < FILE_BLOCK_HEAD_BYTES)
        return cut_off(r);
    len = (uint32_t)file_get(b + 12, 4);
    if (file_get(b + 8, 4) != BLOCK_MAGIC || len == 0 ||
        len > FILE_BLOCK_MAX || file_get(b + 16, 8) != r->number)
        return block_damaged(r, at);
    rc = read_some(r, b + FILE_BLOCK_HEAD_BYTES, len, &got);
    if (rc != SHD_OK)
        return rc;
    if (got < len)
        return cut_off(r);
    if (file_get(b, 8) !=
        hash_bytes(b + 8, FILE_BLOCK_HEAD_BYTES - 8 + len, r->seed))
        return block_damaged(r, at);
    r->number++;
    r->used = 0;
    r->len = len;
    return SHD_OK;
}

int file_read(struct file_reader *r, void *to, size_t len)
{
    unsigned char *p = to;

    while (len > 0) {
        size_t n = r->len - r->used;
        int rc = n == 0 ? block_in(r) : SHD_OK;

        if (rc != SHD_OK)
            return rc;
        n = r->len - r->used;
        if (n > len)
            n = len;
        memcpy(p, r->block + FILE_BLOCK_HEAD_BYTES + r->used, n);
        r->used += (uint32_t)n;
        p += n;
        len -= n;
    }
    return SHD_OK;
}

int file_reader_finish(struct file_reader *r)
{
    unsigned char more;
    size_t got;
    int rc;

    if (r->used != r->len)
        return file_damaged(r, "there is something after its end");
    /* A pipe may go on: what comes is not the snapshot's. */
    if (!r->is_ours && r->fd >= 0)
        return SHD_OK;
    rc = read_some(r, &more, 1, &got);
    if (rc == SHD_OK && got > 0)
        rc = file_damaged(r, "there is something after its end");
    return rc;
}

void file_reader_end(struct file_reader *r)
{
    if (r->is_ours && r->fd >= 0)
        close_quietly(r->fd);
    r->fd = -1;
    free(r->block);
    r->block = NULL;
}
