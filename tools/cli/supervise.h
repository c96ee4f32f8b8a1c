/* SPDX-License-Identifier: BSD-2-Clause */
/* supervise.h - the parts of `shdict supervise`.
 *
 * OWNS   the worker processes it started, from fork to wait; the listening
 *        socket; nothing that the workers need to go on without it.
 * HOLDS  a worker with a pid has a pidfd in the epoll set; one without waits
 *        for due_ms to be started. One loop, one thread, no busy wait.
 * CRASH  killed at any instruction, the workers go on, and another
 *        supervisor may start: all it must know is in the segment.
 */
#ifndef SHDICT_SUPERVISE_H
#define SHDICT_SUPERVISE_H

#include <signal.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "cli.h"

#define SUP_NAME "shdict-supervise" /* in the segment's table of workers */
#define SUP_SEGMENT_FD 4 /* of a segment without a name, in workers */
#define SUP_SEGMENT_FD_NAME "fd:4"
#define SUP_LISTEN_FD 3  /* fixed by systemd's protocol */

struct sup_options {
    unsigned workers;
    unsigned restart_limit; /* deaths soon after start in a row; 0: none */
    int64_t drain_ms;
    int64_t healthy_ms; /* a worker that lived that long has run */
    int64_t grace_ms;   /* new workers must live that long in a roll */
    const char *listen; /* ADDR:PORT or NULL */
    char **command;
};

enum sup_role {
    SUP_CURRENT, /* serves */
    SUP_NEXT,    /* of the generation that is being rolled in */
    SUP_OLD      /* was told to end */
};

struct sup_worker {
    TAILQ_ENTRY(sup_worker) link;
    enum sup_role role;
    unsigned id;
    uint32_t generation;
    unsigned strikes; /* deaths soon after start, in a row */
    pid_t pid;        /* 0: not running */
    int pidfd;
    int64_t started_ms;
    int64_t due_ms; /* not running: start it then; old: SIGKILL then */
};

enum sup_phase { SUP_RUNNING, SUP_ROLLING, SUP_DRAINING };

struct supervisor {
    const struct cli_args *args;
    struct sup_options options;
    TAILQ_HEAD(sup_workers, sup_worker) workers;
    enum sup_phase phase;
    uint32_t generation;      /* of the current workers */
    uint32_t generation_last; /* given out so far */
    int64_t roll_due_ms;
    int64_t reap_due_ms;
    bool roll_again; /* SIGHUP came during a roll */
    bool children;   /* SIGCHLD came */
    int status;      /* exit code in the end */
    int reap_code;   /* last result of shd_reap */
    shd_segment *segment;
    const char *segment_name; /* for the workers' environment */
    int segment_fd;           /* at least 10, or -1: the name is enough */
    int listen_fd;            /* at least 10, or -1 */
    int epoll_fd;
    int signal_fd;
    sigset_t mask; /* as it was, for the workers */
};

/* ---- supervise_log.c: one event, one line, one write ------------------- */

void sup_log_begin(const struct supervisor *s, const char *event);
void sup_log_number(const char *key, int64_t value);
void sup_log_text(const char *key, const char *value);
void sup_log_worker(const struct sup_worker *w); /* worker, generation, pid */
void sup_log_end(void);

/* ---- supervise_listen.c ------------------------------------------------- */

/* The listening socket, at least 10; or -1, with a message. */
int sup_listen(const struct supervisor *s, const char *address);

/* fd moved to at least 10, close-on-exec; -1 on failure, fd is closed. */
int sup_move_fd(int fd);

/* ---- supervise_worker.c ------------------------------------------------- */

int64_t sup_now_ms(void);

/* A worker of that generation that is not running yet. NULL: no memory. */
struct sup_worker *sup_worker_new(struct supervisor *s, enum sup_role role,
                                  unsigned id, uint32_t generation);
void sup_worker_free(struct supervisor *s, struct sup_worker *w);

/* Starts it. 0, or an errno with everything as it was: of fork, or of exec
 * (the command cannot be run). */
int sup_worker_start(struct supervisor *s, struct sup_worker *w);

void sup_worker_signal(const struct sup_worker *w, int signal);

/* SIGTERM now, SIGKILL after drain_ms; one that is not running is freed. */
void sup_worker_stop(struct supervisor *s, struct sup_worker *w);

/* shd_reap; how many operations it undid. */
int64_t sup_reap(struct supervisor *s);

/* It has died: collects the process, reaps, logs, and decides. */
void sup_worker_died(struct supervisor *s, struct sup_worker *w);

/* ---- supervise_roll.c: generations, drain, giving up -------------------- */

void sup_roll_begin(struct supervisor *s);
void sup_roll_check(struct supervisor *s); /* is the new generation up? */
void sup_roll_abort(struct supervisor *s, const char *why);
void sup_drain(struct supervisor *s, int status, const char *why);

/* ---- supervise_loop.c --------------------------------------------------- */

/* Blocks the signals, opens the descriptors. 0, or an exit code. */
int sup_loop_open(struct supervisor *s);

/* Until all workers are gone. Gives the exit code. */
int sup_loop_run(struct supervisor *s);

#endif
