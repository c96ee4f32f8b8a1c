/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict sidecar: for hosts whose workers somebody else starts. It recovers
 * what the dead held within a millisecond of their deaths, and tells, or kills,
 * those that hang. */
#include "supervise.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_MS 5000 /* is the segment's name still that of this file? */

static bool is_gone(const struct shd_segment_info *info, shd_segment *segment)
{
    struct stat named, held;

    if (info->path[0] == '\0' || fstat(shd_segment_fd(segment), &held) != 0)
        return false;
    return stat(info->path, &named) != 0 || named.st_ino != held.st_ino ||
           named.st_dev != held.st_dev;
}

/* Nobody but this process. */
static bool is_deserted(shd_segment *segment)
{
    struct shd_worker_info w = {.struct_size = sizeof(w)};
    int code;

    for (uint32_t i = 0;
         (code = shd_worker_info(segment, i, &w)) != SHD_INVAL; i++)
        if (code == SHD_OK && (pid_t)w.pid != getpid())
            return false;
    return true;
}

static const char *punish(const struct supervisor *s,
                          const struct shd_watch_event *e)
{
    if (e->incarnation == 0)
        return "none, it is no worker";
    if (cli_option(s->args, "kill") == NULL)
        return "none";
    int code = shd_worker_signal(s->segment, e->incarnation, SIGKILL);
    return code == SHD_OK ? "kill" : shd_strerror(code);
}

static void tell(const struct supervisor *s, const struct shd_watch_event *e)
{
    switch (e->event) {
    case SHD_WATCH_JOINED:
        sup_log_event(s, "worker_joined", e);
        break;
    case SHD_WATCH_LEFT:
        sup_log_event(s, "worker_left", e);
        break;
    case SHD_WATCH_DIED:
        sup_log_event(s, "worker_died", e);
        sup_log_recovery(e);
        break;
    case SHD_WATCH_HUNG:
    case SHD_WATCH_STUCK:
        sup_log_offence(s, e);
        sup_log_text("action", punish(s, e));
        break;
    default:
        return;
    }
    sup_log_end();
}

static int take(const struct supervisor *s)
{
    struct shd_watch_event e = {.struct_size = sizeof(e)};
    int code;

    while ((code = shd_watch_next(s->watch, 0, &e)) == SHD_OK)
        tell(s, &e);
    return code;
}

/* Until a signal comes, or the segment is of no use any more. */
static int loop(struct supervisor *s, int signals)
{
    struct shd_segment_info info = {.struct_size = sizeof(info)};
    struct pollfd fds[2] = {{.fd = shd_watch_fd(s->watch), .events = POLLIN},
                            {.fd = signals, .events = POLLIN}};
    int code = shd_segment_info(s->segment, &info);

    if (code != SHD_OK)
        return cli_answer(s->args, s->args->words[0], code);
    while ((code = take(s)) == SHD_NOTFOUND) {
        if (is_gone(&info, s->segment) && is_deserted(s->segment)) {
            sup_log_begin(s, "gone");
            sup_log_text("path", info.path);
            sup_log_end();
            return CLI_YES;
        }
        if (poll(fds, 2, LOOK_MS) < 0 && errno != EINTR) {
            cli_message(s->args, "poll: %m");
            return CLI_FAILED;
        }
        if (fds[1].revents != 0)
            return CLI_YES;
    }
    return cli_answer(s->args, s->args->words[0], code);
}

static int open_signals(const struct cli_args *args)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    int fd = sigprocmask(SIG_BLOCK, &set, NULL) == 0
                 ? signalfd(-1, &set, SFD_CLOEXEC)
                 : -1;
    if (fd < 0)
        cli_message(args, "cannot watch for signals: %m");
    return fd;
}

static int watch(struct supervisor *s, int signals)
{
    struct shd_watch_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_WATCH_SUPERVISE,
                                  .hang_ms = sup_limit(s->args, "hang", 0),
                                  .lock_ms =
                                      sup_limit(s->args, "lock-limit", 0)};
    int code = shd_watch_open(s->segment, &o, &s->watch);

    if (code != SHD_OK) {
        cli_message(s->args, "%s: %s", s->args->words[0], shd_last_error());
        return code == SHD_CORRUPT ? CLI_CORRUPT : CLI_FAILED;
    }
    sup_log_begin(s, "segment");
    sup_log_text("name", s->args->words[0]);
    sup_log_number("sidecar", getpid());
    sup_log_end();
    int status = loop(s, signals);
    shd_watch_close(s->watch);
    return status;
}

static int run(struct cli_args *args)
{
    struct supervisor s = {.args = args};
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .wait_ms = 200,
                                    .worker_id = -1,
                                    .worker_name = "shdict-sidecar"};

    (void)sup_limit(args, "hang", 0);
    (void)sup_limit(args, "lock-limit", 0);
    sup_raise_descriptors();
    int code = shd_segment_attach(args->words[0], &o, &s.segment);
    if (code != SHD_OK) {
        cli_message(args, "%s: %s", args->words[0], shd_last_error());
        return code == SHD_NAME      ? CLI_USAGE
               : code == SHD_CORRUPT ? CLI_CORRUPT
                                     : CLI_ATTACH;
    }
    int signals = open_signals(args);
    int status = signals < 0 ? CLI_FAILED : watch(&s, signals);
    sup_log_begin(&s, "stopped");
    sup_log_number("status", status);
    sup_log_end();
    shd_segment_close(s.segment);
    return status;
}

static const struct cli_option options[] = {
    {"hang", 0, "SECONDS",
     "Tell of workers whose heart has beaten and stops for so long; 0, the "
     "default: never"},
    {"lock-limit", 0, "SECONDS",
     "Tell of who sits on a lock for so long; 0, the default: never"},
    {"kill", 0, NULL, "SIGKILL those workers instead of only telling"},
    {NULL}};

const struct cli_verb verb_sidecar = {
    .name = "sidecar",
    .words = "SEGMENT",
    .summary = "Recover at once from deaths of workers that others start",
    .options = options,
    .words_min = 1,
    .words_max = 1,
    .run = run};
