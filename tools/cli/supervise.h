/* SPDX-License-Identifier: BSD-2-Clause */
/* supervise.h - the parts of `shdict supervise` and `shdict sidecar`.
 *
 * OWNS   the worker processes it started, from fork to wait; the listening
 *        socket; nothing that the workers need to go on without it.
 * HOLDS  a worker with a pid has a pidfd in the epoll set; one without waits
 *        for due_ms to be started. One loop, one thread, no busy wait.
 * LOCK   one supervisor a segment: the claim of shd_watch_open.
 * CRASH  killed at any instruction, the workers go on, and the next supervisor
 *        takes them over: all it must know is in the segment and in the
 *        workers' environment.
 */
#ifndef SHDICT_SUPERVISE_H
#define SHDICT_SUPERVISE_H

#include <signal.h>
#include <sys/queue.h>
#include <sys/resource.h>
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
    int64_t ready_ms;   /* they must say that they are ready; 0: need not */
    uint32_t hang_ms;   /* heartbeat; 0: never */
    uint32_t lock_ms;   /* on one lock; 0: never */
    bool takeover;
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
    int64_t due_ms; /* not running: start it then; old, or not ready: SIGKILL
                       then */
    uint32_t restarts;
    uint64_t incarnation; /* 0: it has not joined the segment, as we know */
    bool adopted;  /* no child of ours: how it ended is not told */
    bool draining; /* when it was adopted */
    bool ready;    /* it says so */
    bool unready;  /* killed because it did not */
    int64_t recovered, recovery_us; /* of its death; -1: not told */
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
    shd_watch *watch;
    int watch_code; /* its last failure */
    bool handover;  /* leave, and leave the workers */
    char token[40]; /* of the segment's file, in workers' environment */
    const char *segment_name; /* for the workers' environment */
    int segment_fd;           /* at least 10, or -1: the name is enough */
    int listen_fd;            /* at least 10, or -1 */
    int epoll_fd;
    int signal_fd;
    sigset_t mask; /* as it was, for the workers */
    struct rlimit descriptors; /* likewise */
};

/* ---- supervise_log.c: one event, one line, one write ------------------- */

void sup_log_begin(const struct supervisor *s, const char *event);
void sup_log_number(const char *key, int64_t value);
void sup_log_text(const char *key, const char *value);
void sup_log_worker(const struct sup_worker *w); /* worker, generation, pid */
void sup_log_end(void);

/* ---- supervise_listen.c ------------------------------------------------- */

/* The listening socket, at least 10; or -1, with a message. One that adopted
 * workers have is taken over with what waits in its queue. */
int sup_listen(struct supervisor *s, const char *address);

/* The one that was passed to us (sd_listen_fds), moved likewise; -1: none. */
int sup_listen_passed(struct supervisor *s);

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

/* Its death wakes the loop from now on. 0, or an errno and pidfd is closed. */
int sup_worker_watch(struct supervisor *s, struct sup_worker *w, int pidfd);

/* It says how far it is. */
void sup_worker_phase(struct supervisor *s, struct sup_worker *w,
                      uint32_t phase);

/* shd_reap; how many operations it undid. */
int64_t sup_reap(struct supervisor *s);

/* It has died: collects the process, reaps, logs, and decides. */
void sup_worker_died(struct supervisor *s, struct sup_worker *w);

/* ---- supervise_roll.c: generations, drain, giving up -------------------- */

void sup_roll_begin(struct supervisor *s);
void sup_roll_check(struct supervisor *s); /* is the new generation up? */
void sup_roll_abort(struct supervisor *s, const char *why);
void sup_drain(struct supervisor *s, int status, const char *why);

/* ---- supervise_watch.c: what the segment tells ------------------------- */

/* All there is to hear just now; after a death: when this returns, what the
 * dead held is recovered. */
void sup_watch_take(struct supervisor *s);

void sup_log_event(const struct supervisor *s, const char *event,
                   const struct shd_watch_event *e);
void sup_log_recovery(const struct shd_watch_event *e);
void sup_log_offence(const struct supervisor *s,
                     const struct shd_watch_event *e);

/* ---- supervise_adopt.c: taking over ------------------------------------- */

/* Notes which file the segment is. 0, or -1. */
int sup_token(struct supervisor *s);

/* Finds the workers of a supervisor before us. */
void sup_adopt(struct supervisor *s);

/* Decides which of them go on, and ours and their generation. */
int sup_adopt_settle(struct supervisor *s);

/* ---- verb_supervise.c --------------------------------------------------- */

/* An option in seconds, as ms; exits 2 if it is none. */
uint32_t sup_limit(const struct cli_args *args, const char *name,
                   uint32_t otherwise_ms);

void sup_log_segment(const struct supervisor *s);

/* As many descriptors as allowed: one a worker. Gives what it was. */
struct rlimit sup_raise_descriptors(void);

/* ---- supervise_loop.c --------------------------------------------------- */

/* Blocks the signals, opens the descriptors. 0, or an exit code. */
int sup_loop_open(struct supervisor *s);

/* Until all workers are gone. Gives the exit code. */
int sup_loop_run(struct supervisor *s);

#endif
