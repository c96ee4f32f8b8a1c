/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/file.h"

#include <stdlib.h>
#include <string.h>

#include "shm/base/hash.h"

#define SEED 0x5eedull

void file_append(struct record_buffer *to, const void *from, size_t len)
{
    unsigned char *p = record_room(to, len);

    if (p == NULL)
        abort();
    if (len > 0)
        memcpy(p, from, len);
}

void file_around(struct record_buffer *to, const unsigned char *stream,
                 size_t size, uint32_t block)
{
    unsigned char h[FILE_HEADER_BYTES] = "shdict snapshot\n";
    uint64_t number = 0;

    file_put(h + 16, FILE_VERSION, 4);
    file_put(h + 20, FILE_HEADER_BYTES, 4);
    file_put(h + 24, SEED, 8);
    file_put(h + 32, 1000000500 - 5000, 8);
    file_put(h + 56, hash_bytes(h, 56, 0), 8);
    file_append(to, h, sizeof(h));
    while (size > 0) {
        uint32_t len = size < block ? (uint32_t)size : block;
        unsigned char *b;

        file_append(to, h, FILE_BLOCK_HEAD_BYTES);
        file_append(to, stream, len);
        b = to->bytes + to->used - len - FILE_BLOCK_HEAD_BYTES;
        memcpy(b + 8, "SHDB", 4);
        file_put(b + 12, len, 4);
        file_put(b + 16, number++, 8);
        file_put(b, hash_bytes(b + 8, FILE_BLOCK_HEAD_BYTES - 8 + len, SEED),
                 8);
        stream += len;
        size -= len;
    }
}
