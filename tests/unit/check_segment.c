/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite segment: segment/ (names, header, file, memory, liveness). File
 * systems that are full, read-only or lack something are mounted in a mount
 * namespace of the test's own process; that, and other users, need root.
 *
 * valgrind: no. It has no 64 GiB of address space, and mount() and a SIGSEGV
 * that is meant to be are errors to it.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "shm/base/error.h"
#include "shm/segment/header.h"
#include "shm/segment/name.h"
#include "tests/unit/support.h"

#define NAME support_name
#define FILE_NAME support_file

static char directory[64]; /* fresh for each test */
static char path[128];     /* a file in it that does not exist */

static void set_up(void)
{
    int rc = segment_destroy(NAME);

    ck_assert(rc == SHD_OK || rc == SHD_NOTFOUND);
    snprintf(directory, sizeof(directory), "/tmp/shdict-unit-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chmod(directory, 0755), 0);
    snprintf(path, sizeof(path), "%s/segment", directory);
}

static void tear_down(void)
{
    (void)unlink(FILE_NAME);
    (void)umount2(directory, MNT_DETACH);
    (void)unlink(path);
    (void)rmdir(directory);
}

static bool is_root(const char *test)
{
    if (geteuid() == 0)
        return true;
    fprintf(stderr, "SKIPPED (needs root): %s\n", test);
    return false;
}

static int nothing(struct segment *s)
{
    (void)s;
    return SHD_OK;
}

static int create(const char *name, struct segment *s)
{
    struct shd_segment_options o = support_options();

    return segment_create(name, &o, FINGERPRINT, nothing, s);
}

static int attach(const char *name, uint32_t flags, struct segment *s)
{
    struct shd_segment_options o = support_options();

    o.flags = flags;
    return segment_attach(name, &o, FINGERPRINT, s);
}

static void write_file(const char *name, const void *bytes, size_t len)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

/* ---- names ------------------------------------------------------------ */

START_TEST(plain_names_lie_in_tmpfs)
{
    struct segment_name n;
    char longest[202];

    expect(name_parse("a.B_9-z", &n), SHD_OK);
    ck_assert_str_eq(n.path, "/dev/shm/shdict-a.B_9-z");
    ck_assert_str_eq(n.directory, "/dev/shm");
    ck_assert(n.in_tmpfs);
    ck_assert_int_eq(n.fd, -1);
    memset(longest, 'x', 200);
    longest[200] = '\0';
    expect(name_parse(longest, &n), SHD_OK);
    ck_assert_uint_eq(strlen(n.path), 200 + strlen("/dev/shm/shdict-"));
    longest[200] = 'x';
    longest[201] = '\0';
    expect(name_parse(longest, &n), SHD_NAME);
    expect_said("201 bytes");
}
END_TEST

START_TEST(paths_are_taken_as_they_are)
{
    struct segment_name n;

    expect(name_parse("/x", &n), SHD_OK);
    ck_assert_str_eq(n.directory, "/");
    expect(name_parse("./x", &n), SHD_OK);
    ck_assert_str_eq(n.directory, ".");
    ck_assert_str_eq(n.path, "./x");
    expect(name_parse("../a/b/x y", &n), SHD_OK);
    ck_assert_str_eq(n.directory, "../a/b");
    ck_assert(!n.in_tmpfs);
}
END_TEST

START_TEST(descriptors_are_numbers)
{
    struct segment_name n;

    expect(name_parse("fd:0", &n), SHD_OK);
    ck_assert_int_eq(n.fd, 0);
    expect(name_parse("fd:2147483647", &n), SHD_OK);
    ck_assert_int_eq(n.fd, 2147483647);
}
END_TEST

static const struct {
    const char *name, *says;
} bad_names[] = {
    {"", "empty"},
    {"app/x", "slash"},
    {"app/", "slash"},
    {"a//b", "slash"},
    {".hidden", "starts with a dot"},
    {"..", "starts with a dot"},
    {"a b", "0x20"},
    {"a\x01", "0x01"},
    {"\xc3\xa9", "0xc3"},
    {"a:b", "0x3a"},
    {"/", "directory"},
    {"/tmp/", "directory"},
    {"/tmp/.", "directory"},
    {"/tmp/..", "directory"},
    {"./", "directory"},
    {"fd:", "descriptor"},
    {"fd:x", "descriptor"},
    {"fd:-1", "descriptor"},
    {"fd:1x", "descriptor"},
    {"fd:2147483648", "descriptor"},
    {"fd:99999999999999999999", "descriptor"},
};

START_TEST(bad_names_are_refused_with_the_reason)
{
    struct segment s;

    for (int way = 0; way < 3; way++) {
        const char *name = bad_names[_i].name;

        expect(way == 0   ? create(name, &s)
               : way == 1 ? attach(name, 0, &s)
                          : segment_destroy(name),
               SHD_NAME);
        expect_said(bad_names[_i].says);
    }
}
END_TEST

START_TEST(a_path_that_is_too_long_is_refused)
{
    char name[300];
    struct segment s;

    memset(name, 'x', sizeof(name));
    name[0] = '/';
    name[255] = '\0';
    expect(attach(name, 0, &s), SHD_NOTFOUND);
    name[255] = 'x';
    name[256] = '\0';
    expect(attach(name, 0, &s), SHD_NAME);
    expect_said("256 bytes");
}
END_TEST

/* ---- creating --------------------------------------------------------- */

START_TEST(a_created_segment_can_be_attached)
{
    struct segment a, b;

    expect(create(NAME, &a), SHD_OK);
    expect(attach(NAME, 0, &b), SHD_OK);
    ck_assert_uint_eq(a.hash_seed, b.hash_seed);
    ck_assert_uint_eq(a.inode, b.inode);
    ck_assert_str_eq(b.path, FILE_NAME);
    expect(segment_commit(&a, a.extents_at, 4096), SHD_OK);
    a.base[a.extents_at] = 77;
    ck_assert_uint_eq(b.base[b.extents_at], 77);
    segment_close(&a);
    segment_close(&b);
    expect(segment_destroy(NAME), SHD_OK);
    expect(attach(NAME, 0, &b), SHD_NOTFOUND);
    expect(segment_destroy(NAME), SHD_NOTFOUND);
}
END_TEST

START_TEST(seeds_differ)
{
    struct segment a, b;

    expect(create(NULL, &a), SHD_OK);
    expect(create(NULL, &b), SHD_OK);
    ck_assert_uint_ne(a.hash_seed, b.hash_seed);
    ck_assert_uint_ne(a.inode, b.inode);
}
END_TEST

START_TEST(defaults_are_those_of_the_manual)
{
    struct segment s;
    uint64_t committed;

    expect(segment_create(NAME, NULL, FINGERPRINT, nothing, &s), SHD_OK);
    ck_assert_uint_eq(s.size, 1ull << 36);
    ck_assert_uint_eq(s.workers_max, 1024);
    ck_assert_uint_eq(s.objects_max, 256);
    ck_assert_uint_eq(s.locks_max, 4096);
    expect(segment_committed(&s, &committed), SHD_OK);
    ck_assert_uint_lt(committed, 1 << 20);
    ck_assert(s.writable);
}
END_TEST

START_TEST(the_room_asked_for_comes_on_top_of_the_tables)
{
    struct segment s;

    expect(create(NULL, &s), SHD_OK);
    ck_assert_uint_eq(s.size - s.extents_at, 1 << 20);
    ck_assert_uint_eq(s.guards_at, 4096);
    ck_assert_uint_eq(s.catalogue_at, 4096 + 12 * 8192);
    ck_assert_uint_eq(s.workers_at, s.catalogue_at + 4096);
    ck_assert_uint_eq(s.counters_at, s.workers_at + 4096);
    ck_assert_uint_eq(s.extents_at, s.counters_at + 12 * 4096);
}
END_TEST

START_TEST(an_existing_name_is_left_alone)
{
    static const char text[] = "somebody's data";
    char back[sizeof(text)] = "";
    struct segment s;
    int fd;

    write_file(FILE_NAME, text, sizeof(text));
    expect(create(NAME, &s), SHD_EXISTS);
    fd = open(FILE_NAME, O_RDONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(read(fd, back, sizeof(back)), (ssize_t)sizeof(back));
    ck_assert_str_eq(back, text);
    close(fd);
    /* A dangling link is a name too. */
    ck_assert_int_eq(unlink(FILE_NAME), 0);
    ck_assert_int_eq(symlink("/nowhere", FILE_NAME), 0);
    expect(create(NAME, &s), SHD_EXISTS);
}
END_TEST

START_TEST(the_mode_does_not_depend_on_the_umask)
{
    struct shd_segment_options o = support_options();
    struct segment s;
    struct stat st;

    umask(0777);
    expect(create(NAME, &s), SHD_OK);
    ck_assert_int_eq(fstat(s.fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    segment_close(&s);
    o.mode = 0664;
    umask(0022);
    expect(segment_create(path, &o, FINGERPRINT, nothing, &s), SHD_OK);
    ck_assert_int_eq(fstat(s.fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0664);
}
END_TEST

START_TEST(descriptors_close_on_exec)
{
    struct segment a, b;

    expect(create(NAME, &a), SHD_OK);
    expect(attach(NAME, 0, &b), SHD_OK);
    ck_assert_int_ne(fcntl(a.fd, F_GETFD) & FD_CLOEXEC, 0);
    ck_assert_int_ne(fcntl(b.fd, F_GETFD) & FD_CLOEXEC, 0);
}
END_TEST

static struct shd_segment_options options_with(int field)
{
    struct shd_segment_options o = support_options();

    switch (field) {
    case 0:
        o.struct_size = 0;
        break;
    case 1:
        o.struct_size++;
        break;
    case 2:
        o.flags = 1u << 31;
        break;
    case 3:
        o.reserved = 1;
        break;
    case 4:
        o.mode = 01600;
        break;
    case 5:
        o.size_bytes = (1ull << 36) + 1;
        break;
    case 6:
        o.workers_max = 65536;
        break;
    case 7:
        o.objects_max = 65536;
        break;
    case 8:
        o.locks_max = 2;
        break;
    case 9:
        o.locks_max = 65536;
        break;
    case 10:
        o.worker_id = -2;
        break;
    default:
        o.worker_name = "a name of thirty-two bytes is too";
    }
    return o;
}

static const char *const option_says[] = {
    "struct_size", "struct_size", "flags 0x80000000",  "reserved",
    "mode 01600",  "size_bytes",  "workers_max", "objects_max",
    "locks_max",   "locks_max",   "worker_id",   "worker_name"};

START_TEST(bad_options_are_refused_by_name)
{
    struct shd_segment_options o = options_with(_i);
    struct segment s;

    expect(segment_create(NAME, &o, FINGERPRINT, nothing, &s), SHD_INVAL);
    expect_said(option_says[_i]);
    expect(segment_attach(NAME, &o, FINGERPRINT, &s), SHD_INVAL);
    expect_said(option_says[_i]);
    ck_assert_int_ne(access(FILE_NAME, F_OK), 0);
}
END_TEST

START_TEST(nothing_is_created_read_only)
{
    struct shd_segment_options o = support_options();
    struct segment s;

    o.flags = SHD_ATTACH_READONLY;
    expect(segment_create(NAME, &o, FINGERPRINT, nothing, &s), SHD_INVAL);
}
END_TEST

static int fail_to_initialize(struct segment *s)
{
    (void)s;
    return error_set(SHD_NOMEM, "no");
}

START_TEST(a_creation_that_fails_leaves_no_file)
{
    struct segment s;

    expect(segment_create(path, NULL, FINGERPRINT, fail_to_initialize, &s),
           SHD_NOMEM);
    ck_assert_int_eq(s.fd, -1);
    ck_assert_ptr_null(s.base);
    /* Not even one of another name. */
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

START_TEST(a_missing_directory_is_said)
{
    struct segment s;

    ck_assert_int_eq(rmdir(directory), 0);
    expect(create(path, &s), SHD_SYS);
    expect_said("No such file or directory");
    expect_said(path);
}
END_TEST

START_TEST(of_creators_that_race_one_wins_and_no_attacher_sees_half)
{
    for (int round = 0; round < 20; round++) {
        pid_t child[4];
        int created = 0, status;

        for (int i = 0; i < 4; i++) {
            child[i] = fork();
            ck_assert_int_ge(child[i], 0);
            if (child[i] == 0) {
                struct segment s;
                int rc;

                if (i < 3) {
                    rc = create(NAME, &s);
                } else {
                    do {
                        rc = attach(NAME, 0, &s);
                    } while (rc == SHD_NOTFOUND);
                    rc = rc == SHD_OK ? SHD_EXISTS : rc;
                }
                _exit(rc == SHD_OK ? 0 : rc == SHD_EXISTS ? 1 : 2);
            }
        }
        for (int i = 0; i < 4; i++) {
            ck_assert_int_eq(waitpid(child[i], &status, 0), child[i]);
            ck_assert(WIFEXITED(status));
            ck_assert_int_lt(WEXITSTATUS(status), 2);
            created += WEXITSTATUS(status) == 0;
        }
        ck_assert_int_eq(created, 1);
        expect(segment_destroy(NAME), SHD_OK);
    }
}
END_TEST

/* From here on open() of this process does not know O_TMPFILE. */
static void forbid_tmpfile(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]),
                                 .filter = filter};

    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

START_TEST(without_tmpfile_a_temporary_name_does)
{
    struct segment s, b;

    forbid_tmpfile();
    ck_assert_int_eq(open(directory, O_TMPFILE | O_RDWR, 0600), -1);
    ck_assert_int_eq(errno, EOPNOTSUPP);
    expect(segment_create(path, NULL, FINGERPRINT, fail_to_initialize, &s),
           SHD_NOMEM);
    ck_assert_int_eq(rmdir(directory), 0);
    ck_assert_int_eq(mkdir(directory, 0755), 0);
    expect(create(path, &s), SHD_OK);
    expect(attach(path, 0, &b), SHD_OK);
    ck_assert_uint_eq(s.inode, b.inode);
    expect(create(path, &b), SHD_EXISTS);
    expect(segment_destroy(path), SHD_OK);
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* Two that race: the file appears after the first look. */
static int appear(struct segment *s)
{
    (void)s;
    write_file(path, "x", 1);
    return SHD_OK;
}

START_TEST(a_file_that_appears_meanwhile_is_not_replaced)
{
    struct stat st;
    struct segment s;

    if (_i == 1)
        forbid_tmpfile();
    expect(segment_create(path, NULL, FINGERPRINT, appear, &s), SHD_EXISTS);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, 1);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* In a child that touches one byte: the signal that ended it, or 0. */
static int touch(volatile unsigned char *p, bool write)
{
    int status;
    pid_t child = fork();

    ck_assert_int_ge(child, 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        if (write)
            *p = 1;
        else
            (void)*p;
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

/* Read-write and read-only, small pages and huge. */
START_TEST(guard_pages_stop_who_runs_over_an_end)
{
    static const uint32_t flags[] = {0, SHD_ATTACH_READONLY, SHD_HUGE_PAGES};
    const uint64_t far = 2u << 20;
    struct segment made, s;

    expect(create(NAME, &made), SHD_OK);
    expect(attach(NAME, SHD_GUARD_PAGES | flags[_i], &s), SHD_OK);
    ck_assert_ptr_nonnull(s.room);
    ck_assert_uint_eq(s.base[8], made.base[8]);
    ck_assert_int_eq(touch(s.base, false), 0);
    for (int write = 0; write < 2; write++) {
        ck_assert_int_ne(touch(s.base - 1, write), 0);
        ck_assert_int_ne(touch(s.base - far, write), 0);
        ck_assert_int_ne(touch(s.base + s.size, write), 0);
        ck_assert_int_ne(touch(s.base + s.size + far - 1, write), 0);
    }
    /* All of it is given back. */
    unsigned char *room = s.room;
    segment_close(&s);
    ck_assert_int_eq(msync(room, 4096, MS_ASYNC), -1);
    ck_assert_int_eq(errno, ENOMEM);
}
END_TEST

START_TEST(guard_pages_can_be_asked_for_from_outside)
{
    struct segment s;

    ck_assert_int_eq(setenv("SHDICT_GUARD_PAGES", "1", 1), 0);
    expect(create(NAME, &s), SHD_OK);
    ck_assert_ptr_nonnull(s.room);
    segment_close(&s);
    ck_assert_int_eq(setenv("SHDICT_GUARD_PAGES", "0", 1), 0);
    expect(attach(NAME, 0, &s), SHD_OK);
    ck_assert_ptr_null(s.room);
}
END_TEST

START_TEST(an_anonymous_segment_is_inherited_by_number)
{
    struct segment a, b;
    struct stat st;
    char name[20];

    expect(create(NULL, &a), SHD_OK);
    ck_assert_str_eq(a.path, "");
    snprintf(name, sizeof(name), "fd:%d", a.fd);
    expect(attach(name, 0, &b), SHD_OK);
    ck_assert_int_ne(a.fd, b.fd);
    ck_assert_uint_eq(a.inode, b.inode);
    ck_assert_str_eq(b.path, "");
    /* A description of its own: locks of the one are not the other's. */
    expect(segment_liveness_lock(&a, 1), SHD_OK);
    expect(segment_liveness_lock(&b, 1), SHD_BUSY);
    /* And nobody who holds it can cut it. */
    ck_assert_int_ne(ftruncate(a.fd, 0), 0);
    ck_assert_int_eq(fstat(a.fd, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, a.size);
    expect(segment_destroy(name), SHD_NAME);
    expect(create(name, &b), SHD_NAME);
}
END_TEST

START_TEST(a_named_file_can_be_attached_by_number)
{
    struct segment a, b;
    char name[20];
    int fd;

    expect(create(NAME, &a), SHD_OK);
    fd = open(FILE_NAME, O_RDONLY);
    ck_assert_int_ge(fd, 0);
    snprintf(name, sizeof(name), "fd:%d", fd);
    expect(attach(name, SHD_ATTACH_READONLY, &b), SHD_OK);
    ck_assert_str_eq(b.path, FILE_NAME);
    segment_close(&b);
    expect(segment_destroy(NAME), SHD_OK);
    expect(attach(name, SHD_ATTACH_READONLY, &b), SHD_OK);
    ck_assert_str_eq(b.path, "");
    expect(attach("fd:987654", 0, &b), SHD_NOTFOUND);
    expect_said("not an open descriptor");
}
END_TEST

START_TEST(too_little_address_space_is_said)
{
    struct rlimit limit = {.rlim_cur = 4ull << 30, .rlim_max = 4ull << 30};
    struct segment s;

#ifdef __SANITIZE_ADDRESS__
    /* Its shadow is larger than any limit that would show something. */
    return;
#endif
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    expect(segment_create(path, NULL, FINGERPRINT, nothing, &s), SHD_NOMEM);
    expect_said("size_bytes");
    ck_assert_int_ne(access(path, F_OK), 0);
    expect(create(path, &s), SHD_OK);
}
END_TEST

START_TEST(a_limit_of_file_sizes_is_an_error_not_a_signal)
{
    struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    struct segment s;

    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    expect(create(path, &s), SHD_NOMEM);
    expect_said("ulimit -f");
}
END_TEST

/* ---- attaching what is not right -------------------------------------- */

START_TEST(what_is_no_segment_is_foreign_and_stays)
{
    char bytes[8192];
    struct segment s;

    memset(bytes, 'x', sizeof(bytes));
    for (size_t len = 0; len <= sizeof(bytes); len += 1024) {
        write_file(path, bytes, len);
        for (uint32_t flags = 0; flags < 2; flags++) {
            expect(attach(path, flags, &s), SHD_FOREIGN);
            expect_said("not a shdict segment");
        }
        expect(segment_destroy(path), SHD_FOREIGN);
        ck_assert_int_eq(access(path, F_OK), 0);
    }
}
END_TEST

START_TEST(what_is_no_file_is_not_touched)
{
    struct segment s;

    ck_assert_int_eq(mkdir(path, 0700), 0);
    expect(attach(path, 0, &s), SHD_FOREIGN);
    expect(segment_destroy(path), SHD_FOREIGN);
    ck_assert_int_eq(rmdir(path), 0);
    /* Opening a pipe that nobody writes to would wait for ever. */
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect(attach(path, SHD_ATTACH_READONLY, &s), SHD_FOREIGN);
    expect_said("regular file");
    expect(segment_destroy(path), SHD_FOREIGN);
    ck_assert_int_eq(unlink(path), 0);
    expect(attach("/dev/null", 0, &s), SHD_FOREIGN);
    expect(create(NAME, &s), SHD_OK);
    ck_assert_int_eq(symlink(FILE_NAME, path), 0);
    expect(attach(path, 0, &s), SHD_FOREIGN);
    expect_said("symbolic link");
}
END_TEST

START_TEST(a_truncated_segment_is_foreign_and_can_be_removed)
{
    struct segment s;
    struct stat st;

    expect(create(path, &s), SHD_OK);
    segment_close(&s);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(truncate(path, st.st_size - 1), 0);
    expect(attach(path, 0, &s), SHD_FOREIGN);
    expect_said("truncated");
    ck_assert_int_eq(truncate(path, st.st_size + 4096), 0);
    expect(attach(path, 0, &s), SHD_FOREIGN);
    ck_assert_int_eq(truncate(path, 100), 0);
    expect(attach(path, SHD_ATTACH_READONLY, &s), SHD_FOREIGN);
    expect_said("truncated");
    expect(segment_destroy(path), SHD_OK);
}
END_TEST

/* Creates at path, and changes the header in the file. */
static void patch(size_t at, const void *bytes, size_t len)
{
    struct segment s;
    int fd;

    (void)unlink(path);
    expect(create(path, &s), SHD_OK);
    segment_close(&s);
    fd = open(path, O_WRONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, len, (off_t)at), (ssize_t)len);
    close(fd);
}

#define patch_field(field, value)                                             \
    do {                                                                      \
        __typeof__(((struct segment_header *)0)->field) v_ = (value);         \
        patch(offsetof(struct segment_header, field), &v_, sizeof(v_));       \
    } while (0)

static void expect_refused(int code, const char *says)
{
    struct segment s;

    for (uint32_t flags = 0; flags < 2; flags++) {
        expect(attach(path, flags, &s), code);
        expect_said(says);
        ck_assert_int_eq(s.fd, -1);
        ck_assert_ptr_null(s.base);
    }
    expect(segment_destroy(path), SHD_OK);
}

START_TEST(another_byte_order_is_refused)
{
    patch_field(magic, __builtin_bswap64(SEGMENT_MAGIC));
    expect_refused(SHD_ENDIAN, "byte order");
    patch_field(byte_order, __builtin_bswap32(SEGMENT_BYTE_ORDER));
    expect_refused(SHD_ENDIAN, "byte order");
}
END_TEST

START_TEST(another_layout_is_refused_and_says_what_differs)
{
    struct segment s;

    patch_field(layout_version, SEGMENT_LAYOUT_VERSION + 1);
    char says[40];

    snprintf(says, sizeof(says), "layout version %u",
             SEGMENT_LAYOUT_VERSION + 1);
    expect_refused(SHD_LAYOUT, says);
    patch_field(fingerprint, 0x1234);
    expect_refused(SHD_LAYOUT, "fingerprint 0000000000001234");
    /* What the floors above say of their structs counts. */
    expect(create(path, &s), SHD_OK);
    expect(segment_attach(path, NULL, FINGERPRINT + 1, &s), SHD_LAYOUT);
    expect(segment_attach(path, NULL, FINGERPRINT, &s), SHD_OK);
}
END_TEST

START_TEST(a_segment_from_before_a_reboot_is_refused)
{
    patch(offsetof(struct segment_header, boot_id), "another", 7);
    expect_refused(SHD_LAYOUT, "reboot");
}
END_TEST

static const struct {
    size_t at;
    uint32_t value;
    const char *says;
} contradictions[] = {
    {offsetof(struct segment_header, workers_max), 0, "workers_max"},
    {offsetof(struct segment_header, workers_max), 65536, "workers_max"},
    {offsetof(struct segment_header, objects_max), 0, "objects_max"},
    {offsetof(struct segment_header, objects_max), 1u << 31, "objects_max"},
    {offsetof(struct segment_header, locks_max), 2, "locks_max"},
    {offsetof(struct segment_header, locks_max), ~0u, "locks_max"},
    {offsetof(struct segment_header, locks_max), 13, "catalogue_at"},
    {offsetof(struct segment_header, guards_at), 0, "guards_at"},
    {offsetof(struct segment_header, catalogue_at) + 4, 1, "catalogue_at"},
    {offsetof(struct segment_header, workers_at) + 4, ~0u, "workers_at"},
    {offsetof(struct segment_header, extents_at), 8, "extents_at"},
};

START_TEST(a_header_that_contradicts_itself_is_not_trusted)
{
    patch(contradictions[_i].at, &contradictions[_i].value, 4);
    expect_refused(SHD_CORRUPT, contradictions[_i].says);
}
END_TEST

START_TEST(another_pid_namespace_reads_but_does_not_write)
{
    struct segment s;

    patch_field(pid_namespace, 1);
    expect(attach(path, 0, &s), SHD_NAMESPACE);
    expect_said("read-only");
    expect(attach(path, SHD_ATTACH_READONLY, &s), SHD_OK);
    segment_close(&s);
}
END_TEST

START_TEST(a_child_in_a_real_pid_namespace_is_refused)
{
    struct segment s;
    int status;
    pid_t child;

    if (!is_root("a_child_in_a_real_pid_namespace_is_refused"))
        return;
    expect(create(path, &s), SHD_OK);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        pid_t inner;

        /* /proc must be the new namespace's to name it. */
        if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0)
            _exit(10);
        inner = fork();
        if (inner == 0) {
            if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
                mount("proc", "/proc", "proc", 0, NULL) != 0)
                _exit(11);
            if (attach(path, 0, &s) != SHD_NAMESPACE)
                _exit(12);
            _exit(attach(path, SHD_ATTACH_READONLY, &s) == SHD_OK ? 0 : 13);
        }
        if (waitpid(inner, &status, 0) != inner || !WIFEXITED(status))
            _exit(14);
        _exit(WEXITSTATUS(status));
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                  "the child ended with status 0x%x", status);
}
END_TEST

/* Runs `act` as another user; gives its result. */
static int as_nobody(int (*act)(void))
{
    int status;
    pid_t child = fork();

    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (setgid(65534) != 0 || setuid(65534) != 0)
            _exit(0);
        _exit(-act());
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

static struct segment nobodys;

static int attach_path(void)
{
    return attach(path, 0, &nobodys);
}
static int attach_path_readonly(void)
{
    return attach(path, SHD_ATTACH_READONLY, &nobodys);
}
static int destroy_path(void)
{
    return segment_destroy(path);
}
static int create_path(void)
{
    return create(path, &nobodys);
}

START_TEST(the_mode_decides_who_may_attach)
{
    struct segment s;

    if (!is_root("the_mode_decides_who_may_attach"))
        return;
    ck_assert_int_eq(as_nobody(create_path), SHD_PERM);
    expect(create(path, &s), SHD_OK);
    ck_assert_int_eq(as_nobody(attach_path), SHD_PERM);
    ck_assert_int_eq(as_nobody(attach_path_readonly), SHD_PERM);
    ck_assert_int_eq(fchmod(s.fd, 0644), 0);
    ck_assert_int_eq(as_nobody(attach_path), SHD_PERM);
    ck_assert_int_eq(as_nobody(attach_path_readonly), SHD_OK);
    ck_assert_int_eq(as_nobody(destroy_path), SHD_PERM);
    ck_assert_int_eq(fchmod(s.fd, 0666), 0);
    ck_assert_int_eq(as_nobody(attach_path), SHD_OK);
}
END_TEST

START_TEST(a_name_that_another_user_took_is_not_written)
{
    struct segment s;
    char fd[20];

    if (!is_root("a_name_that_another_user_took_is_not_written"))
        return;
    expect(create(NAME, &s), SHD_OK);
    ck_assert_int_eq(fchown(s.fd, 65534, 65534), 0);
    segment_close(&s);
    expect(attach(NAME, 0, &s), SHD_PERM);
    expect_said("user 65534");
    expect(attach(NAME, SHD_ATTACH_READONLY, &s), SHD_OK);
    expect(attach(FILE_NAME, 0, &s), SHD_PERM);
    expect_said("user 65534");
    /* Who has opened it knows whose it is. */
    snprintf(fd, sizeof(fd), "fd:%d", open(FILE_NAME, O_RDWR | O_CLOEXEC));
    expect(attach(fd, 0, &s), SHD_OK);
}
END_TEST

/* ---- file systems ----------------------------------------------------- */

static bool mount_over_directory(const char *type, unsigned long flags,
                                 const char *data, const char *test)
{
    if (!is_root(test))
        return false;
    ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
    ck_assert_int_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    ck_assert_int_eq(mount(type, directory, type, flags, data), 0);
    return true;
}

START_TEST(a_read_only_file_system_is_said)
{
    struct segment s;

    if (!mount_over_directory("tmpfs", 0, "size=4m",
                              "a_read_only_file_system_is_said"))
        return;
    expect(create(path, &s), SHD_OK);
    segment_close(&s);
    ck_assert_int_eq(
        mount("tmpfs", directory, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    expect(attach(path, 0, &s), SHD_SYS);
    expect_said("read-only file system");
    expect(attach(path, SHD_ATTACH_READONLY, &s), SHD_OK);
    segment_close(&s);
    expect(segment_destroy(path), SHD_SYS);
    strcat(path, "2");
    expect(create(path, &s), SHD_SYS);
    expect_said("Read-only file system");
}
END_TEST

START_TEST(a_full_tmpfs_is_no_memory_and_leaves_nothing)
{
    struct segment s, before;
    uint64_t committed;
    int rc;

    if (!mount_over_directory("tmpfs", 0, "size=64k",
                              "a_full_tmpfs_is_no_memory_and_leaves_nothing"))
        return;
    expect(segment_create(path, NULL, FINGERPRINT, nothing, &s), SHD_NOMEM);
    expect_said("no room");
    ck_assert_int_ne(access(path, F_OK), 0);
    expect(create(path, &s), SHD_OK);
    /* As much as there is, and then an error, and what was there stays. */
    for (uint64_t at = s.extents_at;; at += 4096) {
        rc = segment_commit(&s, at, 4096);
        if (rc != SHD_OK)
            break;
        memset(s.base + at, 1, 4096);
        ck_assert_uint_lt(at, 64 << 10 << 10);
    }
    ck_assert_int_eq(rc, SHD_NOMEM);
    expect(segment_committed(&s, &committed), SHD_OK);
    ck_assert_uint_eq(committed, 64 << 10);
    before = s;
    expect(segment_commit(&s, s.extents_at, 1 << 20), SHD_NOMEM);
    ck_assert_int_eq(memcmp(&before, &s, sizeof(s)), 0);
    ck_assert_uint_eq(s.base[s.extents_at + 4095], 1);
    expect(segment_decommit(&s, s.extents_at, 4096), SHD_OK);
    expect(segment_commit(&s, s.extents_at, 4096), SHD_OK);
    ck_assert_uint_eq(s.base[s.extents_at + 4095], 0);
}
END_TEST

START_TEST(a_file_system_that_cannot_reserve_is_unsupported)
{
    struct segment s;

    if (!mount_over_directory(
            "ramfs", 0, NULL,
            "a_file_system_that_cannot_reserve_is_unsupported"))
        return;
    expect(create(path, &s), SHD_UNSUPPORTED);
    expect_said("fallocate");
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

/* ---- memory ----------------------------------------------------------- */

START_TEST(memory_is_taken_and_given_back)
{
    struct segment s;
    uint64_t before, after;

    expect(create(NAME, &s), SHD_OK);
    expect(segment_committed(&s, &before), SHD_OK);
    expect(segment_commit(&s, s.extents_at + 100, 4096), SHD_OK);
    expect(segment_committed(&s, &after), SHD_OK);
    ck_assert_uint_eq(after - before, 8192);
    s.base[s.extents_at] = 1;
    s.base[s.extents_at + 4096] = 2;
    expect(segment_commit(&s, s.extents_at, 8192), SHD_OK);
    ck_assert_uint_eq(s.base[s.extents_at], 1);
    /* Only whole pages inside the range go. */
    expect(segment_decommit(&s, s.extents_at + 1, 8191), SHD_OK);
    ck_assert_uint_eq(s.base[s.extents_at], 1);
    expect(segment_committed(&s, &after), SHD_OK);
    ck_assert_uint_eq(after - before, 4096);
    expect(segment_decommit(&s, s.extents_at + 1, 4094), SHD_OK);
    ck_assert_uint_eq(s.base[s.extents_at], 1);
    expect(segment_commit(&s, s.extents_at + 4096, 4096), SHD_OK);
    ck_assert_uint_eq(s.base[s.extents_at + 4096], 0);
    expect(segment_commit(&s, s.extents_at, 0), SHD_OK);
}
END_TEST

START_TEST(memory_outside_is_corrupt)
{
    struct segment s;

    expect(create(NAME, &s), SHD_OK);
    expect(segment_commit(&s, s.size, 1), SHD_CORRUPT);
    expect(segment_commit(&s, s.size - 1, 2), SHD_CORRUPT);
    expect(segment_commit(&s, 8, UINT64_MAX - 4), SHD_CORRUPT);
    expect(segment_decommit(&s, s.size, 1), SHD_CORRUPT);
    expect(segment_decommit(&s, 8, UINT64_MAX - 4), SHD_CORRUPT);
    ck_assert_ptr_null(segment_at(&s, s.size, 1));
    ck_assert_ptr_null(segment_at(&s, 8, UINT64_MAX - 4));
    ck_assert_ptr_eq(segment_at(&s, s.size - 1, 1), s.base + s.size - 1);
}
END_TEST

START_TEST(a_read_only_attachment_changes_nothing)
{
    struct segment s, r;
    int status;
    pid_t child;

    expect(create(NAME, &s), SHD_OK);
    expect(attach(NAME, SHD_ATTACH_READONLY, &r), SHD_OK);
    expect(segment_commit(&r, r.extents_at, 4096), SHD_READONLY);
    expect(segment_decommit(&r, r.extents_at, 4096), SHD_READONLY);
    expect(segment_liveness_lock(&r, 0), SHD_READONLY);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile unsigned char *)r.base = 0;
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(status != 0, "a store through a read-only mapping worked");
    ck_assert_uint_eq(segment_header(&s)->magic, SEGMENT_MAGIC);
}
END_TEST

/* The flags line of the mapping in smaps. */
static bool is_dumped(const void *address)
{
    char line[512], want[32];
    bool inside = false, dumped = true;
    FILE *f = fopen("/proc/self/smaps", "r");

    ck_assert_ptr_nonnull(f);
    snprintf(want, sizeof(want), "%lx-", (unsigned long)address);
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, want, strlen(want)) == 0)
            inside = true;
        if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            dumped = strstr(line, " dd") == NULL;
            break;
        }
    }
    fclose(f);
    ck_assert(inside);
    return dumped;
}

START_TEST(core_dumps_leave_the_segment_out_unless_asked)
{
    struct segment a, b;

    expect(create(NAME, &a), SHD_OK);
    ck_assert(!is_dumped(a.base));
    expect(attach(NAME, SHD_DUMPABLE, &b), SHD_OK);
    ck_assert(is_dumped(b.base));
}
END_TEST

/* ---- liveness --------------------------------------------------------- */

START_TEST(a_byte_is_locked_by_one_description_at_a_time)
{
    struct segment a, b;

    expect(create(NAME, &a), SHD_OK);
    expect(attach(NAME, 0, &b), SHD_OK);
    ck_assert_int_eq(segment_liveness_is_locked(&b, 3), 0);
    expect(segment_liveness_lock(&a, 3), SHD_OK);
    ck_assert_int_eq(segment_liveness_is_locked(&b, 3), 1);
    ck_assert_int_eq(segment_liveness_is_locked(&b, 2), 0);
    ck_assert_int_eq(segment_liveness_is_locked(&b, 4), 0);
    ck_assert_int_eq(segment_liveness_is_locked(&a, 3), 0);
    expect(segment_liveness_lock(&b, 3), SHD_BUSY);
    expect(segment_liveness_unlock(&a, 3), SHD_OK);
    expect(segment_liveness_lock(&b, 3), SHD_OK);
    segment_close(&b);
    ck_assert_int_eq(segment_liveness_is_locked(&a, 3), 0);
}
END_TEST

START_TEST(a_read_only_attachment_sees_who_lives)
{
    struct segment a, r;

    expect(create(NAME, &a), SHD_OK);
    expect(attach(NAME, SHD_ATTACH_READONLY, &r), SHD_OK);
    expect(segment_liveness_lock(&a, 65534), SHD_OK);
    ck_assert_int_eq(segment_liveness_is_locked(&r, 65534), 1);
    ck_assert_int_eq(segment_liveness_is_locked(&r, 0), 0);
}
END_TEST

START_TEST(a_byte_is_free_when_its_process_is_killed)
{
    struct segment s;
    siginfo_t info;
    pid_t child;

    expect(create(NAME, &s), SHD_OK);
    dying_child(child, {
        struct segment c;

        if (attach(NAME, 0, &c) != SHD_OK ||
            segment_liveness_lock(&c, 1) != SHD_OK)
            _exit(1);
        raise(SIGSTOP);
    });
    support_wait_stopped(child);
    ck_assert_int_eq(segment_liveness_is_locked(&s, 1), 1);
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    /* A zombie is dead enough. */
    ck_assert_int_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    ck_assert_int_eq(segment_liveness_is_locked(&s, 1), 0);
    support_wait_killed(child);
}
END_TEST

START_TEST(a_forked_child_does_not_keep_its_parents_byte)
{
    struct segment s;
    int ready[2], status;
    pid_t parent, child = 0;

    expect(create(NAME, &s), SHD_OK);
    ck_assert_int_eq(pipe(ready), 0);
    dying_child(parent, {
        struct segment c;
        int number;

        if (attach(NAME, 0, &c) != SHD_OK ||
            segment_liveness_lock(&c, 1) != SHD_OK)
            _exit(1);
        number = c.fd;
        child = fork();
        if (child == 0) {
            segment_after_fork(&c);
            child = getpid();
            if (c.fd != number || segment_liveness_lock(&c, 2) != SHD_OK ||
                write(ready[1], &child, sizeof(child)) != sizeof(child))
                _exit(1);
            for (;;)
                pause();
        }
        waitpid(child, &status, 0);
        _exit(1);
    });
    ck_assert_int_eq(read(ready[0], &child, sizeof(child)), sizeof(child));
    ck_assert_int_eq(segment_liveness_is_locked(&s, 1), 1);
    support_kill(parent);
    ck_assert_int_eq(segment_liveness_is_locked(&s, 1), 0);
    ck_assert_int_eq(segment_liveness_is_locked(&s, 2), 1);
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    for (int i = 0; segment_liveness_is_locked(&s, 2) != 0; i++) {
        ck_assert_int_lt(i, 5000);
        support_sleep_ms(1);
    }
}
END_TEST

START_TEST(a_child_without_descriptors_can_only_read)
{
    struct rlimit limit;
    struct segment s;
    rlim_t before;

    expect(create(NAME, &s), SHD_OK);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    before = limit.rlim_cur;
    limit.rlim_cur = 0;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    errno = 123;
    segment_after_fork(&s);
    ck_assert_int_eq(errno, 123);
    limit.rlim_cur = before;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_int_eq(s.fd, -1);
    expect(segment_commit(&s, s.extents_at, 4096), SHD_SYS);
    expect_said("after fork");
    expect(segment_liveness_lock(&s, 0), SHD_SYS);
    ck_assert_uint_eq(segment_header(&s)->magic, SEGMENT_MAGIC);
    segment_after_fork(&s);
    segment_close(&s);
}
END_TEST

/* ---- check ------------------------------------------------------------ */

static const struct {
    size_t at;
    uint32_t value;
    const char *says;
} damages[] = {
    {offsetof(struct segment_header, magic), 1, "magic"},
    {offsetof(struct segment_header, byte_order), 1, "byte order"},
    {offsetof(struct segment_header, layout_version), 9, "layout version"},
    {offsetof(struct segment_header, size_bytes), 1, "size_bytes"},
    {offsetof(struct segment_header, size_bytes), 1 << 20,
     "changed since attach"},
    {offsetof(struct segment_header, hash_seed), 0, "hash seed"},
    {offsetof(struct segment_header, workers_max), 5, "changed since attach"},
    {offsetof(struct segment_header, objects_max), 0, "objects_max"},
    {offsetof(struct segment_header, locks_max), 1, "locks_max"},
    {offsetof(struct segment_header, guards_at), 1, "guards_at"},
    {offsetof(struct segment_header, catalogue_at), 1, "catalogue_at"},
    {offsetof(struct segment_header, workers_at), 1, "workers_at"},
    {offsetof(struct segment_header, extents_at), 1, "extents_at"},
    {offsetof(struct segment_header, guards_used), 13, "guards_used"},
};

START_TEST(check_names_what_is_damaged)
{
    struct segment s;
    char report[256];

    expect(create(NAME, &s), SHD_OK);
    expect(segment_check(&s, report, sizeof(report)), SHD_OK);
    memcpy(s.base + damages[_i].at, &damages[_i].value, 4);
    expect_named(segment_check(&s, report_, sizeof(report_)),
                 damages[_i].says);
}
END_TEST

START_TEST(check_notices_a_file_that_was_cut)
{
    struct segment s;

    expect(create(NAME, &s), SHD_OK);
    ck_assert_int_eq(truncate(FILE_NAME, (off_t)s.size - 4096), 0);
    expect_named(segment_check(&s, report_, sizeof(report_)), "file's size");
}
END_TEST

static TCase *new_case(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);

    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    return c;
}

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static void add_name_cases(TCase *c)
{
    tcase_add_test(c, plain_names_lie_in_tmpfs);
    tcase_add_test(c, paths_are_taken_as_they_are);
    tcase_add_test(c, descriptors_are_numbers);
    tcase_add_loop_test(c, bad_names_are_refused_with_the_reason, 0,
                        COUNT(bad_names));
    tcase_add_test(c, a_path_that_is_too_long_is_refused);
}

static void add_create_cases(TCase *c)
{
    tcase_add_test(c, a_created_segment_can_be_attached);
    tcase_add_test(c, seeds_differ);
    tcase_add_test(c, defaults_are_those_of_the_manual);
    tcase_add_test(c, the_room_asked_for_comes_on_top_of_the_tables);
    tcase_add_test(c, an_existing_name_is_left_alone);
    tcase_add_test(c, the_mode_does_not_depend_on_the_umask);
    tcase_add_test(c, descriptors_close_on_exec);
    tcase_add_loop_test(c, bad_options_are_refused_by_name, 0,
                        COUNT(option_says));
    tcase_add_test(c, nothing_is_created_read_only);
    tcase_add_test(c, a_creation_that_fails_leaves_no_file);
    tcase_add_test(c, a_missing_directory_is_said);
    tcase_add_test(c,
                   of_creators_that_race_one_wins_and_no_attacher_sees_half);
    tcase_add_test(c, without_tmpfile_a_temporary_name_does);
    tcase_add_loop_test(c, a_file_that_appears_meanwhile_is_not_replaced, 0,
                        2);
    tcase_add_loop_test(c, guard_pages_stop_who_runs_over_an_end, 0,
                         3);
    tcase_add_test(c, guard_pages_can_be_asked_for_from_outside);
    tcase_add_test(c, an_anonymous_segment_is_inherited_by_number);
    tcase_add_test(c, a_named_file_can_be_attached_by_number);
    tcase_add_test(c, too_little_address_space_is_said);
    tcase_add_test(c, a_limit_of_file_sizes_is_an_error_not_a_signal);
}

static void add_attach_cases(TCase *c)
{
    tcase_add_test(c, what_is_no_segment_is_foreign_and_stays);
    tcase_add_test(c, what_is_no_file_is_not_touched);
    tcase_add_test(c, a_truncated_segment_is_foreign_and_can_be_removed);
    tcase_add_test(c, another_byte_order_is_refused);
    tcase_add_test(c, another_layout_is_refused_and_says_what_differs);
    tcase_add_test(c, a_segment_from_before_a_reboot_is_refused);
    tcase_add_loop_test(c, a_header_that_contradicts_itself_is_not_trusted, 0,
                        COUNT(contradictions));
    tcase_add_test(c, another_pid_namespace_reads_but_does_not_write);
    tcase_add_test(c, a_child_in_a_real_pid_namespace_is_refused);
    tcase_add_test(c, the_mode_decides_who_may_attach);
    tcase_add_test(c, a_name_that_another_user_took_is_not_written);
    tcase_add_test(c, a_read_only_file_system_is_said);
    tcase_add_test(c, a_full_tmpfs_is_no_memory_and_leaves_nothing);
    tcase_add_test(c, a_file_system_that_cannot_reserve_is_unsupported);
}

static void add_memory_cases(TCase *c)
{
    tcase_add_test(c, memory_is_taken_and_given_back);
    tcase_add_test(c, memory_outside_is_corrupt);
    tcase_add_test(c, a_read_only_attachment_changes_nothing);
    tcase_add_test(c, core_dumps_leave_the_segment_out_unless_asked);
}

static void add_liveness_cases(TCase *c)
{
    tcase_add_test(c, a_byte_is_locked_by_one_description_at_a_time);
    tcase_add_test(c, a_read_only_attachment_sees_who_lives);
    tcase_add_test(c, a_byte_is_free_when_its_process_is_killed);
    tcase_add_test(c, a_forked_child_does_not_keep_its_parents_byte);
    tcase_add_test(c, a_child_without_descriptors_can_only_read);
}

int main(void)
{
    Suite *suite = suite_create("segment");
    TCase *check = new_case(suite, "check");

    support_names("segment");
    add_name_cases(new_case(suite, "name"));
    add_create_cases(new_case(suite, "create"));
    add_attach_cases(new_case(suite, "attach"));
    add_memory_cases(new_case(suite, "memory"));
    add_liveness_cases(new_case(suite, "liveness"));
    tcase_add_loop_test(check, check_names_what_is_damaged, 0, COUNT(damages));
    tcase_add_test(check, check_notices_a_file_that_was_cut);
    return support_run(suite);
}
