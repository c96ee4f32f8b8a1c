/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/unit/ipc.h - for the suites of topics and locks: a segment with a
 * name, and children with attachments of their own that do as they are told.
 */
#ifndef TESTS_UNIT_IPC_H
#define TESTS_UNIT_IPC_H

#include "tests/unit/expect.h"

#include "shm/api/handle.h"
#include "shm/api/object.h"
#include "shm/base/clock.h"

static shd_segment *segment __attribute__((unused));

static inline void start_segment(void)
{
    struct shd_segment_options o;

    memset(&o, 0, sizeof(o));
    o.struct_size = sizeof(o);
    o.size_bytes = 64u << 20;
    o.workers_max = 16;
    o.objects_max = 8;
    o.locks_max = 32;
    expect(shd_segment_create(NULL, &o, &segment), SHD_OK);
}

static inline void sound(void)
{
    char report[256] = "";
    int rc = shd_segment_check(segment, report, sizeof(report));

    ck_assert_msg(rc == SHD_OK, "%s: %s", shd_strerror_name(rc), report);
}

#define expect_check_names(text)                                              \
    expect_named(shd_segment_check(segment, report, sizeof(report)), text)

/* The incarnation of this worker. */
static inline uint64_t me(void)
{
    uint64_t incarnation = 0;

    expect(shd_worker_join(segment, &incarnation), SHD_OK);
    return incarnation;
}

/* A worker that is killed at the end of the braces; a failed expectation in it
 * is no SIGKILL, and noticed. */
#define dying_worker(body)                                                    \
    do {                                                                      \
        pid_t pid_ = fork();                                                  \
        ck_assert_int_ge(pid_, 0);                                            \
        if (pid_ == 0) {                                                      \
            body;                                                             \
            kill(getpid(), SIGKILL);                                          \
        }                                                                     \
        wait_killed(pid_);                                                    \
    } while (0)

/* A worker that does what is in the braces, stops, and lives on. */
#define stopped_worker(pid, body)                                             \
    do {                                                                      \
        int status_;                                                          \
        (pid) = fork();                                                       \
        ck_assert_int_ge((pid), 0);                                           \
        if ((pid) == 0) {                                                     \
            body;                                                             \
            raise(SIGSTOP);                                                   \
            _exit(0);                                                         \
        }                                                                     \
        ck_assert_int_eq(waitpid((pid), &status_, WUNTRACED), (pid));         \
        ck_assert_msg(WIFSTOPPED(status_), "the child ended: 0x%x", status_); \
    } while (0)

/* A worker that runs beside, and must end with _exit(0). */
#define running_worker(pid, body)                                             \
    do {                                                                      \
        (pid) = fork();                                                       \
        ck_assert_int_ge((pid), 0);                                           \
        if ((pid) == 0) {                                                     \
            body;                                                             \
            _exit(0);                                                         \
        }                                                                     \
    } while (0)

static inline void ends_well(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                  "the child ended: 0x%x", status);
}

static inline void kill_worker(pid_t pid)
{
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    wait_killed(pid);
}

#endif
