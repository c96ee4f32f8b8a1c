/* SPDX-License-Identifier: BSD-2-Clause */
/* segment/name.h - what a segment's name means.
 *
 * OWNS   nothing; the rules are under NAMES in shdict.h.
 * HOLDS  a name that parses is a path of at most 255 bytes whose last part is
 *        a file's, or a descriptor's number.
 */
#ifndef SHD_SEGMENT_NAME_H
#define SHD_SEGMENT_NAME_H

#include <stdbool.h>

#define NAME_PATH_BYTES 256
#define NAME_TMPFS_DIRECTORY "/dev/shm"
#define NAME_PREFIX "shdict-"

struct segment_name {
    int fd;        /* "fd:N": N; else -1 */
    bool in_tmpfs; /* a plain name: a file in NAME_TMPFS_DIRECTORY */
    char path[NAME_PATH_BYTES];      /* "" for a descriptor */
    char directory[NAME_PATH_BYTES]; /* where the file lies */
};

/* SHD_OK, or SHD_NAME with the reason. */
int name_parse(const char *name, struct segment_name *out);

#endif
