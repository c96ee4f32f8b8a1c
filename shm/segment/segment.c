/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a segment comes into being:
 *
 *   O_TMPFILE in the directory     no name yet: death leaves nothing
 *   fallocate header and tables    a full file system is an error, not SIGBUS
 *   header, guards, tables         through the mapping
 *   linkat                         now, and only whole, it has its name
 *
 * Where a file system knows no O_TMPFILE, a temporary name is renamed, which
 * must not replace (RENAME_NOREPLACE).
 *
 * How one is attached: O_PATH first, so that looking at a device or a pipe
 * that lies there by accident does nothing to it; then the descriptor is
 * opened through /proc, which gives this process a file description of its
 * own also when the name is a descriptor inherited from somebody. (What is
 * mapped is one more: see map().) The header
 * is read into private memory and judged there before anything is mapped.
 */
#include "shm/segment/segment.h"
#include "shm/base/error.h"
#include "shm/segment/header.h"
#include "shm/segment/name.h"
#include "shm/segment/placing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODE_DEFAULT 0600u
#define LIVENESS_AT                                                           \
    (1ll << 40) /* beyond any file's end: 16 segments' sizes                  \
                 */
#define SUPERVISION_BYTE 65536
#define LINK_BYTES 32

/* "/proc/self/fd/N", without stdio: it runs between fork and the child. */
static void descriptor_link(int fd, char link[LINK_BYTES])
{
    static const char prefix[] = "/proc/self/fd/";
    char digits[12];
    size_t n = 0, at = sizeof(prefix) - 1;
    unsigned v = (unsigned)fd;

    do {
        digits[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    memcpy(link, prefix, at);
    while (n > 0)
        link[at++] = digits[--n];
    link[at] = '\0';
}

static void close_quietly(int fd)
{
    int saved = errno;

    /* Nothing is written through descriptors: nothing to lose. */
    if (fd >= 0)
        (void)close(fd);
    errno = saved;
}

/* ---- creating --------------------------------------------------------- */

static int open_with_temp_name(struct segment_birth *b)
{
    for (int i = 0; i < 100; i++) {
        uint64_t r;

        if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
            continue;
        snprintf(b->temp, sizeof(b->temp), "%s.new-%016llx", b->path,
                 (unsigned long long)r);
        b->fd =
            open(b->temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                 MODE_DEFAULT);
        if (b->fd >= 0)
            return SHD_OK;
        if (errno != EEXIST)
            break;
    }
    int rc = error_errno("creating %s", b->path);

    b->temp[0] = '\0';
    return rc;
}

static int open_named(struct segment_birth *b, const char *directory,
                      bool must_be_new)
{
    struct stat st;

    if (must_be_new && lstat(b->path, &st) == 0)
        return error_set(SHD_EXISTS, "%s exists", b->path);
    b->fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, MODE_DEFAULT);
    if (b->fd >= 0)
        return SHD_OK;
    if (errno == EOPNOTSUPP || errno == EISDIR)
        return open_with_temp_name(b);
    return error_errno("creating %s", b->path);
}

static int open_building(struct segment_birth *b, const struct segment_name *n,
                         bool must_be_new)
{
    if (n != NULL) {
        memcpy(b->path, n->path, sizeof(b->path));
        return open_named(b, n->directory, must_be_new);
    }
    b->fd = memfd_create("shdict", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (b->fd < 0)
        return error_errno("memfd_create");
    return SHD_OK;
}

/* A descriptor's holder may always open it; so an anonymous file keeps its
 * mode unless one was asked for. */
static int set_mode(const struct segment_birth *b, uint32_t mode)
{
    if (mode == 0 && !b->named)
        return SHD_OK;
    if (fchmod(b->fd, mode ? mode : MODE_DEFAULT) != 0)
        return error_errno("setting the mode of the new segment");
    return SHD_OK;
}

static int set_size(const struct segment_birth *b, uint64_t bytes)
{
    struct rlimit limit;

    /* Over the limit ftruncate raises SIGXFSZ, which kills. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes > limit.rlim_cur)
        return error_set(SHD_NOMEM,
                         "a file of %llu bytes is over the limit of file "
                         "sizes (ulimit -f): raise it, or give a smaller "
                         "size_bytes",
                         (unsigned long long)bytes);
    if (ftruncate(b->fd, (off_t)bytes) == 0)
        return SHD_OK;
    if (errno == EFBIG || errno == EINVAL)
        return error_set(SHD_UNSUPPORTED,
                         "the file system has no files of %llu bytes: give "
                         "a smaller size_bytes",
                         (unsigned long long)bytes);
    return error_errno("sizing the new segment to %llu bytes",
                       (unsigned long long)bytes);
}

/* What has no name at all gets a temporary one, to be renamed over another. */
static int link_temp(struct segment_birth *b, const char *link)
{
    uint64_t r;

    for (int i = 0; b->temp[0] == '\0' && i < 100; i++) {
        if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
            continue;
        snprintf(b->temp, sizeof(b->temp), "%s.new-%016llx", b->path,
                 (unsigned long long)r);
        if (linkat(AT_FDCWD, link, AT_FDCWD, b->temp, AT_SYMLINK_FOLLOW) == 0)
            return 0;
        b->temp[0] = '\0';
        if (errno != EEXIST)
            return -1;
    }
    return b->temp[0] == '\0' ? -1 : 0;
}

int segment_publish(struct segment_birth *b, bool replace)
{
    char link[LINK_BYTES];
    int rc = 0;

    if (!b->named) {
        /* Nobody who holds the descriptor can cut it under our feet, or seal
         * it against being written. */
        if (fcntl(b->fd, F_ADD_SEALS,
                  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
            return error_errno("sealing the size of the new segment");
        return SHD_OK;
    }
    descriptor_link(b->fd, link);
    if (replace)
        rc = link_temp(b, link);
    if (rc == 0 && b->temp[0] == '\0')
        rc = linkat(AT_FDCWD, link, AT_FDCWD, b->path, AT_SYMLINK_FOLLOW);
    else if (rc == 0)
        rc = renameat2(AT_FDCWD, b->temp, AT_FDCWD, b->path,
                       replace ? 0 : RENAME_NOREPLACE);
    if (rc == 0) {
        b->temp[0] = '\0';
        return SHD_OK;
    }
    if (errno == EEXIST)
        return error_set(SHD_EXISTS, "%s exists", b->path);
    return error_errno("giving %s its name", b->path);
}

void segment_abandon(struct segment_birth *b)
{
    if (b->temp[0] != '\0')
        (void)unlink(b->temp); /* best effort; the error is reported already */
    b->temp[0] = '\0';
}

/* ---- both ------------------------------------------------------------- */

static int reopen(int fd, bool writable, const char *label, int *out)
{
    char link[LINK_BYTES];

    descriptor_link(fd, link);
    *out = open(link, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY);
    if (*out >= 0)
        return SHD_OK;
    if (errno == ENOENT)
        return error_set(SHD_UNSUPPORTED, "%s does not exist: mount /proc",
                         link);
    if (errno == EROFS)
        return error_set(SHD_SYS,
                         "%s is on a read-only file system: attach it "
                         "read-only",
                         label);
    if (errno == EACCES || errno == EPERM)
        return error_set(SHD_PERM, "%s: its mode does not let this user %s",
                         label,
                         writable ? "write (attach it read-only?)" : "read");
    return error_errno("opening %s", label);
}

/* In the middle of address space that nobody may touch. */
static void *map_guarded(struct segment *s, int protection, int kind, int fd)
{
    const uint64_t align = PLACING_HUGE_BYTES;
    uint64_t bytes = s->size + 3 * align;
    unsigned char *room = mmap(NULL, bytes, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                               0);
    unsigned char *at;
    void *p;

    if (room == MAP_FAILED)
        return MAP_FAILED;
    at = room + align + (align - (uintptr_t)room % align) % align;
    p = mmap(at, s->size, protection, kind | MAP_FIXED, fd, 0);
    if (p == MAP_FAILED) {
        int saved = errno;

        (void)munmap(room, bytes);
        errno = saved;
        return MAP_FAILED;
    }
    if (s->huge)
        (void)madvise(p, s->size, MADV_HUGEPAGE);
    s->room = room;
    s->room_bytes = bytes;
    return p;
}

static bool wants_guard_pages(uint32_t flags)
{
    const char *asked = getenv("SHDICT_GUARD_PAGES");

    return (flags & SHD_GUARD_PAGES) != 0 ||
           (asked != NULL && strcmp(asked, "1") == 0);
}

/* A mapping keeps its file description, and that its file locks, and children
 * inherit mappings: so the one that is mapped is not the one that is locked,
 * or a dead worker would live on in its children. */
static int map(struct segment *s, uint32_t flags, const char *label)
{
    int protection = s->writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int kind = MAP_NORESERVE | (s->writable ? MAP_SHARED : MAP_PRIVATE);
    int fd = -1;
    int rc = reopen(s->fd, s->writable, label, &fd);
    void *p;

    if (rc != SHD_OK)
        return rc;
    /* Private pages of what is only read follow the file until they are
     * written to, which guard/undone.c does with a few of them. */
    s->huge = s->writable && (flags & SHD_HUGE_PAGES) != 0;
    s->prefault = s->writable && (flags & SHD_PREFAULT) != 0;
    if (wants_guard_pages(flags))
        p = map_guarded(s, protection, kind, fd);
    else if (s->huge)
        p = placing_map(s->size, protection, kind, fd);
    else
        p = mmap(NULL, s->size, protection, kind, fd, 0);
    close_quietly(fd);
    if (p == MAP_FAILED && errno == ENOMEM)
        return error_set(SHD_NOMEM,
                         "no %llu bytes of address space: raise the limit "
                         "(ulimit -v), or create the segment with a smaller "
                         "size_bytes",
                         (unsigned long long)s->size);
    if (p == MAP_FAILED)
        return error_errno("mapping the segment");
    s->base = p;
    /* Refused, it makes core dumps larger and nothing else. */
    if ((flags & SHD_DUMPABLE) == 0)
        (void)madvise(p, s->size, MADV_DONTDUMP);
    return SHD_OK;
}

/* The private copies; h has been judged. */
static void take_over(struct segment *s, const struct segment_header *h)
{
    s->size = h->size_bytes;
    s->workers_max = h->workers_max;
    s->objects_max = h->objects_max;
    s->locks_max = h->locks_max;
    s->guards_at = h->guards_at;
    s->catalogue_at = h->catalogue_at;
    s->workers_at = h->workers_at;
    s->counters_at = header_counters_at(h->workers_at, h->workers_max);
    s->extents_at = h->extents_at;
    s->hash_seed = h->hash_seed;
}

static int identify(struct segment *s, const struct segment_name *n)
{
    struct stat st, named;
    char link[LINK_BYTES];
    ssize_t len;

    if (fstat(s->fd, &st) != 0)
        return error_errno("fstat of the segment");
    s->device = st.st_dev;
    s->inode = st.st_ino;
    s->path[0] = '\0';
    if (n != NULL && n->fd < 0) {
        memcpy(s->path, n->path, sizeof(s->path));
        return SHD_OK;
    }
    /* A descriptor's file may have a name all the same. */
    descriptor_link(s->fd, link);
    len = readlink(link, s->path, sizeof(s->path) - 1);
    if (len < 0)
        len = 0;
    s->path[len] = '\0';
    if (stat(s->path, &named) != 0 || named.st_dev != st.st_dev ||
        named.st_ino != st.st_ino)
        s->path[0] = '\0';
    return SHD_OK;
}

static int build(struct segment_birth *b, const struct segment_name *n,
                 const struct shd_segment_options *o,
                 const struct segment_header *h,
                 int (*initialize)(struct segment *s), struct segment *out)
{
    int rc = set_mode(b, o != NULL ? o->mode : 0);
    if (rc == SHD_OK)
        rc = set_size(b, h->size_bytes);
    if (rc != SHD_OK)
        return rc;
    out->fd = b->fd;
    out->writable = true;
    take_over(out, h);
    rc = identify(out, n);
    if (rc == SHD_OK)
        rc = segment_commit(out, 0, sizeof(*h));
    if (rc == SHD_OK)
        rc = segment_commit(out, out->catalogue_at,
                            out->counters_at - out->catalogue_at);
    if (rc == SHD_OK)
        rc = map(out, o != NULL ? o->flags : 0, "the new segment");
    if (rc == SHD_OK && o != NULL && (o->flags & SHD_INTERLEAVE) != 0)
        rc = placing_interleave(out->base, out->size);
    if (rc != SHD_OK)
        return rc;
    memcpy(out->base, h, sizeof(*h));
    return initialize(out);
}

/* What may be created at all, and under which name; *named gets it. */
static int creation_check(const char *name,
                          const struct shd_segment_options *o,
                          struct segment_name *named)
{
    int rc = header_options_check(o);

    if (rc != SHD_OK)
        return rc;
    if (o != NULL && (o->flags & SHD_ATTACH_READONLY) != 0)
        return error_set(SHD_INVAL, "a segment is not created read-only");
    if (o != NULL && (o->flags & SHD_ATTACH_HELD) != 0)
        return error_set(SHD_INVAL, "a segment that is held is not created");
    if (name == NULL)
        return SHD_OK;
    rc = name_parse(name, named);
    if (rc == SHD_OK && named->fd >= 0)
        rc = error_set(SHD_NAME,
                       "'%s' can be attached, not created; NULL makes "
                       "an anonymous segment",
                       name);
    return rc;
}

/* seed NULL: one that nobody knows. */
static int create(const char *name, const struct shd_segment_options *o,
                  const uint64_t *hash_seed, uint64_t fingerprint,
                  int (*initialize)(struct segment *s),
                  struct segment_birth *b, struct segment *out)
{
    struct segment_name named;
    const struct segment_name *n = name != NULL ? &named : NULL;
    struct segment_header h;
    int rc = creation_check(name, o, &named);

    memset(out, 0, sizeof(*out));
    memset(b, 0, sizeof(*b));
    out->fd = b->fd = -1;
    b->named = n != NULL;
    if (rc == SHD_OK)
        rc = header_fill(&h, o, fingerprint);
    if (rc != SHD_OK)
        return rc;
    if (hash_seed != NULL)
        h.hash_seed = *hash_seed;
    rc = open_building(b, n, hash_seed == NULL);
    if (rc == SHD_OK)
        rc = build(b, n, o, &h, initialize, out);
    if (rc == SHD_OK)
        return SHD_OK;
    out->fd = b->fd;
    segment_close(out);
    segment_abandon(b);
    return rc;
}

int segment_create(const char *name, const struct shd_segment_options *o,
                   uint64_t fingerprint, int (*initialize)(struct segment *s),
                   struct segment *out)
{
    struct segment_birth b;
    int rc = create(name, o, NULL, fingerprint, initialize, &b, out);

    if (rc != SHD_OK)
        return rc;
    rc = segment_publish(&b, false);
    if (rc == SHD_OK)
        return SHD_OK;
    segment_close(out);
    segment_abandon(&b);
    return rc;
}

int segment_create_unnamed(const char *name,
                           const struct shd_segment_options *o,
                           uint64_t hash_seed, uint64_t fingerprint,
                           int (*initialize)(struct segment *s),
                           struct segment_birth *birth, struct segment *out)
{
    return create(name, o, &hash_seed, fingerprint, initialize, birth, out);
}

/* ---- attaching -------------------------------------------------------- */

static int check_is_file(const struct stat *st, const char *label)
{
    if (S_ISLNK(st->st_mode))
        return error_set(SHD_FOREIGN,
                         "%s is a symbolic link: name the segment itself",
                         label);
    if (!S_ISREG(st->st_mode))
        return error_set(SHD_FOREIGN, "%s is not a regular file", label);
    return SHD_OK;
}

/* Opens the file behind a name; what is there is not touched unless it is a
 * regular file. */
static int open_segment(const struct segment_name *n, const char *label,
                        bool writable, int *fd, struct stat *st)
{
    int looked = n->fd;
    int rc;

    if (n->fd < 0)
        looked = open(n->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (looked < 0 && errno == ENOENT)
        return error_set(SHD_NOTFOUND, "there is no segment %s (%s)", label,
                         n->path);
    if (looked < 0)
        return error_errno("opening %s", n->path);
    if (fstat(looked, st) == 0)
        rc = check_is_file(st, label);
    else if (errno == EBADF)
        rc = error_set(SHD_NOTFOUND, "%s is not an open descriptor", label);
    else
        rc = error_errno("fstat of %s", label);
    if (rc == SHD_OK)
        rc = reopen(looked, writable, label, fd);
    if (n->fd < 0)
        close_quietly(looked);
    return rc;
}

static int read_header(int fd, const char *label, struct segment_header *h)
{
    size_t got = 0;

    memset(h, 0, sizeof(*h));
    while (got < sizeof(*h)) {
        ssize_t n = pread(fd, (char *)h + got, sizeof(*h) - got, (off_t)got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno("reading %s", label);
        if (n == 0)
            break;
        got += (size_t)n;
    }
    if (got == sizeof(*h))
        return SHD_OK;
    return error_set(SHD_FOREIGN,
                     "%s is not a shdict segment, or truncated: it has %zu "
                     "bytes",
                     label, got);
}

/* May everybody make files there? If that cannot be told, yes. */
static bool is_open_to_all(const struct segment_name *n)
{
    struct stat st;

    return n->in_tmpfs || stat(n->directory, &st) != 0 ||
           (st.st_mode & S_IWOTH) != 0;
}

/* Whoever may write the file may change any answer, and cut it off under our
 * feet: a name in a directory open to all, which anybody may have taken first,
 * or given to another segment of ours as a second one, is not enough to trust
 * it. Who passes a descriptor has looked. */
static int check_owner(const struct segment_name *n, const struct stat *st,
                       const char *label)
{
    if (n->fd >= 0 || !is_open_to_all(n))
        return SHD_OK;
    if (st->st_uid != geteuid() && st->st_uid != 0)
        return error_set(SHD_PERM,
                         "%s belongs to user %u, not to this one, in a "
                         "directory where everybody may make files: attach it "
                         "read-only, or open it and attach 'fd:N' if that "
                         "user is trusted",
                         label, (unsigned)st->st_uid);
    if (st->st_nlink > 1)
        return error_set(SHD_PERM,
                         "%s has %u names (hard links), in a directory where "
                         "everybody may make them: it may be another "
                         "segment's file",
                         label, (unsigned)st->st_nlink);
    return SHD_OK;
}

int segment_attach(const char *name, const struct shd_segment_options *o,
                   uint64_t fingerprint, struct segment *out)
{
    struct segment_name n;
    struct segment_header h;
    struct stat st;
    int rc = header_options_check(o);

    memset(out, 0, sizeof(*out));
    out->fd = -1;
    if (rc == SHD_OK)
        rc = name_parse(name, &n);
    if (rc != SHD_OK)
        return rc;
    out->writable = o == NULL || (o->flags & SHD_ATTACH_READONLY) == 0;
    rc = open_segment(&n, name, out->writable, &out->fd, &st);
    if (rc == SHD_OK && out->writable)
        rc = check_owner(&n, &st, name);
    if (rc == SHD_OK)
        rc = read_header(out->fd, name, &h);
    if (rc == SHD_OK)
        rc = header_accept(&h, (uint64_t)st.st_size, fingerprint,
                           out->writable, name);
    if (rc == SHD_OK) {
        take_over(out, &h);
        rc = identify(out, &n);
    }
    if (rc == SHD_OK)
        rc = map(out, o != NULL ? o->flags : 0, name);
    if (rc != SHD_OK)
        segment_close(out);
    return rc;
}

int segment_destroy(const char *name)
{
    struct segment_name n;
    struct segment_header h;
    struct stat st;
    int fd = -1;
    int rc = name_parse(name, &n);

    if (rc != SHD_OK)
        return rc;
    if (n.fd >= 0)
        return error_set(SHD_NAME, "%s has no name that could be removed",
                         name);
    rc = open_segment(&n, name, false, &fd, &st);
    if (rc != SHD_OK)
        return rc;
    /* The magic is enough: what is damaged or of another layout must be
     * removable too. */
    rc = read_header(fd, name, &h);
    close_quietly(fd);
    if (rc != SHD_OK && rc != SHD_FOREIGN)
        return rc;
    if (!header_is_ours(&h))
        return error_set(SHD_FOREIGN,
                         "%s is not a shdict segment and was left alone",
                         name);
    if (unlink(n.path) == 0)
        return SHD_OK;
    if (errno == ENOENT)
        return error_set(SHD_NOTFOUND, "there is no segment %s", name);
    return error_errno("removing %s", n.path);
}

void segment_close(struct segment *s)
{
    /* Neither can fail for what map() and open() gave. */
    if (s->room != NULL)
        (void)munmap(s->room, s->room_bytes);
    else if (s->base != NULL)
        (void)munmap(s->base, s->size);
    s->base = s->room = NULL;
    close_quietly(s->fd);
    s->fd = -1;
    close_quietly((int)s->ringer - 1);
    s->ringer = 0;
}

void segment_after_fork(struct segment *s)
{
    char link[LINK_BYTES];
    int saved = errno;
    int fd = -1;

    if (s->fd < 0)
        return;
    descriptor_link(s->fd, link);
    fd = open(link, (s->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    /* dup3 lets go of the inherited description and keeps the number. */
    if (fd < 0 || dup3(fd, s->fd, O_CLOEXEC) < 0) {
        (void)close(s->fd);
        s->fd = -1;
    }
    if (fd >= 0)
        (void)close(fd);
    errno = saved;
}

/* ---- memory ----------------------------------------------------------- */

int segment_can_change(const struct segment *s)
{
    if (!s->writable)
        return error_set(SHD_READONLY, "the segment is attached read-only");
    if (s->fd < 0)
        return error_set(SHD_SYS,
                         "this process could not reopen the segment after "
                         "fork (descriptors, permissions): it can only read");
    return SHD_OK;
}

/* fallocate that ends: a large one that a timer's signal cuts off each time
 * would begin again for ever. */
static int allocate(int fd, int mode, uint64_t at, uint64_t len)
{
    sigset_t all, before;
    int rc = fallocate(fd, mode, (off_t)at, (off_t)len);

    if (rc == 0 || errno != EINTR)
        return rc;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    do {
        rc = fallocate(fd, mode, (off_t)at, (off_t)len);
    } while (rc != 0 && errno == EINTR);
    int saved = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return rc;
}

int segment_commit(const struct segment *s, uint64_t at, uint64_t len)
{
    int rc = segment_can_change(s);

    if (rc != SHD_OK)
        return rc;
    if (at > s->size || len > s->size - at)
        return error_set(SHD_CORRUPT,
                         "memory asked for outside of the segment");
    if (len == 0 || allocate(s->fd, 0, at, len) == 0) {
        if (s->huge && s->base != NULL)
            placing_collapse(s->base, at, len);
        return SHD_OK;
    }
    if (errno == EOPNOTSUPP || errno == ENOSYS)
        return error_set(SHD_UNSUPPORTED,
                         "the file system cannot reserve space (fallocate): "
                         "put the segment on tmpfs, ext4, xfs or btrfs");
    if (errno == ENOSPC || errno == EDQUOT || errno == ENOMEM)
        return error_set(SHD_NOMEM,
                         "the file system has no room for %llu more bytes: %s",
                         (unsigned long long)len, strerror(errno));
    return error_errno("reserving %llu bytes", (unsigned long long)len);
}

void segment_prefault(const struct segment *s, uint64_t at, uint64_t len)
{
    if (s->prefault && segment_at(s, at, len) != NULL)
        placing_prefault(s->base + at, len);
}

int segment_decommit(const struct segment *s, uint64_t at, uint64_t len)
{
    uint64_t first, end;
    int rc = segment_can_change(s);

    if (rc != SHD_OK)
        return rc;
    if (at > s->size || len > s->size - at)
        return error_set(SHD_CORRUPT,
                         "memory given back outside of the segment");
    first = (at + SEGMENT_PAGE - 1) & ~(uint64_t)(SEGMENT_PAGE - 1);
    end = (at + len) & ~(uint64_t)(SEGMENT_PAGE - 1);
    if (end <= first ||
        allocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first,
                 end - first) == 0)
        return SHD_OK;
    return error_errno("giving back %llu bytes",
                       (unsigned long long)(end - first));
}

int segment_committed(const struct segment *s, uint64_t *bytes)
{
    struct stat st;

    if (fstat(s->fd, &st) != 0)
        return error_errno("fstat of the segment");
    *bytes = (uint64_t)st.st_blocks * 512;
    return SHD_OK;
}

int segment_in_memory(const struct segment *s, uint64_t at, uint64_t len,
                      uint64_t *bytes)
{
    uint64_t end = at + len;

    *bytes = 0;
    while (at < end) {
        off_t data = lseek(s->fd, (off_t)at, SEEK_DATA), hole;

        if (data < 0 && errno == ENXIO)
            break; /* nothing but a hole up to the end of the file */
        hole = data < 0 ? -1 : lseek(s->fd, data, SEEK_HOLE);
        if (hole < 0)
            return error_errno("lseek of the segment");
        if ((uint64_t)data >= end)
            break;
        at = (uint64_t)hole < end ? (uint64_t)hole : end;
        *bytes += at - (uint64_t)data;
    }
    return SHD_OK;
}

/* ---- liveness --------------------------------------------------------- */

static struct flock liveness(uint32_t index, short type)
{
    struct flock l = {.l_type = type,
                      .l_whence = SEEK_SET,
                      .l_start = LIVENESS_AT + index,
                      .l_len = 1};

    return l;
}

int segment_liveness_lock(const struct segment *s, uint32_t index)
{
    struct flock l = liveness(index, F_WRLCK);
    int rc = segment_can_change(s);

    if (rc != SHD_OK)
        return rc;
    if (fcntl(s->fd, F_OFD_SETLK, &l) == 0)
        return SHD_OK;
    if (errno == EAGAIN || errno == EACCES)
        return SHD_BUSY;
    return error_errno("locking a worker's byte of the segment's file");
}

int segment_liveness_unlock(const struct segment *s, uint32_t index)
{
    struct flock l = liveness(index, F_UNLCK);

    if (fcntl(s->fd, F_OFD_SETLK, &l) == 0)
        return SHD_OK;
    return error_errno("unlocking a worker's byte of the segment's file");
}

int segment_liveness_is_locked(const struct segment *s, uint32_t index)
{
    struct flock l = liveness(index, F_WRLCK);

    if (fcntl(s->fd, F_OFD_GETLK, &l) == 0)
        return l.l_type != F_UNLCK;
    return error_errno("looking at a worker's byte of the segment's file");
}

/* ---- checking --------------------------------------------------------- */

static int check_failed(char *report, size_t size, const char *what)
{
    snprintf(report, size, "header: %s", what);
    return SHD_CORRUPT;
}

/* The byte after the last worker's. */
int segment_supervision_lock(const struct segment *s, int *fd)
{
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = LIVENESS_AT + SUPERVISION_BYTE,
                         .l_len = 1};
    int rc = reopen(s->fd, true, "the segment", fd);

    if (rc != SHD_OK || fcntl(*fd, F_OFD_SETLK, &lock) == 0)
        return rc;
    rc = errno == EAGAIN || errno == EACCES
             ? error_set(SHD_BUSY, "somebody supervises the segment")
             : error_errno("locking the segment for a supervisor");
    close_quietly(*fd);
    *fd = -1;
    return rc;
}

void segment_announce(const struct segment *s)
{
    int saved = errno;
    char byte;

    /* Not its times: those a worker that is not its owner may not touch, one of
     * nginx's say, which has only inherited the descriptor. */
    if (pread(s->fd, &byte, 1, 0) < 0)
        errno = saved;
}

int segment_check(const struct segment *s, char *report, size_t size)
{
    struct segment_header h;
    struct segment own;
    struct stat st;
    int rc;

    memcpy(&h, s->base, sizeof(h));
    if (h.magic != SEGMENT_MAGIC)
        return check_failed(report, size, "the magic number is damaged");
    if (h.byte_order != SEGMENT_BYTE_ORDER)
        return check_failed(report, size, "the byte order is damaged");
    if (h.layout_version != SEGMENT_LAYOUT_VERSION)
        return check_failed(report, size, "the layout version is damaged");
    rc = header_parts_check(&h, report, size);
    if (rc != SHD_OK)
        return rc;
    own = *s;
    take_over(&own, &h);
    if (own.size != s->size || own.workers_max != s->workers_max ||
        own.objects_max != s->objects_max || own.locks_max != s->locks_max)
        return check_failed(report, size, "a size has changed since attach");
    if (own.hash_seed != s->hash_seed)
        return check_failed(report, size, "the hash seed has changed");
    if (h.guards_used > s->locks_max)
        return check_failed(report, size, "guards_used is over locks_max");
    if (s->fd >= 0 && fstat(s->fd, &st) == 0 &&
        (uint64_t)st.st_size != s->size)
        return check_failed(report, size, "the file's size has changed");
    return SHD_OK;
}
