/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/segment/header.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define CACHE_LINE 64u
#define MODE_MASK 0777u
#define FLAGS_KNOWN                                                           \
    (uint32_t)(SHD_ATTACH_READONLY | SHD_DUMPABLE | SHD_ATTACH_HELD |         \
               SHD_HUGE_PAGES | SHD_PREFAULT | SHD_INTERLEAVE |                   \
               SHD_GUARD_PAGES | SHD_WRITE_PROTECT)

struct parts {
    uint64_t guards_at, catalogue_at, workers_at, extents_at;
};

static uint64_t round_to_page(uint64_t bytes)
{
    return (bytes + SEGMENT_PAGE - 1) & ~(uint64_t)(SEGMENT_PAGE - 1);
}

uint64_t header_counters_at(uint64_t workers_at, uint32_t workers_max)
{
    return workers_at +
           round_to_page((uint64_t)workers_max * SEGMENT_WORKER_BYTES);
}

/* The one place that knows the order of the parts. */
static struct parts parts_of(uint32_t workers, uint32_t objects,
                             uint32_t locks)
{
    struct parts p;

    p.guards_at = sizeof(struct segment_header);
    p.catalogue_at = p.guards_at + (uint64_t)locks * SEGMENT_GUARD_BYTES;
    p.workers_at = p.catalogue_at +
                   round_to_page((uint64_t)objects * SEGMENT_OBJECT_BYTES);
    p.extents_at = header_counters_at(p.workers_at, workers) +
                   (uint64_t)locks * SEGMENT_COUNTERS_BYTES;
    return p;
}

/* Everything that must be the same in two programs that share a segment. */
static uint64_t whole_fingerprint(uint64_t above)
{
    uint64_t sizes[] = {CACHE_LINE,
                        sizeof(struct segment_header),
                        SEGMENT_GUARD_BYTES,
                        SEGMENT_OBJECT_BYTES,
                        SEGMENT_WORKER_BYTES,
                        sizeof(void *),
                        above};

    return hash_bytes(sizes, sizeof(sizes), SEGMENT_LAYOUT_VERSION);
}

int header_pid_namespace(uint64_t *inode)
{
    struct stat st;

    if (stat("/proc/self/ns/pid", &st) != 0)
        return errno == ENOMEM
                   ? error_errno("looking at /proc/self/ns/pid")
                   : error_set(SHD_UNSUPPORTED,
                               "/proc/self/ns/pid: %s; mount /proc",
                               strerror(errno));
    *inode = st.st_ino;
    return SHD_OK;
}

/* Text, padded with zeroes; all zeroes where the kernel does not tell. */
static void read_boot_id(uint8_t id[40])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;

    memset(id, 0, 40);
    if (fd >= 0) {
        n = read(fd, id, 39);
        (void)close(fd);
    }
    if (n <= 0)
        memset(id, 0, 40);
    for (int i = 0; i < 40; i++)
        if (id[i] == '\n')
            id[i] = 0;
}

static int seed(uint64_t *out)
{
    ssize_t n;

    do {
        n = getrandom(out, sizeof(*out), 0);
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(*out))
        return error_errno("getrandom");
    return SHD_OK;
}

int header_options_check(const struct shd_segment_options *o)
{
    if (o == NULL)
        return SHD_OK;
    if (o->struct_size != sizeof(*o))
        return error_set(SHD_INVAL,
                         "options: struct_size is %u, this library's is %zu",
                         o->struct_size, sizeof(*o));
    if ((o->flags & ~FLAGS_KNOWN) != 0)
        return error_set(SHD_INVAL, "options: unknown flags 0x%x",
                         o->flags & ~FLAGS_KNOWN);
    if ((o->flags & SHD_ATTACH_HELD) != 0 &&
        (o->flags & SHD_ATTACH_READONLY) != 0)
        return error_set(SHD_INVAL, "options: SHD_ATTACH_HELD finds what is "
                                    "attached read-write, not read-only");
    if (o->reserved != 0)
        return error_set(SHD_INVAL, "options: reserved is not 0");
    if ((o->mode & ~MODE_MASK) != 0)
        return error_set(SHD_INVAL, "options: mode 0%o has bits over 0777",
                         o->mode);
    if (o->size_bytes > SEGMENT_SIZE_MAX)
        return error_set(SHD_INVAL, "options: size_bytes %llu is over 64 GiB",
                         (unsigned long long)o->size_bytes);
    if (o->workers_max > SEGMENT_COUNT_MAX)
        return error_set(SHD_INVAL, "options: workers_max %u is over %u",
                         o->workers_max, SEGMENT_COUNT_MAX);
    if (o->objects_max > SEGMENT_COUNT_MAX)
        return error_set(SHD_INVAL, "options: objects_max %u is over %u",
                         o->objects_max, SEGMENT_COUNT_MAX);
    if (o->locks_max > SEGMENT_COUNT_MAX ||
        (o->locks_max != 0 && o->locks_max < SEGMENT_LOCKS_MIN))
        return error_set(SHD_INVAL, "options: locks_max %u is not in %u..%u",
                         o->locks_max, SEGMENT_LOCKS_MIN, SEGMENT_COUNT_MAX);
    if (o->worker_id < -1)
        return error_set(SHD_INVAL, "options: worker_id %d is below -1",
                         o->worker_id);
    if (o->worker_name != NULL && strlen(o->worker_name) > 31)
        return error_set(SHD_INVAL,
                         "options: worker_name has %zu bytes, at most 31 are "
                         "allowed",
                         strlen(o->worker_name));
    return SHD_OK;
}

int header_fill(struct segment_header *h, const struct shd_segment_options *o,
                uint64_t fingerprint)
{
    static const struct shd_segment_options defaults;
    struct parts p;
    uint64_t room;
    int rc;

    if (o == NULL)
        o = &defaults;
    memset(h, 0, sizeof(*h));
    h->magic = SEGMENT_MAGIC;
    h->byte_order = SEGMENT_BYTE_ORDER;
    h->layout_version = SEGMENT_LAYOUT_VERSION;
    h->fingerprint = whole_fingerprint(fingerprint);
    h->created_ms = clock_wall_ms();
    h->workers_max = o->workers_max ? o->workers_max : SEGMENT_WORKERS_DEFAULT;
    h->objects_max = o->objects_max ? o->objects_max : SEGMENT_OBJECTS_DEFAULT;
    h->locks_max = o->locks_max ? o->locks_max : SEGMENT_LOCKS_DEFAULT;
    p = parts_of(h->workers_max, h->objects_max, h->locks_max);
    h->guards_at = p.guards_at;
    h->catalogue_at = p.catalogue_at;
    h->workers_at = p.workers_at;
    h->extents_at = p.extents_at;
    /* The tables come on top of the room that was asked for, so that a small
     * segment need not count its locks. */
    room = o->size_bytes ? o->size_bytes : SEGMENT_SIZE_MAX;
    room = p.extents_at + round_to_page(room);
    h->size_bytes = room < SEGMENT_SIZE_MAX ? room : SEGMENT_SIZE_MAX;
    read_boot_id(h->boot_id);
    rc = header_pid_namespace(&h->pid_namespace);
    if (rc == SHD_OK)
        rc = seed(&h->hash_seed);
    return rc;
}

bool header_is_ours(const struct segment_header *h)
{
    return h->magic == SEGMENT_MAGIC ||
           h->magic == __builtin_bswap64(SEGMENT_MAGIC);
}

int header_parts_check(const struct segment_header *h, char *report,
                       size_t size)
{
    struct parts p;
    const char *what = NULL;

    if (h->workers_max == 0 || h->workers_max > SEGMENT_COUNT_MAX)
        what = "workers_max";
    else if (h->objects_max == 0 || h->objects_max > SEGMENT_COUNT_MAX)
        what = "objects_max";
    else if (h->locks_max < SEGMENT_LOCKS_MIN ||
             h->locks_max > SEGMENT_COUNT_MAX)
        what = "locks_max";
    else if (h->size_bytes > SEGMENT_SIZE_MAX ||
             h->size_bytes % SEGMENT_PAGE != 0)
        what = "size_bytes";
    if (what == NULL) {
        p = parts_of(h->workers_max, h->objects_max, h->locks_max);
        if (h->guards_at != p.guards_at)
            what = "guards_at";
        else if (h->catalogue_at != p.catalogue_at)
            what = "catalogue_at";
        else if (h->workers_at != p.workers_at)
            what = "workers_at";
        else if (h->extents_at != p.extents_at)
            what = "extents_at";
        else if (h->extents_at > h->size_bytes)
            what = "size_bytes";
    }
    if (what == NULL)
        return SHD_OK;
    snprintf(report, size, "header: %s is out of its range", what);
    return SHD_CORRUPT;
}

static int accept_layout(const struct segment_header *h, uint64_t fingerprint,
                         const char *label)
{
    uint64_t ours = whole_fingerprint(fingerprint);
    uint8_t boot_id[40];

    if (h->layout_version != SEGMENT_LAYOUT_VERSION)
        return error_set(SHD_LAYOUT,
                         "%s has layout version %u, this library's is %u: "
                         "use the library that made it, or remove it",
                         label, h->layout_version, SEGMENT_LAYOUT_VERSION);
    if (h->fingerprint != ours)
        return error_set(SHD_LAYOUT,
                         "%s has layout fingerprint %016llx, this library's "
                         "is %016llx: sizes of shared structs differ; use the "
                         "build that made it, or remove it",
                         label, (unsigned long long)h->fingerprint,
                         (unsigned long long)ours);
    read_boot_id(boot_id);
    if (boot_id[0] != 0 && h->boot_id[0] != 0 &&
        memcmp(boot_id, h->boot_id, sizeof(boot_id)) != 0)
        return error_set(SHD_LAYOUT,
                         "%s was made before the last reboot (boot id "
                         "%.36s, now %.36s), its locks and times mean "
                         "nothing now: remove it",
                         label, (const char *)h->boot_id,
                         (const char *)boot_id);
    return SHD_OK;
}

static int accept_namespace(const struct segment_header *h, const char *label)
{
    uint64_t ours = 0;
    int rc = header_pid_namespace(&ours);

    if (rc != SHD_OK)
        return rc;
    if (h->pid_namespace != ours)
        return error_set(SHD_NAMESPACE,
                         "%s belongs to pid namespace %llu, this process is "
                         "in %llu: lock owners would be mistaken; run it in "
                         "the same pid namespace, or attach read-only",
                         label, (unsigned long long)h->pid_namespace,
                         (unsigned long long)ours);
    return SHD_OK;
}

int header_accept(const struct segment_header *h, uint64_t file_bytes,
                  uint64_t fingerprint, bool writable, const char *label)
{
    char report[80];
    int rc;

    if (!header_is_ours(h))
        return error_set(SHD_FOREIGN, "%s is not a shdict segment", label);
    if (h->magic != SEGMENT_MAGIC || h->byte_order != SEGMENT_BYTE_ORDER)
        return error_set(SHD_ENDIAN,
                         "%s was made on a machine of another byte order",
                         label);
    rc = accept_layout(h, fingerprint, label);
    if (rc != SHD_OK)
        return rc;
    if (h->size_bytes != file_bytes)
        return error_set(SHD_FOREIGN,
                         "%s is truncated or was resized: it has %llu bytes, "
                         "its header says %llu; remove it",
                         label, (unsigned long long)file_bytes,
                         (unsigned long long)h->size_bytes);
    if (header_parts_check(h, report, sizeof(report)) != SHD_OK)
        return error_set(SHD_CORRUPT, "%s: %s", label, report);
    return writable ? accept_namespace(h, label) : SHD_OK;
}
