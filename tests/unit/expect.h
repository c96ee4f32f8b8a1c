/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/unit/expect.h - results reported with the library's own sentence.
 * For the suites of memory/, dict/ and the dict part of api/.
 */
#ifndef TESTS_UNIT_EXPECT_H
#define TESTS_UNIT_EXPECT_H

#include <check.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/shdict.h"

/* The result must be `code`; if not, say what it was and what the library
 * says about it. */
#define expect(expression, code)                                              \
    do {                                                                      \
        int got_ = (expression);                                              \
        ck_assert_msg(got_ == (code), "%s is %s (%s), not %s", #expression,   \
                      got_ > 0 ? "positive" : shd_strerror_name(got_),        \
                      shd_last_error(),                                       \
                      (code) > 0 ? #code : shd_strerror_name(code));          \
    } while (0)

/* A check of `report` must fail and name this. */
#define expect_named(expression, text)                                        \
    do {                                                                      \
        char report[256] = "";                                                \
        int got_ = (expression);                                              \
        ck_assert_msg(got_ == SHD_CORRUPT, "%s is %s", #expression,           \
                      shd_strerror_name(got_));                               \
        ck_assert_msg(strstr(report, (text)) != NULL,                         \
                      "'%s' does not name '%s'", report, (text));             \
    } while (0)

/* A check of `report` must find nothing. */
#define expect_sound(expression)                                              \
    do {                                                                      \
        char report[256] = "";                                                \
        int got_ = (expression);                                              \
        ck_assert_msg(got_ == SHD_OK, "%s: %s: %s", #expression,              \
                      shd_strerror_name(got_), report);                       \
    } while (0)

/* The last error's sentence must tell this. */
#define expect_said(text)                                                     \
    ck_assert_msg(strstr(shd_last_error(), (text)) != NULL,                   \
                  "'%s' does not tell '%s'", shd_last_error(), (text))

static uint64_t random_state __attribute__((unused)) = 0x9e3779b97f4a7c15ull;

static inline uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state >> 8;
}

static inline uint32_t random_below(uint32_t n)
{
    return (uint32_t)(random_next() % n);
}

/* Bytes that differ by seed and by place. */
static inline unsigned char *pattern(unsigned char *to, size_t len,
                                     unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (unsigned char)(seed * 31 + i * 7 + (i >> 8) + (i >> 16));
    return to;
}

/* A tmpfs of that many bytes, in a mount namespace of this process alone, on
 * `directory`. False, and said so, where the system lets nobody mount. */
static inline bool mount_tmpfs(const char *directory, const char *size)
{
    char data[64];

    if (unshare(CLONE_NEWNS) != 0 &&
        unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        fprintf(stderr, "skipped: this user may not mount a tmpfs: %s\n",
                strerror(errno));
        return false;
    }
    snprintf(data, sizeof(data), "size=%s", size);
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", directory, "tmpfs", 0, data) != 0) {
        fprintf(stderr, "skipped: no tmpfs can be mounted here: %s\n",
                strerror(errno));
        return false;
    }
    return true;
}

static inline void wait_killed(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
                  "the child ended with status 0x%x before it was killed",
                  status);
}

static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
