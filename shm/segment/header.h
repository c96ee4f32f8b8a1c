/* SPDX-License-Identifier: BSD-2-Clause */
/* segment/header.h - the first page of the file: written once, then input.
 *
 * OWNS   the constant words of struct segment_header.
 * HOLDS  a header that is accepted describes a file of exactly its size, with
 *        every part inside it, made by the same layout on this boot.
 * LOCK   none: it works on private copies.
 */
#ifndef SHD_SEGMENT_HEADER_H
#define SHD_SEGMENT_HEADER_H

#include "shm/segment/segment.h"

#define SEGMENT_WORKERS_DEFAULT 1024u
#define SEGMENT_OBJECTS_DEFAULT 256u
#define SEGMENT_LOCKS_DEFAULT 4096u
#define SEGMENT_COUNT_MAX 65535u
#define SEGMENT_LOCKS_MIN 3u /* Where the counters are: behind the workers. */
uint64_t header_counters_at(uint64_t workers_at, uint32_t workers_max);

/* two of the segment's own, and one to use */

/* The options' own limits, whatever is done with them. NULL is all defaults.
 * SHD_INVAL. */
int header_options_check(const struct shd_segment_options *o);

/* A fresh header for these options. SHD_INVAL, SHD_UNSUPPORTED (no /proc),
 * SHD_SYS. */
int header_fill(struct segment_header *h, const struct shd_segment_options *o,
                uint64_t fingerprint);

/* May a file of file_bytes with this header be attached? SHD_FOREIGN,
 * SHD_ENDIAN, SHD_LAYOUT, SHD_CORRUPT, and SHD_NAMESPACE if writable; each
 * with the sentence, in which the segment is called `label`. */
int header_accept(const struct segment_header *h, uint64_t file_bytes,
                  uint64_t fingerprint, bool writable, const char *label);

/* Does it start like a segment of any layout and byte order? */
bool header_is_ours(const struct segment_header *h);

/* The inode of this process's pid namespace. */
int header_pid_namespace(uint64_t *inode);

/* Where the parts must lie, and that they fit. report names what fails. */
int header_parts_check(const struct segment_header *h, char *report,
                       size_t size);

#endif
