/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict supervise: the command line, and what is made before the loop. */
#include "supervise.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TAKEOVER_MS 10000 /* for the one before us to leave */

static int64_t seconds(const struct cli_args *args, const char *name,
                       int64_t otherwise_ms)
{
    const char *text = cli_option(args, name);

    return text ? cli_seconds_ms(args, name, text) : otherwise_ms;
}

uint32_t sup_limit(const struct cli_args *args, const char *name,
                   uint32_t otherwise_ms)
{
    int64_t ms = seconds(args, name, otherwise_ms);

    if (ms > UINT32_MAX)
        cli_usage(args, "--%s: at most 4294967 seconds", name);
    return (uint32_t)ms;
}

static unsigned number(const struct cli_args *args, const char *name,
                       unsigned otherwise)
{
    const char *text = cli_option(args, name);

    return text ? (unsigned)cli_count(args, name, text, 65535) : otherwise;
}

static void parse(const struct cli_args *args, struct sup_options *o)
{
    o->workers = number(args, "workers", 1);
    o->restart_limit = number(args, "restart-limit", 10);
    o->drain_ms = seconds(args, "drain", 10000);
    o->healthy_ms = seconds(args, "healthy-after", 1000);
    o->grace_ms = seconds(args, "grace", 1000);
    o->ready_ms = seconds(args, "ready", 0);
    o->hang_ms = sup_limit(args, "hang", 30000);
    o->lock_ms = sup_limit(args, "lock-limit", 10000);
    o->takeover = cli_option(args, "takeover") != NULL;
    o->listen = cli_option(args, "listen");
    o->command = args->words;
    if (o->workers == 0)
        cli_usage(args, "--workers: at least 1");
    cli_dicts_parse(args);
}

/* A name the workers can use: of a segment that has only a descriptor, the
 * number of that descriptor in the worker. */
static int segment_for_workers(struct supervisor *s, const char *name)
{
    s->segment_name = name;
    s->segment_fd = -1;
    if (name != NULL && strncmp(name, "fd:", 3) != 0)
        return CLI_YES;
    int fd = shd_segment_fd(s->segment);
    s->segment_fd = fd < 0 ? -1 : sup_move_fd(dup(fd));
    if (s->segment_fd < 0) {
        cli_message(s->args, "cannot pass the segment to workers: %m");
        return CLI_FAILED;
    }
    s->segment_name = SUP_SEGMENT_FD_NAME;
    return CLI_YES;
}

static int segment_open(struct supervisor *s)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .wait_ms = 200, /* never held up long */
                                    .worker_id = -1,
                                    .worker_name = SUP_NAME};
    const char *name = cli_option(s->args, "segment");

    if (name == NULL)
        name = getenv("SHDICT_SEGMENT");
    int code = name ? shd_segment_open(name, &o, &s->segment)
                    : shd_segment_create(NULL, &o, &s->segment);
    if (code != SHD_OK) {
        cli_message(s->args, "segment \"%s\": %s", name ? name : "(memfd)",
                    shd_last_error());
        return code == SHD_NAME      ? CLI_USAGE
               : code == SHD_CORRUPT ? CLI_CORRUPT
                                     : CLI_ATTACH;
    }
    int status = cli_dicts_make(s->args, s->segment);
    if (status == CLI_NO)
        status = CLI_ATTACH; /* not the dict that was asked for */
    return status == CLI_YES ? segment_for_workers(s, name) : status;
}

struct rlimit sup_raise_descriptors(void)
{
    struct rlimit was, most;

    if (getrlimit(RLIMIT_NOFILE, &was) != 0)
        return (struct rlimit){1024, 1024};
    most = was;
    most.rlim_cur = most.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &most) != 0)
        return was; /* then fewer are watched, the rest once a second */
    return was;
}

static int open_watch(struct supervisor *s)
{
    struct shd_watch_options o = {
        .struct_size = sizeof(o),
        .flags = SHD_WATCH_SUPERVISE | SHD_WATCH_HOLD_IN_CHILDREN,
        .hang_ms = s->options.hang_ms,
        .lock_ms = s->options.lock_ms};

    return shd_watch_open(s->segment, &o, &s->watch);
}

/* The supervisor that lives. False: there is none. */
static bool find_supervisor(struct supervisor *s, struct shd_worker_info *w)
{
    int code;

    w->struct_size = sizeof(*w);
    for (uint32_t i = 0;
         (code = shd_worker_info(s->segment, i, w)) != SHD_INVAL; i++)
        if (code == SHD_OK && w->supervisor != 0)
            return true;
    return false;
}

/* Is it worth waiting for the claim? It is where the supervisor that lives is
 * one of ours and has been asked to leave; and where none lives: then a child
 * of a dead one has the claim until it execs. */
static bool will_be_free(struct supervisor *s, bool *asked)
{
    struct shd_worker_info w;

    if (*asked || !find_supervisor(s, &w))
        return true;
    if (!s->options.takeover || strcmp(w.name, SUP_NAME) != 0)
        return false;
    *asked = shd_worker_signal(s->segment, w.incarnation, SIGUSR2) == SHD_OK;
    return true; /* or it has gone by itself */
}

/* Be the supervisor: there is one. */
static int claim(struct supervisor *s)
{
    int64_t end = sup_now_ms() + TAKEOVER_MS;
    bool asked = false;

    sup_reap(s);
    int code = open_watch(s);
    while (code == SHD_EXISTS && will_be_free(s, &asked) &&
           sup_now_ms() < end) {
        struct timespec pause = {.tv_nsec = 5000000};
        nanosleep(&pause, NULL);
        code = open_watch(s);
    }
    if (code == SHD_OK)
        return CLI_YES;
    cli_message(s->args, "cannot supervise: %s%s", shd_last_error(),
                code == SHD_EXISTS && !s->options.takeover
                    ? "; --takeover asks it to hand over"
                    : "");
    return code == SHD_CORRUPT ? CLI_CORRUPT : CLI_FAILED;
}

void sup_log_segment(const struct supervisor *s)
{
    char path[64];

    sup_log_begin(s, "segment");
    sup_log_text("name", s->segment_name);
    if (s->segment_fd >= 0) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(),
                 s->segment_fd);
        sup_log_text("path", path);
    }
    sup_log_number("supervisor", getpid());
    sup_log_number("generation", s->generation);
    sup_log_end();
}

static bool is_there(const struct supervisor *s, unsigned id)
{
    const struct sup_worker *w;

    TAILQ_FOREACH(w, &s->workers, link)
    if (w->role == SUP_CURRENT && w->id == id)
        return true;
    return false;
}

/* The first of all tells whether the command can be run at all. */
static int start_all(struct supervisor *s)
{
    for (unsigned i = 0; i < s->options.workers; i++) {
        if (is_there(s, i))
            continue; /* adopted */
        struct sup_worker *w =
            sup_worker_new(s, SUP_CURRENT, i, s->generation);
        int error = w ? sup_worker_start(s, w) : ENOMEM;
        if (error == 0)
            continue;
        cli_message(s->args, "cannot run \"%s\": %s", s->options.command[0],
                    strerror(error));
        sup_drain(s, CLI_FAILED, strerror(error));
        return CLI_FAILED;
    }
    return CLI_YES;
}

static int run(struct cli_args *args)
{
    struct supervisor s = {
        .args = args, .listen_fd = -1, .epoll_fd = -1, .signal_fd = -1};

    TAILQ_INIT(&s.workers);
    parse(args, &s.options);
    s.descriptors = sup_raise_descriptors();
    /* They are said of workers. */
    if (unsetenv("SHDICT_PHASE") || unsetenv("SHDICT_RESTARTS"))
        return CLI_FAILED;
    int status = segment_open(&s);
    if (status != CLI_YES)
        return status;
    status = claim(&s);
    if (status == CLI_YES)
        status = sup_loop_open(&s);
    if (status != CLI_YES)
        return status;
    if (sup_token(&s) != 0) {
        cli_message(args, "the segment's file: %m");
        return CLI_FAILED;
    }
    sup_adopt(&s);
    s.listen_fd = s.options.listen ? sup_listen(&s, s.options.listen)
                                   : sup_listen_passed(&s);
    if (s.options.listen && s.listen_fd < 0)
        return CLI_FAILED;
    if (sup_adopt_settle(&s) != 0) {
        cli_message(args, "cannot begin: %s", shd_last_error());
        return CLI_FAILED;
    }
    start_all(&s);
    status = sup_loop_run(&s);
    shd_watch_close(s.watch);
    shd_segment_close(s.segment);
    return status;
}

static const struct cli_option options[] = {
    {"workers", 'n', "N", "Worker processes, 1 by default"},
    {"segment", 's', "SEGMENT",
     "Create or open it; else $SHDICT_SEGMENT, else one without a name"},
    {"dict", 'd', "NAME=SIZE[,MAX]",
     "Make a dict, that can grow to MAX; may "
     "be given many times"},
    {"listen", 'l', "ADDR:PORT", "Pass workers one shared listening socket"},
    {"drain", 0, "SECONDS", "From SIGTERM to SIGKILL, 10 by default"},
    {"restart-limit", 0, "N",
     "Give up after N early deaths in a row, 10 by default; 0: never"},
    {"healthy-after", 0, "SECONDS",
     "A worker that lived so long has run, 1 by default"},
    {"grace", 0, "SECONDS",
     "New workers must live so long in a roll, 1 by default"},
    {"ready", 0, "SECONDS",
     "Workers must say within that time that they are ready"},
    {"hang", 0, "SECONDS",
     "Kill a worker whose heart has beaten and stops for so long, 30 by "
     "default; 0: never"},
    {"lock-limit", 0, "SECONDS",
     "Kill a worker that sits on a lock for so long, 10 by default; 0: never"},
    {"takeover", 0, NULL,
     "Ask a supervisor that is there to hand over its workers"},
    {NULL}};

const struct cli_verb verb_supervise = {
    .name = "supervise",
    .words = "-- COMMAND [ARG ...]",
    .summary = "Run N workers on a segment, and restart what dies",
    .options = options,
    .words_min = 1,
    .words_max = UINT32_MAX,
    .command = true,
    .run = run};
