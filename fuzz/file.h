/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/file.h - a snapshot's file around any stream of records: its header, and
 * blocks whose checksums are right. */
#ifndef SHD_FUZZ_FILE_H
#define SHD_FUZZ_FILE_H

#include "shm/keep/record.h"

void file_append(struct record_buffer *to, const void *from, size_t len);
void file_around(struct record_buffer *to, const unsigned char *stream,
                 size_t size, uint32_t block);

#endif
