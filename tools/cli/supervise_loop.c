/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's one loop: it sleeps in epoll_wait until a worker dies
 * (pidfd), a signal comes (signalfd), or something is due. */
#include "supervise.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define EVENTS 64

/* The signals may have come ignored from the parent (nohup, a shell's `&`):
 * signalfd would not see them, and the kernel would collect our children
 * before we do. */
static int block_signals(struct supervisor *s, sigset_t *set)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2,
                                  SIGCHLD};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction normal = {.sa_handler = SIG_DFL};

    sigemptyset(set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaddset(set, signals[i]);
    if (sigprocmask(SIG_BLOCK, set, &s->mask) != 0)
        return -1;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigdelset(&s->mask, signals[i]);
        if (sigaction(signals[i], &normal, NULL) != 0)
            return -1;
    }
    return sigaction(SIGPIPE, &ignore, NULL);
}

int sup_loop_open(struct supervisor *s)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    sigset_t set;

    struct epoll_event told = {.events = EPOLLIN, .data.ptr = &s->watch};

    if (block_signals(s, &set) == 0) {
        s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
        s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (s->signal_fd >= 0 && s->epoll_fd >= 0 &&
            epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->signal_fd, &event) == 0 &&
            epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, shd_watch_fd(s->watch),
                      &told) == 0)
            return CLI_YES;
    }
    cli_message(s->args, "cannot watch for signals: %m");
    return CLI_FAILED;
}

static void take_signals(struct supervisor *s)
{
    struct signalfd_siginfo si;

    while (read(s->signal_fd, &si, sizeof(si)) == sizeof(si)) {
        switch (si.ssi_signo) {
        case SIGCHLD:
            s->children = true;
            break;
        case SIGHUP:
            sup_roll_begin(s);
            break;
        case SIGUSR2:
            s->handover = true;
            break;
        default:
            sup_drain(s, CLI_YES,
                      si.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
        }
    }
}

static bool is_worker(const struct supervisor *s, pid_t pid)
{
    const struct sup_worker *w;

    TAILQ_FOREACH(w, &s->workers, link)
    if (w->pid == pid)
        return true;
    return false;
}

/* Children that are not workers: inherited through exec, or adopted because
 * we are process 1 of a container. A dead worker found here is left for its
 * pidfd, which is readable already, and the search goes on after that. */
static void collect_strangers(struct supervisor *s)
{
    while (s->children) {
        siginfo_t si = {0};
        if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) != 0 ||
            si.si_pid == 0) {
            s->children = false;
            return;
        }
        if (is_worker(s, si.si_pid))
            return;
        if (waitid(P_PID, (id_t)si.si_pid, &si, WEXITED | WNOHANG) != 0)
            return;
    }
}

static void start(struct supervisor *s, struct sup_worker *w)
{
    int error = sup_worker_start(s, w);

    if (error == 0)
        return;
    sup_log_begin(s, "start_failed");
    sup_log_worker(w);
    sup_log_text("error", strerror(error));
    sup_log_end();
    if (w->role == SUP_NEXT)
        sup_roll_abort(s, strerror(error));
    else
        w->due_ms = sup_now_ms() + 1000;
}

static bool is_due(const struct sup_worker *w, int64_t now)
{
    return w->due_ms != 0 && w->due_ms <= now;
}

/* One at a time from the head: what is done may change the list. */
static struct sup_worker *next_due(struct supervisor *s)
{
    int64_t now = sup_now_ms();
    struct sup_worker *w;

    TAILQ_FOREACH(w, &s->workers, link)
    if (is_due(w, now))
        return w;
    return NULL;
}

static void do_due(struct supervisor *s)
{
    struct sup_worker *w;

    while ((w = next_due(s)) != NULL) {
        if (w->pid == 0) {
            start(s, w);
            continue;
        }
        w->unready = w->role != SUP_OLD;
        sup_log_begin(s, w->unready ? "not_ready" : "kill");
        sup_log_worker(w);
        sup_log_end();
        w->due_ms = 0;
        sup_worker_signal(w, SIGKILL);
    }
    sup_roll_check(s);
    if (sup_now_ms() >= s->reap_due_ms)
        sup_reap(s);
}

/* ms to sleep at most. */
static int timeout(const struct supervisor *s)
{
    int64_t due = s->reap_due_ms;
    const struct sup_worker *w;

    if (s->phase == SUP_ROLLING && s->roll_due_ms < due)
        due = s->roll_due_ms;
    TAILQ_FOREACH(w, &s->workers, link)
    if (w->due_ms != 0 && w->due_ms < due)
        due = w->due_ms;
    int64_t left = due - sup_now_ms();
    return left < 0 ? 0 : (int)left;
}

static int wait_events(struct supervisor *s)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(s->epoll_fd, events, EVENTS, timeout(s));

    if (n < 0)
        return errno == EINTR ? 0 : errno;
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == NULL)
            take_signals(s);
        else if (events[i].data.ptr == &s->watch)
            sup_watch_take(s);
        else
            sup_worker_died(s, events[i].data.ptr);
    }
    collect_strangers(s);
    return 0;
}

int sup_loop_run(struct supervisor *s)
{
    while (!TAILQ_EMPTY(&s->workers)) {
        int error = wait_events(s);
        if (error != 0) {
            cli_message(s->args, "epoll_wait: %s; the workers go on",
                        strerror(error));
            return CLI_FAILED;
        }
        if (s->handover) {
            sup_log_begin(s, "handover");
            sup_log_number("generation", s->generation);
            sup_log_end();
            return CLI_YES;
        }
        do_due(s);
    }
    sup_reap(s);
    sup_log_begin(s, "stopped");
    sup_log_number("status", s->status);
    sup_log_end();
    return s->status;
}
