/* SPDX-License-Identifier: BSD-2-Clause */
/* What the segment tells of its workers, our own and others: who died (and has
 * been recovered from when we hear of it), who is ready, who hangs or sits on
 * a lock. Those two are killed; everything after that is a death like any
 * other. */
#include "supervise.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

static struct sup_worker *ours(struct supervisor *s, uint32_t pid)
{
    struct sup_worker *w;

    TAILQ_FOREACH(w, &s->workers, link)
    if (w->pid != 0 && (uint32_t)w->pid == pid)
        return w;
    return NULL;
}

void sup_log_event(const struct supervisor *s, const char *event,
                   const struct shd_watch_event *e)
{
    sup_log_begin(s, event);
    if (e->worker_id >= 0)
        sup_log_number("worker", e->worker_id);
    sup_log_number("generation", e->generation);
    sup_log_number("pid", e->pid);
    if (e->name[0] != '\0')
        sup_log_text("name", e->name);
}

void sup_log_recovery(const struct shd_watch_event *e)
{
    sup_log_number("recovered", (int64_t)e->recovered);
    sup_log_number("recovery_us", (int64_t)(e->took_ns / 1000));
}

void sup_log_offence(const struct supervisor *s,
                     const struct shd_watch_event *e)
{
    if (e->event == SHD_WATCH_HUNG) {
        sup_log_event(s, "hang", e);
        sup_log_number("silent_ms", (int64_t)e->for_ms);
        return;
    }
    sup_log_event(s, "stuck", e);
    sup_log_text("object", e->object[0] != '\0' ? e->object : "(segment)");
    sup_log_number("held_ms", (int64_t)e->for_ms);
}

/* The log's line and the kill. Who is no worker is only told. */
static void punish(struct supervisor *s, const struct shd_watch_event *e)
{
    struct sup_worker *w = ours(s, e->pid);
    int code = SHD_OK;

    if (w != NULL)
        sup_worker_signal(w, SIGKILL);
    else if (e->incarnation != 0)
        code = shd_worker_signal(s->segment, e->incarnation, SIGKILL);
    sup_log_offence(s, e);
    sup_log_text("action", e->incarnation == 0 ? "none, it is no worker"
                           : code == SHD_OK    ? "kill"
                                               : shd_strerror(code));
    sup_log_end();
}

static void tell_of_a_stranger(const struct supervisor *s,
                               const struct shd_watch_event *e)
{
    sup_log_event(s, "worker_died", e);
    sup_log_recovery(e);
    sup_log_end();
}

static void take(struct supervisor *s, const struct shd_watch_event *e)
{
    struct sup_worker *w = ours(s, e->pid);

    switch (e->event) {
    case SHD_WATCH_JOINED:
    case SHD_WATCH_PHASE:
        if (w != NULL) {
            w->incarnation = e->incarnation;
            sup_worker_phase(s, w, e->phase);
        }
        break;
    case SHD_WATCH_DIED:
        if (w != NULL) {
            w->recovery_us = (int64_t)(e->took_ns / 1000);
            w->recovered = (int64_t)e->recovered;
        } else {
            tell_of_a_stranger(s, e);
        }
        break;
    case SHD_WATCH_HUNG:
    case SHD_WATCH_STUCK:
        punish(s, e);
        break;
    default:
        break;
    }
}

void sup_watch_take(struct supervisor *s)
{
    struct shd_watch_event e = {.struct_size = sizeof(e)};
    int code;

    while ((code = shd_watch_next(s->watch, 0, &e)) == SHD_OK)
        take(s, &e);
    if (code == SHD_NOTFOUND || code == s->watch_code)
        return;
    sup_log_begin(s, "watch_failed");
    sup_log_text("error", shd_last_error());
    sup_log_end();
    s->watch_code = code;
}
