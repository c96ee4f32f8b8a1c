/* SPDX-License-Identifier: BSD-2-Clause */
/* app.h - what a web application does with a shared dictionary.
 *
 *   GET  /files/NAME   page cache: filled from files, with expiry
 *   GET  /count/NAME   adds one to a counter, answers its new value
 *   GET  /stats        all counters, as JSON
 *   POST /jobs         appends the body to the job list
 *   GET  /jobs         length of the job list
 *   GET  /jobs/next    takes the oldest job; 204 when there is none
 *   any                a limit of requests per client: 429 over it
 *
 * OWNS   its four dict handles; not the segment.
 * HOLDS  everything the workers share is in the dicts, and every change is
 *        one call: done or not begun, even when the worker is killed in it.
 *        So there is nothing to repair, and nobody waits for the dead.
 * LOCK   none; one thread, the event loop's. */
#ifndef HOST_APP_H
#define HOST_APP_H

#include <stdint.h>
#include <event2/http.h>
#include "shdict.h"

struct app_settings {
    const char *docroot;
    size_t page_bytes;      /* largest page kept in the cache */
    int64_t page_ttl_ms;    /* how long a page is served from the cache */
    int64_t absent_ttl_ms;  /* how long the absence of a file is known */
    int64_t lock_ttl_ms;    /* how long one worker may take to fill a page */
    int64_t rate_window_ms;
    double rate;            /* requests per client and window */
};

struct app {
    struct event_base *base;
    struct app_settings settings;
    shd_dict *cache;
    shd_dict *limits;
    shd_dict *counters;
    shd_dict *jobs;
    unsigned answers_pending; /* given to evhttp, not yet sent */
    int draining;             /* answers say Connection: close */
};

/* Opens the dicts. A dict that is there is used whatever its size (the
 * supervisor made it); a missing one is made with the host's default.
 * 0, or an SHD_ code. */
int app_open(struct app *app, shd_segment *segment);

/* evhttp's generic callback; arg is the app. */
void app_handle(struct evhttp_request *request, void *arg);

void app_close(struct app *app);

#endif
