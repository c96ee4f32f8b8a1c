/* SPDX-License-Identifier: BSD-2-Clause */
/* One worker process: start, death, and when to start it again.
 *
 *   lived healthy_ms or more     at once, strikes forgotten
 *   SIGKILL (somebody's will,    at once, but not sooner than KILL_PERIOD_MS
 *     not the worker's fault)      after its start; no strike
 *   sooner, any other way        a strike: 100, 200, 400 ... 5000 ms; over
 *                                  restart_limit strikes: give up
 */
#include "supervise.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <fcntl.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MOST_MS 5000
#define KILL_PERIOD_MS 100

int64_t sup_now_ms(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        abort();
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct sup_worker *sup_worker_new(struct supervisor *s, enum sup_role role,
                                  unsigned id, uint32_t generation)
{
    struct sup_worker *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    w->role = role;
    w->id = id;
    w->generation = generation;
    w->pidfd = -1;
    TAILQ_INSERT_TAIL(&s->workers, w, link);
    return w;
}

void sup_worker_free(struct supervisor *s, struct sup_worker *w)
{
    TAILQ_REMOVE(&s->workers, w, link);
    free(w);
}

/* ---- start -------------------------------------------------------------- */

static int set_number(const char *name, long long value)
{
    char text[24];

    snprintf(text, sizeof(text), "%lld", value);
    return setenv(name, text, 1);
}

static int child_environment(const struct supervisor *s,
                             const struct sup_worker *w)
{
    if (setenv("SHDICT_SEGMENT", s->segment_name, 1) ||
        set_number("SHDICT_WORKER", w->id) ||
        set_number("SHDICT_GENERATION", w->generation) ||
        set_number("SHDICT_RESTARTS", w->restarts) ||
        set_number("SHDICT_PID", getpid()) ||
        setenv("SHDICT_SUPERVISED", s->token, 1))
        return -1;
    if (s->options.ready_ms > 0 ? setenv("SHDICT_PHASE", "starting", 1)
                                : unsetenv("SHDICT_PHASE"))
        return -1;
    if (s->listen_fd < 0)
        return unsetenv("LISTEN_FDS") || unsetenv("LISTEN_PID") ||
               unsetenv("LISTEN_FDNAMES");
    return set_number("LISTEN_FDS", 1) || set_number("LISTEN_PID", getpid()) ||
           setenv("LISTEN_FDNAMES", "http", 1);
}

/* Every descriptor of ours is at least 10, or may be overwritten. */
static int child_descriptors(const struct supervisor *s)
{
    if (s->listen_fd >= 0 && dup2(s->listen_fd, SUP_LISTEN_FD) < 0)
        return -1;
    return s->segment_fd >= 0 && dup2(s->segment_fd, SUP_SEGMENT_FD) < 0 ? -1
                                                                         : 0;
}

/* A process group of its own: Ctrl-C reaches the supervisor, which drains,
 * and not the worker; and at the end of a drain what a worker has started
 * goes with it. */
static void child(const struct supervisor *s, const struct sup_worker *w,
                  int report)
{
    struct sigaction normal = {.sa_handler = SIG_DFL};

    if (setpgid(0, 0) == 0 && child_descriptors(s) == 0 &&
        child_environment(s, w) == 0 &&
        sigaction(SIGPIPE, &normal, NULL) == 0 &&
        setrlimit(RLIMIT_NOFILE, &s->descriptors) == 0 &&
        sigprocmask(SIG_SETMASK, &s->mask, NULL) == 0)
        execvp(s->options.command[0], s->options.command);
    int error = errno;
    if (write(report, &error, sizeof(error)) != sizeof(error))
        _exit(126);
    _exit(127);
}

/* The pipe's writing end closes itself at exec: silence is success. */
static int child_report(int fd)
{
    int error = 0;
    ssize_t n;

    do
        n = read(fd, &error, sizeof(error));
    while (n < 0 && errno == EINTR);
    return n == 0 ? 0 : n == sizeof(error) ? error : EIO;
}

int sup_worker_watch(struct supervisor *s, struct sup_worker *w, int pidfd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = w};

    if (pidfd < 0)
        return errno;
    w->pidfd = pidfd;
    if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, w->pidfd, &event) == 0)
        return 0;
    int error = errno;
    close(w->pidfd);
    w->pidfd = -1;
    return error;
}

/* What could not be watched or did not come up is not left running. */
static void undo(struct sup_worker *w)
{
    kill(w->pid, SIGKILL);
    while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    w->pid = 0;
}

int sup_worker_start(struct supervisor *s, struct sup_worker *w)
{
    int ends[2];

    w->due_ms = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    ends[1] = sup_move_fd(ends[1]);
    w->pid = ends[1] < 0 ? -1 : fork();
    if (w->pid == 0)
        child(s, w, ends[1]);
    int error = w->pid < 0 ? errno : 0;
    if (ends[1] >= 0)
        close(ends[1]);
    if (w->pid > 0) {
        error = child_report(ends[0]);
        if (error == 0)
            error = sup_worker_watch(s, w, pidfd_open(w->pid, 0));
        if (error != 0)
            undo(w);
    }
    close(ends[0]);
    w->started_ms = sup_now_ms();
    w->adopted = w->ready = w->unready = false;
    w->incarnation = 0;
    w->recovered = w->recovery_us = -1;
    if (s->options.ready_ms > 0 && w->role != SUP_OLD)
        w->due_ms = w->started_ms + s->options.ready_ms;
    if (error != 0) {
        w->pid = 0;
        w->due_ms = 0;
        return error;
    }
    sup_log_begin(s, "start");
    sup_log_worker(w);
    sup_log_end();
    return 0;
}

/* ---- stop --------------------------------------------------------------- */

static bool has_ended(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    return poll(&p, 1, 0) != 0;
}

void sup_worker_signal(const struct sup_worker *w, int signal)
{
    if (w->pid == 0)
        return;
    /* Its group for SIGKILL: a shell's children go with it. A child has not
     * been waited for, so the number is still its own; that of an adopted one
     * is while it has not ended. */
    if (signal == SIGKILL && (!w->adopted || !has_ended(w->pidfd)))
        kill(-w->pid, SIGKILL);
    pidfd_send_signal(w->pidfd, signal, NULL, 0);
}

void sup_worker_stop(struct supervisor *s, struct sup_worker *w)
{
    if (w->pid == 0) {
        sup_worker_free(s, w);
        return;
    }
    int64_t due = sup_now_ms() + s->options.drain_ms;
    if (w->role != SUP_OLD || w->due_ms == 0 || due < w->due_ms)
        w->due_ms = due;
    w->role = SUP_OLD;
    sup_worker_signal(w, SIGTERM);
    /* For the others to see, and for the next supervisor, should we die now.
     * One that has just gone cannot be marked. */
    if (w->incarnation != 0)
        (void)!shd_worker_set_phase(s->segment, w->incarnation,
                                    SHD_PHASE_DRAINING);
}

void sup_worker_phase(struct supervisor *s, struct sup_worker *w,
                      uint32_t phase)
{
    if (phase != SHD_PHASE_READY || w->ready)
        return;
    w->ready = true;
    if (w->role != SUP_OLD)
        w->due_ms = 0;
    if (s->options.ready_ms == 0)
        return;
    sup_log_begin(s, "ready");
    sup_log_worker(w);
    sup_log_number("after_ms", sup_now_ms() - w->started_ms);
    sup_log_end();
}

/* ---- death -------------------------------------------------------------- */

int64_t sup_reap(struct supervisor *s)
{
    struct shd_segment_info before = {.struct_size = sizeof(before)};
    struct shd_segment_info after = {.struct_size = sizeof(after)};
    int code = shd_segment_info(s->segment, &before);

    if (code == SHD_OK)
        code = shd_reap(s->segment, NULL);
    if (code == SHD_OK)
        code = shd_segment_info(s->segment, &after);
    if (code != s->reap_code) {
        sup_log_begin(s, code == SHD_OK ? "reap_works" : "reap_failed");
        if (code != SHD_OK)
            sup_log_text("error", shd_strerror(code));
        sup_log_end();
        s->reap_code = code;
    }
    s->reap_due_ms = sup_now_ms() + 1000;
    return code == SHD_OK ? (int64_t)(after.recoveries - before.recoveries)
                          : 0;
}

static bool was_killed(const siginfo_t *how)
{
    return (how->si_code == CLD_KILLED || how->si_code == CLD_DUMPED) &&
           how->si_status == SIGKILL;
}

/* ms until it should be started again. */
static int64_t backoff(const struct supervisor *s, struct sup_worker *w,
                       bool killed, int64_t lived_ms)
{
    if (lived_ms >= s->options.healthy_ms) {
        w->strikes = 0;
        return 0;
    }
    if (killed)
        return lived_ms < KILL_PERIOD_MS ? KILL_PERIOD_MS - lived_ms : 0;
    int64_t delay = BACKOFF_FIRST_MS;
    for (unsigned i = 0; i < w->strikes && delay < BACKOFF_MOST_MS; i++)
        delay *= 2;
    w->strikes++;
    return delay < BACKOFF_MOST_MS ? delay : BACKOFF_MOST_MS;
}

static void log_death(const struct supervisor *s, const struct sup_worker *w,
                      const siginfo_t *how, int64_t lived_ms,
                      int64_t restart_in_ms)
{
    sup_log_begin(s, restart_in_ms < 0 ? "exit" : "death");
    sup_log_worker(w);
    if (how->si_code == 0)
        sup_log_text("status", "unknown"); /* adopted */
    else
        sup_log_number(how->si_code == CLD_EXITED ? "status" : "signal",
                       how->si_status);
    sup_log_number("lived_ms", lived_ms);
    sup_log_number("recovered", w->recovered);
    if (w->recovery_us >= 0)
        sup_log_number("recovery_us", w->recovery_us);
    if (restart_in_ms >= 0) {
        sup_log_number("strikes", w->strikes);
        sup_log_number("restart_in_ms", restart_in_ms);
    }
    sup_log_end();
}

static void collect(struct supervisor *s, struct sup_worker *w, siginfo_t *how)
{
    memset(how, 0, sizeof(*how));
    while (waitid(P_PIDFD, (id_t)w->pidfd, how, WEXITED) != 0 &&
           errno == EINTR)
        ;
    epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, w->pidfd, NULL);
    close(w->pidfd);
    w->pidfd = -1;
}

static void give_up_message(const struct supervisor *s)
{
    cli_message(s->args,
                "giving up: a worker died more than %u times in a row within "
                "%.3g s of its start; its own messages say why",
                s->options.restart_limit,
                (double)s->options.healthy_ms / 1000);
}

/* Starts it again after a delay, or at once. */
static void again(struct supervisor *s, struct sup_worker *w, int64_t delay)
{
    w->pid = 0;
    if (s->options.restart_limit > 0 && s->phase == SUP_RUNNING &&
        w->strikes > s->options.restart_limit) {
        sup_drain(s, CLI_FAILED, "crash_loop");
        give_up_message(s);
        return;
    }
    w->restarts++;
    w->due_ms = sup_now_ms() + delay; /* the loop starts what is due */
}

void sup_worker_died(struct supervisor *s, struct sup_worker *w)
{
    int64_t lived_ms = sup_now_ms() - w->started_ms;
    siginfo_t how;

    /* First the others' way is made free. */
    sup_watch_take(s);
    if (w->recovery_us < 0)
        w->recovered = sup_reap(s); /* it had not joined, or has left */
    collect(s, w, &how);
    if (w->role == SUP_OLD) {
        log_death(s, w, &how, lived_ms, -1);
        w->pid = 0;
        sup_worker_free(s, w);
        return;
    }
    bool killed = was_killed(&how) && !w->unready;
    int64_t delay = backoff(s, w, killed, lived_ms);
    log_death(s, w, &how, lived_ms, delay);
    if (w->role == SUP_NEXT && !killed) {
        w->pid = 0;
        sup_roll_abort(s, "a new worker died");
        return;
    }
    int64_t roll_ms = sup_now_ms() + delay + s->options.grace_ms;
    if (w->role == SUP_NEXT && roll_ms > s->roll_due_ms)
        s->roll_due_ms = roll_ms;
    again(s, w, delay);
}
