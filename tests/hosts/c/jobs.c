/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_jobs - one worker of several that do jobs. Start them with
 *
 *   shdict supervise -n 4 --segment demo --dict results=16m -- \
 *       build/tests/host_jobs
 *   shdict push demo work 'resize 17.png'
 *
 *   work      a queue. A job is done when its result is in the dict "results",
 *             under its number, as capitals and the setting "suffix". Killed
 *             before that it comes back; given up nine times, as "fail" is,
 *             it goes to the queue "failed".
 *   settings  a topic. Whoever changes "suffix" in the dict says so there, and
 *             no job is done by an older one from then on.
 *   import    a lock. Jobs that begin so are done by one worker at a time.
 *   clock     a leader. One worker counts "ticks".
 *
 * One descriptor wakes the event loop when any of these has something for this
 * worker. Nothing polls, but look(): four times a second, for what nobody rings
 * a bell.
 */
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <event2/event.h>

#include <shdict.h>

enum {
    JOB_BYTES = 65536,
    SUFFIX_BYTES = 64,
    LOOK_MS = 250,
    IMPORT_MS = 10000,
    DELIVERIES = 9,
    AGAIN_MS = 20 /* after which a job is looked at that had to wait */
};

struct worker {
    struct event_base *base;
    struct event *bell, *looking, *soon;
    struct event *signals[2];
    shd_segment *segment;
    shd_dict *results;
    shd_queue *work;
    shd_topic *settings;
    shd_subscription *changes;
    shd_lock *import;
    shd_leader *clock;
    char suffix[SUFFIX_BYTES + 1];
    int stopping;
};

static void complain(const char *what, int rc)
{
    fprintf(stderr, "host_jobs: %s: %s: %s\n", what, shd_strerror(rc),
            shd_last_error());
}

/* ---- the setting that each worker keeps --------------------------------- */

static int read_suffix(struct worker *w)
{
    struct shd_value v;
    int rc = shd_get(w->results, "suffix", 6, w->suffix, SUFFIX_BYTES, &v);

    w->suffix[rc == SHD_OK && v.type == SHD_STRING ? v.len : 0] = '\0';
    return rc == SHD_NOTFOUND ? SHD_OK : rc;
}

/* What was said before this looks is known after it. Whatever it was, and also
 * if some of it was missed, the dict has what is right. */
static int catch_up(struct worker *w)
{
    static char text[4096];
    struct shd_event events[16];
    uint64_t missed;
    uint32_t count;
    int rc, any = 0;

    do {
        rc = shd_subscription_next(w->changes, text, sizeof(text), 0, events,
                                   16, &count, &missed);
        any |= rc == SHD_OK || rc == SHD_SPACE;
        if (rc == SHD_SPACE) /* longer than any name: only that it was said */
            return read_suffix(w);
    } while (rc == SHD_OK && count > 0);
    if (rc != SHD_OK && rc != SHD_NOTFOUND)
        return rc;
    return any ? read_suffix(w) : SHD_OK;
}

/* ---- jobs ---------------------------------------------------------------- */

/* It may be begun more than once, so it must be the same done twice: a result
 * by the job's number is. */
static int perform(struct worker *w, const struct shd_message *m,
                   const char *job)
{
    static char result[JOB_BYTES + SUFFIX_BYTES];
    char key[40];
    size_t len = (size_t)m->len;
    int key_len = snprintf(key, sizeof(key), "%llu",
                           (unsigned long long)m->id);

    for (size_t i = 0; i < len; i++)
        result[i] = (char)toupper((unsigned char)job[i]);
    memcpy(result + len, w->suffix, strlen(w->suffix));
    return shd_set(w->results, key, (size_t)key_len, result,
                   len + strlen(w->suffix), 0);
}

/* By one worker at a time: never may "importing" be more than 1. What a dead
 * one left of it is told by the lock, and mended by who has it next. */
static int perform_alone(struct worker *w, const struct shd_message *m,
                         const char *job)
{
    struct shd_grant grant;
    double now = 0;
    /* It is short, so this may stand still for it. */
    int rc = shd_lock_acquire(w->import, IMPORT_MS, 0, &grant);

    if (rc != SHD_OK)
        return rc;
    if (grant.former == SHD_FORMER_DIED)
        rc = shd_delete(w->results, "importing", 9);
    if (rc == SHD_OK || rc == SHD_NOTFOUND)
        rc = shd_incr(w->results, "importing", 9, 1, 1, 0, 0, &now, NULL);
    if (rc == SHD_OK && now != 1)
        rc = shd_incr(w->results, "overlaps", 8, 1, 1, 0, 0, &now, NULL);
    if (rc == SHD_OK)
        rc = perform(w, m, job);
    if (rc == SHD_OK)
        rc = shd_incr(w->results, "importing", 9, -1, 0, 0, 0, &now, NULL);
    if (shd_lock_release(w->import, grant.token) != SHD_OK)
        complain("import", SHD_LOST);
    return rc;
}

/* 1: there may be another. */
static int take_job(struct worker *w)
{
    static char job[JOB_BYTES];
    struct shd_message m;
    int rc = shd_queue_take(w->work, job, sizeof(job), 0, &m);

    if (rc == SHD_NOTFOUND)
        return 0;
    if (rc == SHD_OK)
        rc = catch_up(w);
    if (rc != SHD_OK) {
        complain("work", rc);
        return 0;
    }
    if (m.len == 4 && memcmp(job, "fail", 4) == 0)
        rc = SHD_INVAL;
    else if (m.len >= 6 && memcmp(job, "import", 6) == 0)
        rc = perform_alone(w, &m, job);
    else
        rc = perform(w, &m, job);
    /* First the result, then the acknowledgement. What cannot be done now is
     * somebody's a little later. */
    if (rc == SHD_OK)
        rc = shd_queue_ack(w->work, m.lease);
    else
        rc = shd_queue_nack(w->work, m.lease, AGAIN_MS);
    if (rc != SHD_OK && rc != SHD_LOST)
        complain("work", rc);
    return 1;
}

/* ---- the clock ------------------------------------------------------------ */

/* A leader looks before each tick; others stand, and lead when it is over with
 * that one. */
static void tick(struct worker *w, int is_time)
{
    struct shd_grant grant;
    double ticks;
    int rc = shd_leader_look(w->clock, 0, &grant);

    if (rc == SHD_OK && is_time)
        rc = shd_incr(w->results, "ticks", 5, 1, 1, 0, 0, &ticks, NULL);
    if (rc < 0)
        complain("clock", rc);
}

/* ---- the loop ------------------------------------------------------------- */

static void again(struct worker *w, int64_t ms)
{
    struct timeval t = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    if (event_add(w->soon, &t) != 0)
        event_base_loopexit(w->base, NULL);
}

/* Looks at everything, and has the bell ring for what comes next: arming tells
 * whether something is there already. */
static void look(struct worker *w, int is_time)
{
    int64_t again_ms = -1;
    int more = 1, rc;

    if (w->stopping)
        return;
    for (int i = 0; more && i < 16; i++)
        more = take_job(w);
    tick(w, is_time);
    rc = catch_up(w);
    if (rc == SHD_OK)
        rc = shd_subscription_arm(w->changes);
    if (rc >= 0 && (rc = shd_queue_arm(w->work, 0, &again_ms)) == 0)
        rc = more;
    if (rc < 0)
        complain("waiting", rc);
    else if (rc > 0)
        again(w, 0);
    else if (again_ms >= 0)
        again(w, again_ms);
}

static void on_bell(evutil_socket_t fd, short what, void *arg)
{
    struct worker *w = arg;
    int rc = shd_worker_fd_clear(w->segment);

    (void)fd;
    (void)what;
    if (rc != SHD_OK)
        complain("bell", rc);
    look(w, 0);
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    look(arg, (what & EV_TIMEOUT) != 0);
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    look(arg, 0);
}

/* What is being done is done: jobs take no time here. */
static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct worker *w = arg;

    (void)number;
    (void)what;
    w->stopping = 1;
    event_base_loopexit(w->base, NULL);
}

static int open_all(struct worker *w)
{
    const struct shd_dict_options d = {.struct_size = sizeof(d),
                                       .capacity_bytes = 16 << 20};
    const struct shd_queue_options failed = {.struct_size = sizeof(failed)};
    const struct shd_queue_options work = {.struct_size = sizeof(work),
                                           .deliveries_max = DELIVERIES,
                                           .dead_to = "failed"};
    const struct shd_topic_options t = {.struct_size = sizeof(t),
                                        .flags = SHD_TOPIC_CREATE};
    const struct shd_lock_options l = {.struct_size = sizeof(l),
                                       .flags = SHD_LOCK_CREATE};
    shd_queue *graves;
    int rc = shd_dict_open(w->segment, "results", NULL, &w->results);

    if (rc == SHD_NOTFOUND)
        rc = shd_dict_open(w->segment, "results", &d, &w->results);
    if (rc == SHD_OK)
        rc = shd_queue_open(w->segment, "failed", &failed, &graves);
    if (rc == SHD_OK)
        rc = shd_queue_open(w->segment, "work", &work, &w->work);
    if (rc == SHD_OK)
        rc = shd_topic_open(w->segment, "settings", &t, &w->settings);
    if (rc == SHD_OK)
        rc = shd_topic_subscribe(w->settings, NULL, SHD_FROM_NOW, &w->changes);
    if (rc == SHD_OK)
        rc = read_suffix(w); /* after subscribing: nothing is between */
    if (rc == SHD_OK)
        rc = shd_lock_open(w->segment, "import", SHD_OBJECT_LOCK, &l,
                           &w->import);
    if (rc == SHD_OK)
        rc = shd_leader_open(w->segment, "clock", &l, &w->clock);
    return rc == SHD_OK ? shd_worker_fd(w->segment) : rc;
}

static int set_up(struct worker *w, int fd)
{
    const struct timeval period = {.tv_usec = LOOK_MS * 1000};

    w->base = event_base_new();
    if (w->base == NULL)
        return -1;
    w->bell = event_new(w->base, fd, EV_READ | EV_PERSIST, on_bell, w);
    w->looking = event_new(w->base, -1, EV_PERSIST, on_time, w);
    w->soon = evtimer_new(w->base, on_soon, w);
    w->signals[0] = evsignal_new(w->base, SIGTERM, on_signal, w);
    w->signals[1] = evsignal_new(w->base, SIGINT, on_signal, w);
    return w->bell == NULL || w->looking == NULL || w->soon == NULL ||
                   w->signals[0] == NULL || w->signals[1] == NULL ||
                   event_add(w->bell, NULL) != 0 ||
                   event_add(w->looking, &period) != 0 ||
                   event_add(w->signals[0], NULL) != 0 ||
                   event_add(w->signals[1], NULL) != 0
               ? -1
               : 0;
}

int main(void)
{
    const struct shd_segment_options o = {.struct_size = sizeof(o)};
    const char *name = getenv("SHDICT_SEGMENT");
    struct worker w = {.stopping = 0};
    int fd;

    if (name == NULL) {
        fprintf(stderr, "host_jobs: set SHDICT_SEGMENT\n");
        return 2;
    }
    if (shd_segment_open(name, &o, &w.segment) != SHD_OK ||
        (fd = open_all(&w)) < 0 || set_up(&w, fd) != 0 ||
        shd_worker_join(w.segment, NULL) != SHD_OK) {
        fprintf(stderr, "host_jobs: %s\n", shd_last_error());
        return 3;
    }
    look(&w, 0);
    if (event_base_dispatch(w.base) < 0)
        return EXIT_FAILURE;
    event_free(w.bell);
    event_free(w.looking);
    event_free(w.soon);
    event_free(w.signals[0]);
    event_free(w.signals[1]);
    event_base_free(w.base);
    /* What it has goes to others now: with the worker's slot. */
    return shd_segment_close(w.segment) == SHD_OK ? 0 : EXIT_FAILURE;
}
