/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/unit/support.h - what the suites of the lower floors share: results
 * that are reported with the library's own sentence, a segment with guards
 * and tables and nothing else, and children that die when they are told to.
 */
#ifndef TESTS_UNIT_SUPPORT_H
#define TESTS_UNIT_SUPPORT_H

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/guard/guard.h"
#include "shm/memory/catalogue.h"
#include "shm/worker/registry.h"

#define FINGERPRINT 7u

/* Names of this run alone: the same suite may run beside itself, built
 * otherwise. Fixed by main(), before Check forks. */
static char support_name[40], support_file[64], support_other[48],
    support_other_file[72];

static inline void support_names(const char *suite)
{
    snprintf(support_name, sizeof(support_name), "unit-%.20s-%d", suite,
             (int)getpid());
    snprintf(support_file, sizeof(support_file), "/dev/shm/shdict-%s",
             support_name);
    snprintf(support_other, sizeof(support_other), "%s.2", support_name);
    snprintf(support_other_file, sizeof(support_other_file),
             "/dev/shm/shdict-%s", support_other);
}

/* The result must be `code`; if not, say what it was and what the library
 * says about it. */
#define expect(expression, code)                                              \
    do {                                                                      \
        int got_ = (expression);                                              \
        ck_assert_msg(got_ == (code), "%s is %s (%s), not %s", #expression,   \
                      shd_strerror_name(got_), shd_last_error(),              \
                      shd_strerror_name(code));                               \
    } while (0)

/* The last error's sentence must tell this. */
#define expect_said(text)                                                     \
    ck_assert_msg(strstr(shd_last_error(), (text)) != NULL,                   \
                  "'%s' does not tell '%s'", shd_last_error(), (text))

/* A check must fail and name this. */
#define expect_named(expression, text)                                        \
    do {                                                                      \
        char report_[256] = "";                                               \
        int got_ = (expression);                                              \
        ck_assert_msg(got_ == SHD_CORRUPT, "%s is %s", #expression,           \
                      shd_strerror_name(got_));                               \
        ck_assert_msg(strstr(report_, (text)) != NULL,                        \
                      "'%s' does not name '%s'", report_, (text));            \
    } while (0)

static inline int support_initialize(struct segment *s)
{
    int rc = registry_initialize(s);

    return rc == SHD_OK ? catalogue_initialize(s) : rc;
}

static inline struct shd_segment_options support_options(void)
{
    struct shd_segment_options o;

    memset(&o, 0, sizeof(o));
    o.struct_size = sizeof(o);
    o.size_bytes = 1 << 20;
    o.workers_max = 4;
    o.objects_max = 6;
    o.locks_max = 12;
    return o;
}

static inline void support_segment(const char *name, struct segment *s,
                                   struct guard_env *env)
{
    struct shd_segment_options o = support_options();

    expect(segment_create(name, &o, FINGERPRINT, support_initialize, s),
           SHD_OK);
    memset(env, 0, sizeof(*env));
    env->segment = s;
    env->wait_ms = 2000;
}

/* Forks; the child runs what follows in braces and is killed at the end of it
 * by SIGKILL, the way a worker dies. */
#define dying_child(pid, body)                                                \
    do {                                                                      \
        (pid) = fork();                                                       \
        ck_assert_int_ge((pid), 0);                                           \
        if ((pid) == 0) {                                                     \
            body;                                                             \
            kill(getpid(), SIGKILL);                                          \
        }                                                                     \
    } while (0)

static inline void support_wait_killed(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
                  "the child ended with status 0x%x before it was killed",
                  status);
}

/* Waits until the child has stopped itself. */
static inline void support_wait_stopped(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
    ck_assert_msg(WIFSTOPPED(status),
                  "the child ended with status 0x%x and did not stop", status);
}

static inline void support_kill(pid_t pid)
{
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    support_wait_killed(pid);
}

static inline int64_t support_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void support_sleep_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

static inline int support_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
