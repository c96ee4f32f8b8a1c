/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_c - one worker of an HTTP server that shares its state through
 * shdict. Start several of them on one socket:
 *
 *   shdict supervise -n 4 --segment demo --listen 127.0.0.1:8080 \
 *       --dict cache=16m --dict limits=4m --dict counters=1m \
 *       --dict jobs=16m -- build/tests/host_c
 *
 * or a single one: host_c --segment demo --listen 127.0.0.1:8080
 * See README.md for what it answers.
 */
#include "app.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <event2/event.h>
#include <event2/util.h>

/* Exit codes, as for the shdict command. */
enum { EXIT_USAGE = 2, EXIT_ATTACH = 3 };

enum {
    HEADER_BYTES = 8192,
    BODY_BYTES = 65536,
    IDLE_S = 60,
    FD_PASSED = 3, /* where systemd's protocol begins */
    BACKLOG = 1024
};

struct host {
    struct app app;
    struct evhttp *http;
    struct evhttp_bound_socket *socket;
    struct event *drained;
    struct event *signals[2];
    const char *segment;
    const char *listen;
    int64_t grace_ms; /* what a silent client has left after SIGTERM */
    int64_t stop_ms;  /* what a slow client has left after SIGTERM */
    int64_t drain_ms; /* since SIGTERM */
};

/* ---- options ---------------------------------------------------------- */

static void usage(FILE *out)
{
    fputs("usage: host_c [--segment NAME] [--listen ADDRESS:PORT]\n"
          "    [--docroot DIR] [--page-ttl S] [--absent-ttl S]\n"
          "    [--lock-ttl S] [--rate N] [--rate-window S] [--grace S]\n"
          "    [--stop S]\n"
          "Under `shdict supervise` the first two come from it.\n",
          out);
}

static double number(const char *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (*end || end == text || !(value >= 0 && value < 1e12)) {
        fprintf(stderr, "host_c: --%s needs a number, not \"%s\"\n", option,
                text);
        exit(EXIT_USAGE);
    }
    return value;
}

static void parse_options(struct host *host, int argc, char **argv)
{
    enum {
        PAGE_TTL,
        ABSENT_TTL,
        LOCK_TTL,
        RATE_WINDOW,
        GRACE,
        STOP,
        RATE,
        SEGMENT,
        LISTEN,
        DOCROOT,
        HELP
    };
    static const struct option options[] = {
        {"page-ttl", 1, NULL, PAGE_TTL},
        {"absent-ttl", 1, NULL, ABSENT_TTL},
        {"lock-ttl", 1, NULL, LOCK_TTL},
        {"grace", 1, NULL, GRACE},
        {"rate-window", 1, NULL, RATE_WINDOW},
        {"stop", 1, NULL, STOP},
        {"rate", 1, NULL, RATE},
        {"segment", 1, NULL, SEGMENT},
        {"listen", 1, NULL, LISTEN},
        {"docroot", 1, NULL, DOCROOT},
        {"help", 0, NULL, HELP},
        {NULL, 0, NULL, 0}};
    struct app_settings *s = &host->app.settings;
    int64_t *const times[] = {&s->page_ttl_ms, &s->absent_ttl_ms,
                              &s->lock_ttl_ms, &s->rate_window_ms,
                              &host->grace_ms, &host->stop_ms};
    int c, index = 0;

    while ((c = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (c >= PAGE_TTL && c <= STOP) {
            *times[c] = (int64_t)(number(options[index].name, optarg) * 1e3);
        } else if (c == RATE) {
            s->rate = number("rate", optarg);
        } else if (c == SEGMENT) {
            host->segment = optarg;
        } else if (c == LISTEN) {
            host->listen = optarg;
        } else if (c == DOCROOT) {
            s->docroot = optarg;
        } else {
            usage(c == HELP ? stdout : stderr);
            exit(c == HELP ? 0 : EXIT_USAGE);
        }
    }
    if (optind < argc) {
        usage(stderr);
        exit(EXIT_USAGE);
    }
}

/* ---- the socket ------------------------------------------------------- */

/* The listening socket that the supervisor passes to all workers (systemd's
 * protocol: descriptor 3, meant for LISTEN_PID); -1 if there is none. */
static int passed_socket(void)
{
    const char *fds = getenv("LISTEN_FDS");
    const char *pid = getenv("LISTEN_PID");

    if (!fds || !pid || atoi(fds) < 1 || atoi(pid) != (int)getpid())
        return -1;
    return FD_PASSED;
}

static int own_socket(const char *text)
{
    struct sockaddr_storage address;
    int length = sizeof(address), on = 1, fd;

    if (!text || evutil_parse_sockaddr_port(text, (struct sockaddr *)&address,
                                            &length)) {
        fprintf(stderr, "host_c: no socket was passed; "
                        "give --listen ADDRESS:PORT\n");
        exit(EXIT_USAGE);
    }
    fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        bind(fd, (struct sockaddr *)&address, (socklen_t)length) ||
        listen(fd, BACKLOG)) {
        fprintf(stderr, "host_c: cannot listen on %s: %s\n", text,
                strerror(errno));
        exit(EXIT_FAILURE);
    }
    return fd;
}

/* ---- stopping --------------------------------------------------------- */

static void drain_tick(evutil_socket_t fd, short what, void *arg)
{
    struct host *host = arg;

    (void)fd;
    (void)what;
    host->drain_ms += 20;
    if (host->drain_ms < host->grace_ms)
        return;
    if (!host->app.answers_pending || host->drain_ms > host->stop_ms)
        event_base_loopexit(host->app.base, NULL);
}

/* Stops accepting (the socket stays open in the other workers), answers
 * what still comes on open connections with `Connection: close`, and ends
 * when the grace is over and all answers are sent. */
static void on_signal(evutil_socket_t number, short what, void *arg)
{
    const struct timeval tick = {0, 20000};
    struct host *host = arg;

    (void)number;
    (void)what;
    if (host->app.draining)
        return;
    host->app.draining = 1;
    evhttp_del_accept_socket(host->http, host->socket);
    if (event_add(host->drained, &tick))
        event_base_loopexit(host->app.base, NULL);
}

/* ---- the worker ------------------------------------------------------- */

static int set_up(struct host *host)
{
    struct app *app = &host->app;
    struct event **signals = host->signals;
    int fd = passed_socket();

    if (fd < 0)
        fd = own_socket(host->listen);
    app->base = event_base_new();
    host->http = app->base ? evhttp_new(app->base) : NULL;
    if (!host->http || evutil_make_socket_nonblocking(fd))
        return -1;
    evhttp_set_max_headers_size(host->http, HEADER_BYTES);
    evhttp_set_max_body_size(host->http, BODY_BYTES);
    evhttp_set_timeout(host->http, IDLE_S);
    evhttp_set_allowed_methods(
        host->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST |
                        EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE);
    evhttp_set_gencb(host->http, app_handle, app);
    host->socket = evhttp_accept_socket_with_handle(host->http, fd);
    host->drained = event_new(app->base, -1, EV_PERSIST, drain_tick, host);
    signals[0] = evsignal_new(app->base, SIGTERM, on_signal, host);
    signals[1] = evsignal_new(app->base, SIGINT, on_signal, host);
    if (!host->socket || !host->drained || !signals[0] || !signals[1] ||
        event_add(signals[0], NULL) || event_add(signals[1], NULL))
        return -1;
    return 0;
}

static void tear_down(struct host *host)
{
    evhttp_free(host->http);
    event_free(host->drained);
    event_free(host->signals[0]);
    event_free(host->signals[1]);
    event_base_free(host->app.base);
}

int main(int argc, char **argv)
{
    struct host host = {
        .segment = getenv("SHDICT_SEGMENT"),
        .grace_ms = 300,
        .stop_ms = 5000,
        .app.settings = {.docroot = "tests/hosts/docroot",
                         .page_bytes = 1 << 20,
                         .page_ttl_ms = 60000,
                         .absent_ttl_ms = 1000,
                         .lock_ttl_ms = 1000,
                         .rate_window_ms = 1000,
                         .rate = 1e6},
    };
    const struct shd_segment_options options = {.struct_size =
                                                    sizeof(options)};
    shd_segment *segment;
    uint64_t incarnation;

    parse_options(&host, argc, argv);
    if (!host.segment) {
        fprintf(stderr, "host_c: set SHDICT_SEGMENT or give --segment\n");
        return EXIT_USAGE;
    }
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return EXIT_FAILURE;
    if (shd_segment_open(host.segment, &options, &segment)) {
        fprintf(stderr, "host_c: cannot open the segment %s: %s\n",
                host.segment, shd_last_error());
        return EXIT_ATTACH;
    }
    if (app_open(&host.app, segment))
        return EXIT_ATTACH;
    if (set_up(&host)) {
        fprintf(stderr, "host_c: cannot set up the event loop\n");
        return EXIT_FAILURE;
    }
    /* The first change would do it; so `shdict workers` shows idle ones.
     * By now SIGTERM is caught: who is listed drains. */
    if (shd_worker_join(segment, &incarnation)) {
        fprintf(stderr, "host_c: cannot join the segment: %s\n",
                shd_last_error());
        return EXIT_ATTACH;
    }
    if (event_base_dispatch(host.app.base) < 0)
        return EXIT_FAILURE;
    tear_down(&host);
    app_close(&host.app);
    if (shd_segment_close(segment)) {
        fprintf(stderr, "host_c: %s\n", shd_last_error());
        return EXIT_FAILURE;
    }
    return 0;
}
