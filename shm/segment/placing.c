/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/segment/placing.h"
#include "shm/base/atomic.h"
#include "shm/base/error.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define SMALL_BYTES 4096u
/* Nodes a kernel may know: its largest CONFIG_NODES_SHIFT is 10. */
#define NODES_MAX 1024u
#define NODE_WORDS (NODES_MAX / (8u * (unsigned)sizeof(unsigned long)))

void *placing_map(size_t size, int protection, int flags, int fd)
{
    uint64_t more = PLACING_HUGE_BYTES;
    unsigned char *all, *at;
    void *p;

    all = mmap(NULL, size + more, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return MAP_FAILED;
    at = all + (more - (uintptr_t)all % more) % more;
    p = mmap(at, size, protection, flags | MAP_FIXED, fd, 0);
    /* Cutting off both ends of a mapping of our own cannot fail, but for the
     * limit of mappings; then address space is lost, and nothing else. */
    if (p == MAP_FAILED) {
        int saved = errno;

        (void)munmap(all, size + more);
        errno = saved;
        return MAP_FAILED;
    }
    if (at > all)
        (void)munmap(all, (size_t)(at - all));
    (void)munmap(at + size, (size_t)(all + more - at));
    /* For what is not put there by placing_collapse; refused where the kernel
     * has no huge pages. */
    (void)madvise(p, size, MADV_HUGEPAGE);
    return p;
}

void placing_collapse(unsigned char *base, uint64_t at, uint64_t len)
{
    uint64_t first = at & ~(PLACING_HUGE_BYTES - 1);
    uint64_t end = (at + len) & ~(PLACING_HUGE_BYTES - 1);
    int saved = errno;

    if (end > first)
        (void)madvise(base + first, (size_t)(end - first), MADV_COLLAPSE);
    errno = saved;
}

/* A mapping's line of smaps that counts bytes in huge pages, kB. */
static uint64_t huge_kb(const char *line)
{
    unsigned long long kb;

    return sscanf(line, "ShmemPmdMapped: %llu kB", &kb) == 1 ||
                   sscanf(line, "FilePmdMapped: %llu kB", &kb) == 1
               ? kb
               : 0;
}

uint64_t placing_huge_bytes(const unsigned char *base, uint64_t size)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    unsigned long long from, to;
    bool inside = false;
    uint64_t bytes = 0;
    char line[512];

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
            inside = from >= (uintptr_t)base && to <= (uintptr_t)base + size;
        else if (inside)
            bytes += huge_kb(line) * 1024;
    }
    if (f != NULL)
        (void)fclose(f); /* read only */
    return bytes;
}

int placing_interleave(unsigned char *base, uint64_t size)
{
    unsigned long nodes[NODE_WORDS] = {0};

    if (syscall(SYS_get_mempolicy, NULL, nodes, NODES_MAX, NULL,
                MPOL_F_MEMS_ALLOWED) == 0 &&
        syscall(SYS_mbind, base, size, MPOL_INTERLEAVE, nodes, NODES_MAX, 0) ==
            0)
        return SHD_OK;
    if (errno == ENOSYS)
        return error_set(SHD_UNSUPPORTED,
                         "this kernel cannot interleave memory over nodes");
    if (errno == EPERM)
        return error_set(SHD_PERM,
                         "mbind is forbidden here (a container's filter of "
                         "system calls?): do without interleave");
    return error_errno("interleaving the segment's memory over nodes");
}

void placing_prefault(unsigned char *from, uint64_t len)
{
    uint64_t before = (uintptr_t)from % SMALL_BYTES;
    int saved = errno;

    from -= before;
    len += before;
    if (madvise(from, (size_t)len, MADV_POPULATE_WRITE) != 0 &&
        errno == EINVAL) {
        /* An older kernel: reading maps a page just as well. */
        for (uint64_t at = 0; at < len; at += SMALL_BYTES)
            (void)atomic_load8(from + at);
    }
    errno = saved;
}
