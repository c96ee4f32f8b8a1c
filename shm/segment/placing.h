/* SPDX-License-Identifier: BSD-2-Clause */
/* segment/placing.h - which memory a segment gets: huge pages, all nodes.
 *
 * OWNS   nothing: it advises the system about a mapping.
 * HOLDS  no promise: what the system does not offer is left out, and the
 *        functions say what was got.
 * LOCK   none.
 * CRASH  advice changes no byte of the segment.
 *
 * The system calls are made directly: libnuma would be one more library in
 * every process that uses this one, for two calls.
 */
#ifndef SHD_SEGMENT_PLACING_H
#define SHD_SEGMENT_PLACING_H

#include <stddef.h>
#include <stdint.h>

#define PLACING_HUGE_BYTES (2ull << 20)

/* As mmap of a descriptor at an address that huge pages can be mapped at:
 * a multiple of their size. MAP_FAILED and errno. */
void *placing_map(size_t size, int protection, int flags, int fd);

/* Puts what is committed of bytes at..at+len of a mapping made so into huge
 * pages, block by block that ends in the range. Works on tmpfs however it is
 * mounted, since Linux 6.1; elsewhere nothing happens. What was not committed
 * of a block is, then. */
void placing_collapse(unsigned char *base, uint64_t at, uint64_t len);

/* Bytes of base..base+size that are mapped in huge pages just now, in this
 * process. */
uint64_t placing_huge_bytes(const unsigned char *base, uint64_t size);

/* Memory that is taken from now on, by whichever process, comes from all
 * nodes in turn that this process may use. SHD_UNSUPPORTED, SHD_PERM,
 * SHD_SYS. */
int placing_interleave(unsigned char *base, uint64_t size);

/* Maps the committed range into this process, ready to be written to. */
void placing_prefault(unsigned char *from, uint64_t len);

#endif
