/* SPDX-License-Identifier: BSD-2-Clause */
/* keep/file.h - a stream of bytes in a file, in blocks that carry checksums.
 *
 * OWNS   the file's layout; nothing of what is in the stream (keep/record.h).
 * HOLDS  what a reader gives has been checked: it was written by file_write,
 *        in this order, into this file. No length of a file makes it take
 *        memory, or read, beyond one block.
 * LOCK   none: private memory and a descriptor.
 * CRASH  a file that is being written has no name, or a temporary one; it gets
 *        its own only whole and on the disk (fsync), and till then what was
 *        there under that name stays.
 *
 * LAYOUT, all numbers little-endian:
 *   header  64 bytes
 *      0  "shdict snapshot\n"
 *     16  u32 version, 1
 *     20  u32 bytes of the header, 64
 *     24  u64 a random number: the seed of all checksums, so that a block of
 *             another file is no block of this one
 *     32  u64 wall clock of the beginning, ms since 1970
 *     40  zeroes
 *     56  u64 XXH3 of the 56 bytes before
 *   blocks  of 24 bytes and up to FILE_BLOCK_MAX of the stream
 *      0  u64 seeded XXH3 of all that follows in the block
 *      8  u32 "SHDB"
 *     12  u32 bytes of the stream in it
 *     16  u64 its number, from 0
 *   The stream says by itself where it ends; after that there is nothing.
 */
#ifndef SHD_KEEP_FILE_H
#define SHD_KEEP_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/shdict.h"

#define FILE_VERSION 1u
#define FILE_HEADER_BYTES 64u
#define FILE_BLOCK_HEAD_BYTES 24u
#define FILE_BLOCK_MAX (256u << 10)
#define FILE_PATH_BYTES 4096u

/* ---- numbers ----------------------------------------------------------- */

static inline void file_put(unsigned char *to, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (unsigned char)(v >> 8 * i);
}

static inline uint64_t file_get(const unsigned char *from, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)from[i] << 8 * i;
    return v;
}

/* ---- writing ----------------------------------------------------------- */

struct file_writer {
    int fd;
    bool is_ours;  /* opened here; else the caller's descriptor */
    uint64_t seed;
    uint64_t number; /* of the next block */
    uint64_t bytes;  /* in the file so far */
    uint32_t used;   /* bytes of the stream in the block */
    unsigned char *block;
    char path[FILE_PATH_BYTES];
    char temp[FILE_PATH_BYTES]; /* "": the file has no name yet */
};

/* Begins a file that is to have that path; "fd:N" writes to a descriptor,
 * which stays the caller's. file_writer_end in any case. */
int file_writer_begin(struct file_writer *w, const char *path,
                      uint64_t saved_ms);
int file_write(struct file_writer *w, const void *bytes, size_t len);

/* The last block, and the file's name. */
int file_writer_finish(struct file_writer *w);

/* Nothing is left of a file that was not finished. */
void file_writer_end(struct file_writer *w);

/* ---- reading ----------------------------------------------------------- */

struct file_reader {
    int fd; /* -1: from memory */
    bool is_ours;
    const unsigned char *memory;
    size_t memory_left;
    uint64_t seed, saved_ms;
    uint64_t number; /* of the next block */
    uint64_t at;     /* bytes of the file read so far */
    uint64_t size;   /* of the file; 0: not known */
    uint32_t used, len; /* of the block's bytes of the stream */
    unsigned char *block;
    char label[256];
};

/* Reads the header. SHD_NOTFOUND, SHD_PERM, SHD_SYS; SHD_FOREIGN: no snapshot;
 * SHD_LAYOUT: of a later version; SHD_CORRUPT: damaged, or cut off. Each with a
 * sentence that says what is wrong and what to do. file_reader_end in any
 * case. */
int file_reader_begin(struct file_reader *r, const char *path);
int file_reader_begin_memory(struct file_reader *r, const void *bytes,
                             size_t size);

/* The next len bytes of the stream. SHD_CORRUPT, SHD_SYS. */
int file_read(struct file_reader *r, void *to, size_t len);

/* Is there nothing more, in the block and after it? SHD_CORRUPT. */
int file_reader_finish(struct file_reader *r);

/* SHD_CORRUPT, with a sentence that begins with the file's name and says what
 * to do. */
int file_damaged(const struct file_reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void file_reader_end(struct file_reader *r);

#endif
