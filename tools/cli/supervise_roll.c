/* SPDX-License-Identifier: BSD-2-Clause */
/* What concerns all workers at once. In a roll both generations run side by
 * side until the new one has lived for grace_ms, or says that it is ready; a
 * new generation that does not come up never replaces one that runs. */
#include "supervise.h"

#include <errno.h>
#include <string.h>

void sup_roll_begin(struct supervisor *s)
{
    if (s->phase == SUP_ROLLING) {
        s->roll_again = true;
        return;
    }
    if (s->phase == SUP_DRAINING)
        return;
    if (shd_generation_next(s->segment, &s->generation_last) != SHD_OK) {
        sup_log_begin(s, "roll_failed");
        sup_log_text("error", shd_last_error());
        sup_log_end();
        return;
    }
    s->phase = SUP_ROLLING;
    s->roll_again = false;
    sup_log_begin(s, "roll");
    sup_log_number("generation", s->generation_last);
    sup_log_end();
    for (unsigned i = 0; i < s->options.workers; i++) {
        struct sup_worker *w =
            sup_worker_new(s, SUP_NEXT, i, s->generation_last);
        int error = w ? sup_worker_start(s, w) : ENOMEM;
        if (error != 0) {
            sup_roll_abort(s, strerror(error));
            return;
        }
    }
    s->roll_due_ms = sup_now_ms() + s->options.grace_ms;
}

static void roll_end(struct supervisor *s, const char *event)
{
    s->phase = SUP_RUNNING;
    sup_log_begin(s, event);
    sup_log_number("generation", s->generation_last);
}

static void stop_role(struct supervisor *s, enum sup_role role)
{
    struct sup_worker *w, *next;

    for (w = TAILQ_FIRST(&s->workers); w; w = next) {
        next = TAILQ_NEXT(w, link);
        if (w->role == role)
            sup_worker_stop(s, w);
    }
}

void sup_roll_abort(struct supervisor *s, const char *why)
{
    stop_role(s, SUP_NEXT);
    roll_end(s, "roll_failed");
    sup_log_text("error", why);
    sup_log_end();
    if (s->roll_again)
        sup_roll_begin(s);
}

void sup_roll_check(struct supervisor *s)
{
    struct sup_worker *w;

    if (s->phase != SUP_ROLLING ||
        (s->options.ready_ms == 0 && sup_now_ms() < s->roll_due_ms))
        return;
    TAILQ_FOREACH(w, &s->workers, link)
    if (w->role == SUP_NEXT &&
        (w->pid == 0 || (s->options.ready_ms > 0 && !w->ready)))
        return; /* killed, and about to be started again; or not ready */
    stop_role(s, SUP_CURRENT);
    TAILQ_FOREACH(w, &s->workers, link)
    if (w->role == SUP_NEXT)
        w->role = SUP_CURRENT;
    s->generation = s->generation_last;
    /* Also those that others have started by our generation's number. */
    (void)!shd_generation_drain(s->segment, s->generation, NULL);
    roll_end(s, "rolled");
    sup_log_end();
    if (s->roll_again)
        sup_roll_begin(s);
}

void sup_drain(struct supervisor *s, int status, const char *why)
{
    struct sup_worker *w;

    if (s->phase == SUP_DRAINING) {
        /* Asked again: no more patience. */
        TAILQ_FOREACH(w, &s->workers, link)
        w->due_ms = sup_now_ms();
        return;
    }
    s->phase = SUP_DRAINING;
    s->status = status;
    sup_log_begin(s, status == CLI_YES ? "drain" : "give_up");
    sup_log_text("reason", why);
    sup_log_end();
    stop_role(s, SUP_CURRENT);
    stop_role(s, SUP_NEXT);
}
