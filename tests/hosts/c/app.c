/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The endpoints. Values are read from the dict straight into the evbuffer
 * that is sent: one copy. Each handler answers from within the callback,
 * except for a page that another worker is just filling: then the request
 * waits on a timer, and is dropped if its connection closes meanwhile.
 */
#include "app.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/keyvalq_struct.h>

enum {
    NAME_MAX_BYTES = 64,
    GUESS_BYTES = 4096, /* first try of a read; the dict tells the need */
    POLL_MS = 10        /* between looks at a page being filled */
};

static const char TEXT[] = "text/plain";
static const char BYTES[] = "application/octet-stream";
static const char JSON[] = "application/json";

/* ---- answers ---------------------------------------------------------- */

struct pending {
    struct app *app;
};

static void pending_sent(struct evhttp_request *request, void *arg)
{
    struct pending *pending = arg;

    evhttp_connection_set_closecb(evhttp_request_get_connection(request), NULL,
                                  NULL);
    pending->app->answers_pending--;
    free(pending);
}

static void pending_lost(struct evhttp_connection *connection, void *arg)
{
    struct pending *pending = arg;

    (void)connection;
    pending->app->answers_pending--;
    free(pending);
}

/* Counts answers that are not sent yet, for a drain to wait for. */
static void count_pending(struct app *app, struct evhttp_request *request)
{
    struct pending *pending = malloc(sizeof(*pending));

    if (!pending)
        return;
    pending->app = app;
    app->answers_pending++;
    evhttp_request_set_on_complete_cb(request, pending_sent, pending);
    evhttp_connection_set_closecb(evhttp_request_get_connection(request),
                                  pending_lost, pending);
}

static void add_field(struct evhttp_request *request, const char *name,
                      const char *value)
{
    if (evhttp_add_header(evhttp_request_get_output_headers(request), name,
                          value))
        fprintf(stderr, "host_c: cannot add the header %s\n", name);
}

/* Sends body (consumed; may be NULL). */
static void answer(struct app *app, struct evhttp_request *request, int code,
                   const char *reason, const char *type, struct evbuffer *body)
{
    const size_t len = body ? evbuffer_get_length(body) : 0;
    char text[24];

    snprintf(text, sizeof(text), "%d", (int)getpid());
    add_field(request, "X-Worker", text);
    if (code != HTTP_NOCONTENT) {
        /* evhttp leaves it out for HEAD and for HTTP/1.0. */
        snprintf(text, sizeof(text), "%zu", len);
        add_field(request, "Content-Length", text);
        add_field(request, "Content-Type", type);
    }
    /* And it would send the body of an answer to HEAD. */
    if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD && body &&
        evbuffer_drain(body, len))
        fprintf(stderr, "host_c: cannot drop a body\n");
    if (app->draining)
        add_field(request, "Connection", "close");
    count_pending(app, request);
    evhttp_send_reply(request, code, reason, body);
    if (body)
        evbuffer_free(body);
}

__attribute__((format(printf, 5, 6))) static void
answer_text(struct app *app, struct evhttp_request *request, int code,
            const char *reason, const char *format, ...)
{
    struct evbuffer *body = evbuffer_new();
    va_list args;

    va_start(args, format);
    if (body && evbuffer_add_vprintf(body, format, args) < 0) {
        evbuffer_free(body);
        body = NULL;
    }
    va_end(args);
    answer(app, request, code, reason, TEXT, body);
}

/* A change fails when the dict is full, or locked by a stopped process for
 * longer than the bound: nothing was changed then. */
static void answer_error(struct app *app, struct evhttp_request *request,
                         int code)
{
    if (code == SHD_NOMEM || code == SHD_TOOBIG) {
        answer_text(app, request, 507, "Insufficient Storage", "%s\n",
                    shd_strerror(code));
    } else {
        add_field(request, "Retry-After", "1");
        answer_text(app, request, HTTP_SERVUNAVAIL, "Service Unavailable",
                    "%s\n", shd_strerror(code));
    }
}

/* ---- reading into an evbuffer ----------------------------------------- */

typedef int read_fn(shd_dict *dict, const char *key, size_t key_len, void *buf,
                    size_t size, struct shd_value *v);

static int read_live(shd_dict *dict, const char *key, size_t key_len,
                     void *buf, size_t size, struct shd_value *v)
{
    return shd_get(dict, key, key_len, buf, size, v);
}

static int read_stale(shd_dict *dict, const char *key, size_t key_len,
                      void *buf, size_t size, struct shd_value *v)
{
    return shd_get_stale(dict, key, key_len, buf, size, v);
}

static int read_first(shd_dict *dict, const char *key, size_t key_len,
                      void *buf, size_t size, struct shd_value *v)
{
    return shd_pop(dict, 1, key, key_len, buf, size, v);
}

/* Appends the string that `read` finds. SHD_SPACE tells the need, and took
 * nothing; the value may have grown again by the next try. */
static int read_into(struct evbuffer *out, read_fn *read, shd_dict *dict,
                     const char *key, struct shd_value *v)
{
    size_t size = GUESS_BYTES;

    for (;;) {
        struct evbuffer_iovec room;
        int rc;

        if (evbuffer_reserve_space(out, (ev_ssize_t)size, &room, 1) != 1)
            return SHD_NOMEM;
        rc = read(dict, key, strlen(key), room.iov_base, size, v);
        if (rc == SHD_SPACE) {
            size = v->len;
            continue;
        }
        room.iov_len = !rc && v->type == SHD_STRING ? v->len : 0;
        if (evbuffer_commit_space(out, &room, 1))
            return SHD_NOMEM;
        return rc;
    }
}

/* ---- rate limit ------------------------------------------------------- */

/* A counter that begins a new window by itself: it is made with the window
 * as its time to live, and increments do not prolong it. */
static int over_limit(struct app *app, struct evhttp_request *request,
                      const char *query)
{
    struct evkeyvalq pairs = {0};
    const char *client;
    char *address = NULL;
    uint16_t port;
    char key[80];
    double seen;
    int rc;

    client = evhttp_find_header(evhttp_request_get_input_headers(request),
                                "X-Client-Id");
    if (!client && query && !evhttp_parse_query_str(query, &pairs))
        client = evhttp_find_header(&pairs, "client");
    if (!client) {
        evhttp_connection_get_peer(evhttp_request_get_connection(request),
                                   &address, &port);
        client = address ? address : "unknown";
    }
    snprintf(key, sizeof(key), "rate:%.64s", client);
    evhttp_clear_headers(&pairs);
    rc = shd_incr(app->limits, key, strlen(key), 1, 1, 0,
                  app->settings.rate_window_ms, &seen, NULL);
    /* No answer from the limiter is no reason to turn a client away. */
    return !rc && seen > app->settings.rate;
}

/* ---- page cache ------------------------------------------------------- */

static void answer_page(struct app *app, struct evhttp_request *request,
                        const struct shd_value *v, struct evbuffer *body,
                        const char *how)
{
    if (v->type != SHD_STRING) { /* `false`: there is no such file */
        evbuffer_free(body);
        answer_text(app, request, HTTP_NOTFOUND, "Not Found",
                    "no such file\n");
        return;
    }
    add_field(request, "X-Cache", how);
    answer(app, request, HTTP_OK, "OK", BYTES, body);
}

/* Reads a regular file: 0 or an errno. *data is to be freed. */
static int read_file(const char *path, size_t bytes_max, char **data,
                     size_t *len)
{
    struct stat st;
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int err = 0;

    *data = NULL;
    *len = 0;
    if (fd < 0)
        return errno;
    if (fstat(fd, &st)) {
        err = errno;
    } else if (!S_ISREG(st.st_mode)) {
        err = ENOENT;
    } else if ((uint64_t)st.st_size > bytes_max) {
        err = EFBIG;
    } else if (!(*data = malloc((size_t)st.st_size + 1))) {
        err = ENOMEM;
    } else {
        do {
            n = read(fd, *data + *len, (size_t)st.st_size - *len);
            *len += n > 0 ? (size_t)n : 0;
        } while (n > 0 || (n < 0 && errno == EINTR));
        if (n < 0)
            err = errno;
    }
    close(fd);
    if (err) {
        free(*data);
        *data = NULL;
    }
    return err;
}

static void unlock_page(struct app *app, const char *name)
{
    char lock[80];
    int rc;

    snprintf(lock, sizeof(lock), "lock:%s", name);
    rc = shd_delete(app->cache, lock, strlen(lock));
    if (rc && rc != SHD_NOTFOUND) /* then its time to live ends it */
        fprintf(stderr, "host_c: %s: %s\n", lock, shd_strerror(rc));
}

static void fill_page(struct app *app, struct evhttp_request *request,
                      const char *name)
{
    const struct app_settings *s = &app->settings;
    struct shd_value v = {.type = SHD_STRING};
    struct evbuffer *body = evbuffer_new();
    char path[4096], key[80];
    char *data;
    size_t len;
    int err, rc;

    snprintf(path, sizeof(path), "%s/%s", s->docroot, name);
    snprintf(key, sizeof(key), "page:%s", name);
    err = read_file(path, s->page_bytes, &data, &len);
    if (!err && (!body || evbuffer_add(body, data, len)))
        err = ENOMEM;
    if (!err) {
        rc = shd_set(app->cache, key, strlen(key), data, len, s->page_ttl_ms);
    } else if (err == ENOENT) {
        v.type = SHD_BOOLEAN;
        rc = shd_store(app->cache, SHD_SET, key, strlen(key), SHD_BOOLEAN,
                       NULL, 0, 0, s->absent_ttl_ms, 0, NULL);
    } else {
        rc = 0;
    }
    free(data);
    /* A store that fails costs a miss next time, nothing else. */
    if (rc)
        fprintf(stderr, "host_c: %s not cached: %s\n", name, shd_strerror(rc));
    unlock_page(app, name);

    if (err && err != ENOENT) {
        fprintf(stderr, "host_c: cannot read %s: %s\n", name, strerror(err));
        if (body)
            evbuffer_free(body);
        answer_text(app, request, HTTP_INTERNAL, "Internal Server Error",
                    "cannot read the file\n");
        return;
    }
    if (!body)
        answer_error(app, request, SHD_NOMEM);
    else
        answer_page(app, request, &v, body, "MISS");
}

struct wait {
    struct app *app;
    struct evhttp_request *request;
    struct event *timer;
    int64_t waited_ms;
    char name[NAME_MAX_BYTES + 1];
};

static int try_page(struct app *app, struct evhttp_request *request,
                    const char *name, int64_t waited_ms);

static void wait_end(struct wait *wait)
{
    event_free(wait->timer);
    free(wait);
}

static void wait_lost(struct evhttp_connection *connection, void *arg)
{
    (void)connection;
    wait_end(arg);
}

static void wait_over(evutil_socket_t fd, short what, void *arg)
{
    const struct timeval pause = {0, POLL_MS * 1000};
    struct wait *wait = arg;

    (void)fd;
    (void)what;
    evhttp_connection_set_closecb(evhttp_request_get_connection(wait->request),
                                  NULL, NULL);
    wait->waited_ms += POLL_MS;
    if (try_page(wait->app, wait->request, wait->name, wait->waited_ms)) {
        wait_end(wait);
        return;
    }
    evhttp_connection_set_closecb(evhttp_request_get_connection(wait->request),
                                  wait_lost, wait);
    event_add(wait->timer, &pause);
}

static void wait_for_page(struct app *app, struct evhttp_request *request,
                          const char *name)
{
    const struct timeval pause = {0, POLL_MS * 1000};
    struct wait *wait = calloc(1, sizeof(*wait));

    if (wait)
        wait->timer = evtimer_new(app->base, wait_over, wait);
    if (!wait || !wait->timer || event_add(wait->timer, &pause)) {
        if (wait && wait->timer)
            event_free(wait->timer);
        free(wait);
        fill_page(app, request, name);
        return;
    }
    wait->app = app;
    wait->request = request;
    snprintf(wait->name, sizeof(wait->name), "%s", name);
    evhttp_connection_set_closecb(evhttp_request_get_connection(request),
                                  wait_lost, wait);
}

/* Of all workers that miss, the one whose add succeeds reads the file. The
 * others answer with the expired page if it is still there, and else look
 * again a little later. The lock is an entry with a time to live, so that a
 * worker killed while it fills holds the others up for no longer. True if
 * the request was answered. */
static int try_page(struct app *app, struct evhttp_request *request,
                    const char *name, int64_t waited_ms)
{
    const int64_t lock_ttl_ms = app->settings.lock_ttl_ms;
    struct evbuffer *body = evbuffer_new();
    struct shd_value v;
    char key[80], lock[80];
    int rc;

    if (!body) {
        answer_error(app, request, SHD_NOMEM);
        return 1;
    }
    snprintf(key, sizeof(key), "page:%s", name);
    snprintf(lock, sizeof(lock), "lock:%s", name);
    if (!read_into(body, read_live, app->cache, key, &v)) {
        answer_page(app, request, &v, body, "HIT");
        return 1;
    }
    rc = shd_store(app->cache, SHD_ADD, lock, strlen(lock), SHD_NUMBER, NULL,
                   0, (double)getpid(), lock_ttl_ms, 0, NULL);
    /* Between our look and our lock another may have filled it. */
    if (!rc && !read_into(body, read_live, app->cache, key, &v)) {
        unlock_page(app, name);
        answer_page(app, request, &v, body, "HIT");
        return 1;
    }
    if (rc != SHD_EXISTS || waited_ms > lock_ttl_ms) {
        evbuffer_free(body);
        fill_page(app, request, name);
        return 1;
    }
    if (!read_into(body, read_stale, app->cache, key, &v)) {
        answer_page(app, request, &v, body, "STALE");
        return 1;
    }
    evbuffer_free(body);
    return 0;
}

static void get_page(struct app *app, struct evhttp_request *request,
                     const char *name)
{
    if (!try_page(app, request, name, 0))
        wait_for_page(app, request, name);
}

/* ---- counters --------------------------------------------------------- */

static void get_count(struct app *app, struct evhttp_request *request,
                      const char *name)
{
    double value;
    int rc =
        shd_incr(app->counters, name, strlen(name), 1, 1, 0, 0, &value, NULL);

    if (rc)
        answer_error(app, request, rc);
    else
        answer_text(app, request, HTTP_OK, "OK", "%.0f\n", value);
}

/* The walk holds no lock: other workers count on meanwhile. */
static int collect_counters(struct app *app, cJSON *all)
{
    static char key[65536];
    size_t len = 0;
    struct shd_value v;
    int rc;

    for (;;) {
        rc = shd_scan(app->counters, len ? key : NULL, len, 0, key,
                      sizeof(key) - 1, &len, NULL, 0, &v);
        if (rc)
            return rc == SHD_NOTFOUND ? 0 : rc;
        key[len] = '\0';
        if (v.type == SHD_NUMBER &&
            !cJSON_AddNumberToObject(all, key, v.number))
            return SHD_NOMEM;
    }
}

static void get_stats(struct app *app, struct evhttp_request *request,
                      const char *name)
{
    struct evbuffer *body = evbuffer_new();
    cJSON *all = cJSON_CreateObject();
    int rc = body && all ? collect_counters(app, all) : SHD_NOMEM;
    char *text = rc ? NULL : cJSON_PrintUnformatted(all);

    (void)name;
    cJSON_Delete(all);
    if (text && evbuffer_add_printf(body, "%s\n", text) > 0) {
        answer(app, request, HTTP_OK, "OK", JSON, body);
    } else {
        if (body)
            evbuffer_free(body);
        answer_error(app, request, rc ? rc : SHD_NOMEM);
    }
    cJSON_free(text);
}

/* ---- jobs ------------------------------------------------------------- */

static void post_job(struct app *app, struct evhttp_request *request,
                     const char *name)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(request);
    size_t len = evbuffer_get_length(in);
    uint64_t length;
    int rc;

    (void)name;
    if (len == 0) {
        answer_text(app, request, HTTP_BADREQUEST, "Bad Request",
                    "a job has a body\n");
        return;
    }
    rc = shd_push(app->jobs, 0, "queue", 5, SHD_STRING,
                  evbuffer_pullup(in, -1), len, 0, &length);
    if (rc)
        answer_error(app, request, rc);
    else
        answer_text(app, request, 201, "Created", "%llu\n",
                    (unsigned long long)length);
}

static void get_jobs(struct app *app, struct evhttp_request *request,
                     const char *name)
{
    uint64_t length;
    int rc = shd_llen(app->jobs, "queue", 5, &length);

    (void)name;
    if (rc)
        answer_error(app, request, rc);
    else
        answer_text(app, request, HTTP_OK, "OK", "%llu\n",
                    (unsigned long long)length);
}

static void next_job(struct app *app, struct evhttp_request *request,
                     const char *name)
{
    struct evbuffer *body = evbuffer_new();
    struct shd_value v;
    int rc = SHD_NOMEM;

    (void)name;
    if (body)
        rc = read_into(body, read_first, app->jobs, "queue", &v);
    if (!rc && v.type == SHD_NUMBER &&
        evbuffer_add_printf(body, "%.17g", v.number) < 0)
        rc = SHD_NOMEM;
    if (!rc) {
        answer(app, request, HTTP_OK, "OK", BYTES, body);
        return;
    }
    if (body)
        evbuffer_free(body);
    if (rc == SHD_NOTFOUND)
        answer(app, request, HTTP_NOCONTENT, "No Content", TEXT, NULL);
    else
        answer_error(app, request, rc);
}

/* ---- routes ----------------------------------------------------------- */

typedef void handler_fn(struct app *app, struct evhttp_request *request,
                        const char *name);

static const struct route {
    const char *path; /* one that ends in '/' takes a name */
    int methods;
    const char *allow;
    handler_fn *handler;
} routes[] = {
    {"/files/", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, "GET, HEAD", get_page},
    {"/count/", EVHTTP_REQ_GET, "GET", get_count},
    {"/stats", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, "GET, HEAD", get_stats},
    {"/jobs", EVHTTP_REQ_POST, "GET, POST", post_job},
    {"/jobs", EVHTTP_REQ_GET, "GET, POST", get_jobs},
    {"/jobs/next", EVHTTP_REQ_GET, "GET", next_job},
};

/* Letters, digits, '.', '_', '-', not starting with a dot: never a path. */
static int is_name(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz"
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return len > 0 && len <= NAME_MAX_BYTES && !text[len] && text[0] != '.';
}

static void dispatch(struct app *app, struct evhttp_request *request,
                     const char *path)
{
    const int method = (int)evhttp_request_get_command(request);
    const struct route *found = NULL;

    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        const struct route *route = &routes[i];
        const size_t len = strlen(route->path);
        const int named = route->path[len - 1] == '/';

        if (named ? strncmp(path, route->path, len) || !is_name(path + len)
                  : strcmp(path, route->path) != 0)
            continue;
        found = route;
        if (route->methods & method) {
            route->handler(app, request, path + len);
            return;
        }
    }
    if (found) {
        add_field(request, "Allow", found->allow);
        answer_text(app, request, HTTP_BADMETHOD, "Method Not Allowed",
                    "method not allowed\n");
    } else {
        answer_text(app, request, HTTP_NOTFOUND, "Not Found", "not found\n");
    }
}

void app_handle(struct evhttp_request *request, void *arg)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const char *raw = uri ? evhttp_uri_get_path(uri) : NULL;
    struct app *app = arg;
    size_t len = 0;
    char *path = raw ? evhttp_uridecode(raw, 0, &len) : NULL;
    char wait_s[24];

    if (!path || strlen(path) != len) { /* a %00 would cut the name */
        answer_text(app, request, HTTP_BADREQUEST, "Bad Request",
                    "bad path\n");
    } else if (over_limit(app, request, evhttp_uri_get_query(uri))) {
        snprintf(wait_s, sizeof(wait_s), "%lld",
                 (long long)(app->settings.rate_window_ms + 999) / 1000);
        add_field(request, "Retry-After", wait_s);
        answer_text(app, request, 429, "Too Many Requests",
                    "too many requests\n");
    } else {
        dispatch(app, request, path);
    }
    free(path);
}

/* ---- opening ---------------------------------------------------------- */

static int open_dict(shd_segment *segment, const char *name,
                     uint64_t capacity_bytes, shd_dict **out)
{
    const struct shd_dict_options options = {
        .struct_size = sizeof(options),
        .capacity_bytes = capacity_bytes,
    };
    int rc = shd_dict_open(segment, name, NULL, out);

    if (rc == SHD_NOTFOUND)
        rc = shd_dict_open(segment, name, &options, out);
    if (rc)
        fprintf(stderr, "host_c: cannot open the dict %s: %s\n", name,
                shd_last_error());
    return rc;
}

int app_open(struct app *app, shd_segment *segment)
{
    const uint64_t mib = 1 << 20;
    int rc = open_dict(segment, "cache", 16 * mib, &app->cache);

    if (!rc)
        rc = open_dict(segment, "limits", 4 * mib, &app->limits);
    if (!rc)
        rc = open_dict(segment, "counters", 1 * mib, &app->counters);
    if (!rc)
        rc = open_dict(segment, "jobs", 16 * mib, &app->jobs);
    if (rc)
        app_close(app);
    return rc;
}

void app_close(struct app *app)
{
    shd_dict **all[] = {&app->cache, &app->limits, &app->counters, &app->jobs};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (*all[i])
            shd_dict_close(*all[i]);
        *all[i] = NULL;
    }
}
