/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite placing: huge pages, prefault and interleave take effect where the
 * system offers them, and are what shdict.h says where it does not.
 * valgrind: no (it does not know these system calls) */
#include "tests/unit/fixture.h"

#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "shm/segment/placing.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define MIB (1u << 20)
#define CAPACITY (8u * MIB)

static void start_flags(const char *name, uint32_t flags, uint64_t capacity)
{
    struct shd_segment_options so = segment_options();
    struct shd_dict_options o = dict_options(capacity, 1, 0);

    so.flags = flags;
    expect(shd_segment_create(name, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "d", &o, &dict), SHD_OK);
    inner = &dict->dict;
}

static uint64_t huge_bytes(void)
{
    struct shd_segment_info i = {.struct_size = sizeof(i)};

    expect(shd_segment_info(segment, &i), SHD_OK);
    return i.huge_bytes;
}

/* The number in the lines of smaps of the segment that begin so, bytes. */
static uint64_t smaps_bytes(const char *line_name)
{
    uint64_t base = (uintptr_t)segment->segment.base, sum = 0;
    FILE *f = fopen("/proc/self/smaps", "re");
    unsigned long long from, to, kb;
    bool inside = false;
    char line[512];

    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
            inside = from >= base && to <= base + segment->segment.size;
        else if (inside && strncmp(line, line_name, strlen(line_name)) == 0 &&
                 sscanf(line + strlen(line_name), ": %llu kB", &kb) == 1)
            sum += kb * 1024;
    }
    ck_assert_int_eq(fclose(f), 0);
    return sum;
}

/* Does this system make huge pages of shared memory at all? */
static bool offers_huge_pages(void)
{
    int fd = memfd_create("offer", MFD_CLOEXEC);
    unsigned char *p;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, PLACING_HUGE_BYTES), 0);
    p = placing_map(PLACING_HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                    fd);
    ck_assert(p != MAP_FAILED);
    memset(p, 1, PLACING_HUGE_BYTES);
    bool offers = madvise(p, PLACING_HUGE_BYTES, MADV_COLLAPSE) == 0;
    ck_assert_int_eq(munmap(p, PLACING_HUGE_BYTES), 0);
    ck_assert_int_eq(close(fd), 0);
    return offers;
}

START_TEST(without_options_nothing_is_taken_that_is_not_used)
{
    start_flags(NULL, 0, CAPACITY);
    ck_assert_uint_eq(huge_bytes(), 0);
    ck_assert_uint_eq(smaps_bytes("ShmemPmdMapped"), 0);
    ck_assert_uint_lt(smaps_bytes("Rss"), 2 * MIB);
    ck_assert_uint_lt(info().pages_committed, info().pages / 2);
}
END_TEST

START_TEST(a_mapping_for_huge_pages_begins_at_one)
{
    start_flags(NULL, SHD_HUGE_PAGES, CAPACITY);
    ck_assert_uint_eq((uintptr_t)segment->segment.base % PLACING_HUGE_BYTES,
                      0);
    expect(set("k", 100000, 1), SHD_OK);
    holds("k", 100000, 1);
    sound();
    expect(shd_segment_close(segment), SHD_OK);
}
END_TEST

START_TEST(huge_pages_are_got_where_the_system_has_them)
{
    start_flags(NULL, SHD_HUGE_PAGES | SHD_PREFAULT, CAPACITY);
    ck_assert_uint_eq(huge_bytes(), smaps_bytes("ShmemPmdMapped"));
    if (offers_huge_pages())
        ck_assert_uint_ge(huge_bytes(), CAPACITY - 2 * PLACING_HUGE_BYTES);
    else
        ck_assert_uint_eq(huge_bytes(), 0);
    for (unsigned i = 0; i < 2000; i++) {
        char key[16];

        snprintf(key, sizeof(key), "k%u", i);
        expect(set(key, 3000, i), SHD_OK);
    }
    holds("k1999", 3000, 1999);
    sound();
}
END_TEST

START_TEST(prefault_takes_all_of_the_dict_and_no_more)
{
    struct shd_segment_info i = {.struct_size = sizeof(i)};

    start_flags(NULL, SHD_PREFAULT, CAPACITY);
    ck_assert_uint_eq(info().pages_committed, info().pages);
    ck_assert_uint_ge(smaps_bytes("Rss"), info().pages * PAGE_BYTES);
    expect(shd_segment_info(segment, &i), SHD_OK);
    ck_assert_uint_lt(i.committed_bytes, CAPACITY + 256 * 1024);
    expect(set("k", 100000, 1), SHD_OK);
    holds("k", 100000, 1);
    sound();
}
END_TEST

START_TEST(prefault_of_more_than_there_is_is_no_memory)
{
    char directory[] = "/tmp/check_placing.XXXXXX";
    struct shd_segment_options so = segment_options();
    struct shd_dict_options o = dict_options(CAPACITY, 1, 0);
    char name[64];

    ck_assert_ptr_nonnull(mkdtemp(directory));
    if (mount_tmpfs(directory, "3m")) {
        snprintf(name, sizeof(name), "%s/segment", directory);
        so.flags = SHD_PREFAULT | SHD_HUGE_PAGES;
        expect(shd_segment_create(name, &so, &segment), SHD_OK);
        expect(shd_dict_open(segment, "d", &o, &dict), SHD_NOMEM);
        sound();
        expect(shd_segment_close(segment), SHD_OK);
        /* It is there, and takes what there is, without the option. */
        so.flags = 0;
        expect(shd_segment_attach(name, &so, &segment), SHD_OK);
        expect(shd_dict_open(segment, "d", NULL, &dict), SHD_OK);
        inner = &dict->dict;
        expect(set("k", 100000, 1), SHD_OK);
        holds("k", 100000, 1);
        sound();
        ck_assert_int_eq(umount2(directory, MNT_DETACH), 0);
    }
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

START_TEST(a_reader_ignores_what_is_for_writers)
{
    char name[64];
    shd_segment *writer;

    snprintf(name, sizeof(name), "check-placing-%d", (int)getpid());
    start_flags(name, 0, CAPACITY);
    expect(set("k", 100, 1), SHD_OK);
    writer = segment;
    expect(shd_segment_close(writer), SHD_OK);
    struct shd_segment_options so = segment_options();
    so.flags = SHD_ATTACH_READONLY | SHD_PREFAULT | SHD_HUGE_PAGES |
               SHD_INTERLEAVE;
    expect(shd_segment_attach(name, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "d", NULL, &dict), SHD_OK);
    holds("k", 100, 1);
    ck_assert_uint_lt(info().pages_committed, info().pages / 2);
    expect(shd_segment_destroy(name), SHD_OK);
}
END_TEST

/* The policy that the kernel gives for the segment's mapping. */
static bool is_interleaved(void)
{
    FILE *f = fopen("/proc/self/numa_maps", "re");
    unsigned long long at;
    char policy[64] = "", line[1024];
    bool found = false;

    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "%llx %63s", &at, policy) == 2 &&
            at == (uintptr_t)segment->segment.base)
            found = strncmp(policy, "interleave", 10) == 0;
    }
    ck_assert_int_eq(fclose(f), 0);
    return found;
}

START_TEST(memory_is_interleaved_where_the_kernel_can)
{
    struct shd_segment_options so = segment_options();
    int rc;

    so.flags = SHD_INTERLEAVE;
    rc = shd_segment_create(NULL, &so, &segment);
    if (rc != SHD_OK) {
        ck_assert_int_ne(access("/proc/self/numa_maps", R_OK), 0);
        ck_assert(rc == SHD_UNSUPPORTED || rc == SHD_PERM);
        ck_assert_uint_gt(strlen(shd_last_error()), 20);
        return;
    }
    ck_assert(is_interleaved());
    expect(shd_segment_close(segment), SHD_OK);
    start_flags(NULL, 0, CAPACITY);
    if (access("/proc/self/numa_maps", R_OK) == 0)
        ck_assert(!is_interleaved());
}
END_TEST

int main(void)
{
    Suite *s = suite_create("placing");
    TCase *c = tcase_create("placing");

    tcase_add_test(c, without_options_nothing_is_taken_that_is_not_used);
    tcase_add_test(c, a_mapping_for_huge_pages_begins_at_one);
    tcase_add_test(c, huge_pages_are_got_where_the_system_has_them);
    tcase_add_test(c, prefault_takes_all_of_the_dict_and_no_more);
    tcase_add_test(c, prefault_of_more_than_there_is_is_no_memory);
    tcase_add_test(c, a_reader_ignores_what_is_for_writers);
    tcase_add_test(c, memory_is_interleaved_where_the_kernel_can);
    suite_add_tcase(s, c);
    return run_suite(s);
}
