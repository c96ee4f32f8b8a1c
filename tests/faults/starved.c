/* SPDX-License-Identifier: BSD-2-Clause */
/* What runs out, or is taken away: file systems, files, memory, descriptors. */
#include "tests/faults/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/shdict-faults-XXXXXX";

static void remount(const char *size)
{
    char options[40];

    snprintf(options, sizeof(options), "mode=0755,size=%s", size);
    if (mount("none", directory, "tmpfs", MS_REMOUNT, options) != 0)
        fail("remount: %m");
}

/* A tmpfs of that size, which only this process sees. */
static void own_tmpfs(const char *size)
{
    char options[40], path[60];

    if (mkdtemp(directory) == NULL)
        fail("mkdtemp: %m");
    snprintf(options, sizeof(options), "mode=0755,size=%s", size);
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", directory, "tmpfs", 0, options) != 0) {
        rmdir(directory);
        skip("no mount namespace of one's own (root is needed)");
    }
    snprintf(path, sizeof(path), "%s/segment", directory);
    set_segment_name(path);
}

static void leave_tmpfs(void)
{
    umount2(directory, MNT_DETACH);
    rmdir(directory);
}

static void a_full_tmpfs_is_no_memory_and_loses_nothing(void)
{
    unsigned stored = 0, refused = 0, there = 0;
    shd_segment *s;
    shd_dict *d;

    own_tmpfs("3m");
    s = make_segment(64);
    d = make_dict(s, "d", 16 << 20);
    for (unsigned i = 0; i < 1500; i++) {
        int rc = store(d, i, 4000);

        if (rc != SHD_OK && rc != SHD_NOMEM)
            fail("a store: %s (%s)", shd_strerror_name(rc), shd_last_error());
        stored += rc == SHD_OK;
        refused += rc == SHD_NOMEM;
        if (rc == SHD_OK)
            EXPECT(look(d, i), SHD_OK);
        else
            EXPECT(look(d, i), SHD_NOTFOUND);
    }
    for (unsigned i = 0; i < 1500; i++)
        there += look(d, i) == SHD_OK;
    printf("    %u stored, %u refused, %u there\n", stored, refused, there);
    /* A plain store evicts; one that must not is refused. */
    for (unsigned i = 0; i < 1500; i++) {
        char key[24];
        size_t len = (size_t)snprintf(key, sizeof(key), "safe %u", i);
        int rc = shd_store(d, SHD_SET | SHD_SAFE, key, len, SHD_NUMBER, NULL, 0,
                           i, 0, 0, NULL);

        if (rc != SHD_OK && rc != SHD_NOMEM)
            fail("a safe store: %s", shd_strerror_name(rc));
        refused += rc == SHD_NOMEM;
    }
    if (there == 0 || there == 1500 || refused == 0)
        fail("%u are there, %u refused: it was never full", there, refused);
    /* What is there is kept when there is no room for another value. */
    for (unsigned i = 0; i < 1500; i++) {
        if (look(d, i) != SHD_OK)
            continue;
        int rc = store(d, i, 100000);

        if (rc != SHD_OK && rc != SHD_NOMEM)
            fail("a longer value: %s", shd_strerror_name(rc));
        EXPECT(look(d, i), SHD_OK);
    }
    expect_sound();
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 64 << 10};
    for (unsigned i = 0; i < 10; i++) {
        char name[8];
        shd_dict *more;

        snprintf(name, sizeof(name), "m%u", i);
        int rc = shd_dict_open(s, name, &o, &more);
        if (rc != SHD_OK && rc != SHD_NOMEM)
            fail("another dict: %s", shd_strerror_name(rc));
    }
    expect_sound();
    /* With more room it goes on. */
    remount("64m");
    for (unsigned i = 0; i < 1500; i++)
        EXPECT(store(d, i, 4000), SHD_OK);
    for (unsigned i = 0; i < 1500; i++)
        EXPECT(look(d, i), SHD_OK);
    expect_sound();
    leave_tmpfs();
}

static void nothing_is_made_where_there_is_no_room(void)
{
    struct shd_segment_options o = options_of(64);
    char report[8];
    shd_segment *s;
    int rc;

    own_tmpfs("16k");
    rc = shd_segment_create(segment_name(), &o, &s);
    expect_rc(rc, SHD_NOMEM, "creating");
    rc = shd_segment_attach(segment_name(), NULL, &s);
    expect_rc(rc, SHD_NOTFOUND, "attaching");
    (void)report;
    leave_tmpfs();
}

static void a_reaper_works_on_a_full_tmpfs(void)
{
    shd_segment *s;
    shd_dict *d;
    uint32_t reaped;
    pid_t pid;

    own_tmpfs("3m");
    s = make_segment(64);
    d = make_dict(s, "d", 16 << 20);
    for (unsigned i = 0; i < 1500; i++) {
        int rc = store(d, i, 4000);
        (void)rc;
    }
    pid = fork();
    if (pid == 0) {
        alarm(1);
        signal(SIGALRM, SIG_DFL);
        for (unsigned i = 0;; i++) {
            int rc = store(d, i % 1500, i % 5000);
            (void)rc;
        }
    }
    (void)child_result(pid);
    EXPECT(shd_reap(s, &reaped), SHD_OK);
    if (reaped != 1)
        fail("%u reaped", reaped);
    expect_sound();
    leave_tmpfs();
}

/* ---- a file that is cut ------------------------------------------------- */

static void cut(const char *path, off_t size)
{
    if (truncate(path, size) != 0)
        fail("truncate: %m");
}

static void path_of_segment(char path[100])
{
    snprintf(path, 100, "/dev/shm/shdict-%s", segment_name());
}

static void who_touches_what_was_cut_off_dies_of_it(void)
{
    shd_segment *s = make_segment(16), *again;
    shd_dict *d = make_dict(s, "d", 1 << 20);
    char path[100];
    pid_t pid;
    int result;

    for (unsigned i = 0; i < 100; i++)
        EXPECT(store(d, i, 1000), SHD_OK);
    EXPECT(shd_segment_close(s), SHD_OK);
    EXPECT(shd_segment_attach(segment_name(), NULL, &s), SHD_OK);
    path_of_segment(path);
    pid = fork();
    if (pid == 0) {
        EXPECT(shd_dict_open(s, "d", NULL, &d), SHD_OK);
        EXPECT(store(d, 1, 1000), SHD_OK);
        cut(path, 4096);
        for (unsigned i = 0; i < 100; i++)
            if (look(d, i) == SHD_OK && i > 50)
                _exit(1);
        _exit(2);
    }
    result = child_result(pid);
    if (result != -SIGBUS)
        fail("the worker ended with %d", result);
    /* The others are told. */
    expect_rc(shd_segment_attach(segment_name(), NULL, &again), SHD_FOREIGN,
              "attaching to what is cut");
    if (strstr(shd_last_error(), "truncated") == NULL)
        fail("'%s' does not say so", shd_last_error());
    EXPECT(shd_segment_destroy(segment_name()), SHD_OK);
}

static void an_anonymous_segment_cannot_be_cut(void)
{
    struct shd_segment_options o = options_of(16);
    shd_segment *s;
    shd_dict *d;
    int fd;

    EXPECT(shd_segment_create(NULL, &o, &s), SHD_OK);
    d = make_dict(s, "d", 1 << 20);
    EXPECT(store(d, 1, 1000), SHD_OK);
    fd = shd_segment_fd(s);
    if (ftruncate(fd, 4096) == 0 || errno != EPERM)
        fail("it was cut, or: %m");
    EXPECT(look(d, 1), SHD_OK);
}

/* ---- limits ------------------------------------------------------------- */

static void limit(int what, rlim_t most)
{
    struct rlimit l;

    if (getrlimit((__rlimit_resource_t)what, &l) != 0)
        fail("getrlimit: %m");
    l.rlim_cur = most;
    if (setrlimit((__rlimit_resource_t)what, &l) != 0)
        fail("setrlimit: %m");
}

/* What this process has mapped, bytes. */
static rlim_t address_space(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f == NULL || fscanf(f, "%lu", &pages) != 1)
        fail("no /proc/self/statm");
    fclose(f);
    return pages * 4096;
}

static void without_address_space_nothing_new_is_attached(void)
{
    struct shd_segment_options o = options_of(64);
    shd_segment *s = make_segment(16), *other;
    shd_dict *d = make_dict(s, "d", 1 << 20);
    char name[80];

    snprintf(name, sizeof(name), "%s-2", segment_name());
    limit(RLIMIT_AS, address_space() + (4 << 20));
    expect_rc(shd_segment_create(name, &o, &other), SHD_NOMEM, "creating");
    expect_rc(shd_segment_create(NULL, &o, &other), SHD_NOMEM, "creating");
    /* What is attached goes on. */
    for (unsigned i = 0; i < 2000; i++) {
        EXPECT(store(d, i, i % 5000), SHD_OK);
        EXPECT(look(d, i), SHD_OK);
    }
    EXPECT(shd_dict_resize(d, 2 << 20), SHD_OK);
    limit(RLIMIT_AS, RLIM_INFINITY);
    expect_sound();
    expect_rc(shd_segment_attach(name, NULL, &other), SHD_NOTFOUND,
              "attaching to what was not made");
}

static void without_descriptors_what_is_attached_goes_on(void)
{
    struct shd_segment_options o = options_of(16);
    shd_segment *s = make_segment(16), *other;
    shd_dict *d = make_dict(s, "d", 1 << 20);
    struct shd_watch *w;
    pid_t pid;

    EXPECT(store(d, 1, 100), SHD_OK);
    limit(RLIMIT_NOFILE, 0);
    expect_rc(shd_segment_create(NULL, &o, &other), SHD_SYS, "creating");
    expect_rc(shd_segment_attach(segment_name(), NULL, &other), SHD_SYS,
              "attaching");
    expect_rc(shd_worker_fd(s), SHD_SYS, "a bell");
    expect_rc(shd_watch_open(s, NULL, &w), SHD_SYS, "a watch");
    for (unsigned i = 0; i < 2000; i++) {
        EXPECT(store(d, i, i % 5000), SHD_OK);
        EXPECT(look(d, i), SHD_OK);
    }
    EXPECT(shd_dict_resize(d, 2 << 20), SHD_OK);
    EXPECT(shd_reap(s, NULL), SHD_OK);
    /* A child has no description of its own: it reads. */
    pid = fork();
    if (pid == 0) {
        EXPECT(look(d, 1999), SHD_OK);
        expect_rc(store(d, 1, 1), SHD_SYS, "a store in the child");
        _exit(0);
    }
    if (child_result(pid) != 0)
        fail("in the child");
    limit(RLIMIT_NOFILE, 1024);
    expect_sound();
}

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) > 0;

    if (fd >= 0)
        close(fd);
    return done;
}

/* Of a control group: a store that takes memory fails, or the kernel kills. */
static void a_memory_limit_of_the_system_loses_nothing(void)
{
    char group[80], path[120], number[16];
    shd_segment *s = make_segment(512);
    shd_dict *d = make_dict(s, "d", 48 << 20);
    unsigned there = 0;
    uint32_t reaped;
    int result;
    pid_t pid;

    for (unsigned i = 0; i < 50; i++)
        EXPECT(store(d, i, 1000), SHD_OK);
    snprintf(group, sizeof(group), "/sys/fs/cgroup/shdict-faults-%d",
             (int)getpid());
    if (mkdir(group, 0755) != 0)
        skip("no control group of one's own can be made");
    snprintf(path, sizeof(path), "%s/memory.max", group);
    if (!write_file(path, "8000000")) {
        rmdir(group);
        skip("no limit of memory can be set");
    }
    pid = fork();
    if (pid == 0) {
        snprintf(path, sizeof(path), "%s/cgroup.procs", group);
        snprintf(number, sizeof(number), "%d", (int)getpid());
        if (!write_file(path, number))
            _exit(SKIPPED);
        for (unsigned i = 1000; i < 1000 + 700; i++) {
            int rc = store(d, i, 50000);

            if (rc != SHD_OK && rc != SHD_NOMEM)
                _exit(1);
        }
        _exit(0);
    }
    result = child_result(pid);
    for (int i = 0; i < 100 && rmdir(group) != 0; i++)
        usleep(10000);
    if (result == SKIPPED)
        skip("no process can be put under a limit");
    if (result != 0 && result != -SIGKILL)
        fail("the limited worker ended with %d", result);
    printf("    the limited worker %s\n",
           result == 0 ? "was refused memory, or fitted" : "was killed");
    EXPECT(shd_reap(s, &reaped), SHD_OK);
    for (unsigned i = 0; i < 50; i++)
        EXPECT(look(d, i), SHD_OK);
    for (unsigned i = 1000; i < 1700; i++)
        there += look(d, i) == SHD_OK;
    printf("    %u of its values are there\n", there);
    expect_sound();
}

#define CASE(title) {#title, title}
const struct fault_case STARVED[] = {
    CASE(a_full_tmpfs_is_no_memory_and_loses_nothing),
    CASE(nothing_is_made_where_there_is_no_room),
    CASE(a_reaper_works_on_a_full_tmpfs),
    CASE(who_touches_what_was_cut_off_dies_of_it),
    CASE(an_anonymous_segment_cannot_be_cut),
    CASE(without_address_space_nothing_new_is_attached),
    CASE(without_descriptors_what_is_attached_goes_on),
    CASE(a_memory_limit_of_the_system_loses_nothing),
    {NULL, NULL}};
