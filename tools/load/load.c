/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * http_load - HTTP load that remembers what was acknowledged.
 *
 * N keep-alive connections, each with one request in flight. A connection
 * that is reset is opened again; what was in flight on it counts as lost,
 * and is never sent a second time. At the end (a time, or SIGTERM or SIGINT)
 * it waits for the answers under way, empties the job list, and prints what
 * it knows, a fact a line: `name value`, and for each counter
 * `counter NAME acked A lost L max M duplicates D`.
 *
 * Exit: 0 the answers agree with each other, 1 they do not, 2 usage.
 * Whether the dictionary agrees with them, the caller compares.
 */
#include "tally.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>

enum { TIMEOUT_S = 10, RETRY_MS = 5, FINISH_S = 15 };

enum kind { COUNT, FILES, PUSH, POP, KINDS };

struct load;

struct client {
    struct load *load;
    struct evhttp_connection *connection;
    struct event *timer;
    enum kind kind;
    uint64_t number;     /* of the counter, or of the job */
    uint64_t sent_us;    /* this request */
    uint64_t waiting_us; /* since the last answer, through losses */
    int busy;
    int id;
};

struct load {
    struct event_base *base;
    struct client *clients;
    struct tally tally;
    struct event *tick;
    struct event *signals[2];
    const char *prefix; /* of the counters' names */
    const char *file;
    char *host;
    uint16_t port;
    int client_count;
    int counter_count;
    int duration_s;
    int think_ms;
    int quiet;
    unsigned shares[KINDS]; /* per cent */
    unsigned run;           /* tells this run's jobs from another's */
    uint64_t random;
    uint64_t file_bytes; /* of the first answer */
    uint64_t started_us;
    uint64_t stopped_us;
    uint64_t last_answer_us;
    uint64_t stall_max_us; /* longest time without any answer */
    uint64_t wait_max_us;  /* longest time of one client without one */
    int stopping;
    int emptying; /* the job list, at the end */
    int emptied;
};

static uint64_t now_us(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_MONOTONIC, &t))
        abort();
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t next_random(struct load *load)
{
    uint64_t x = load->random; /* xorshift64 */

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return load->random = x;
}

/* ---- requests --------------------------------------------------------- */

static void on_answer(struct evhttp_request *request, void *arg);

static void on_error(enum evhttp_request_error error, void *arg)
{
    struct client *client = arg;

    if (error == EVREQ_HTTP_TIMEOUT)
        client->load->tally.timeouts++;
}

static enum kind pick_kind(struct load *load)
{
    unsigned dice = (unsigned)(next_random(load) % 100);

    if (load->emptying)
        return POP;
    for (unsigned kind = 0; kind < KINDS - 1; kind++) {
        if (dice < load->shares[kind])
            return (enum kind)kind;
        dice -= load->shares[kind];
    }
    return POP;
}

static void fail(const char *what)
{
    fprintf(stderr, "http_load: %s failed\n", what);
    exit(1);
}

static void send_request(struct client *client)
{
    struct load *load = client->load;
    struct evhttp_request *request = evhttp_request_new(on_answer, client);
    enum evhttp_cmd_type method = EVHTTP_REQ_GET;
    char target[256];

    if (!request)
        fail("evhttp_request_new");
    evhttp_request_set_error_cb(request, on_error);
    client->kind = pick_kind(load);
    switch (client->kind) {
    case COUNT:
        client->number = next_random(load) % (uint64_t)load->counter_count;
        snprintf(target, sizeof(target), "/count/%s%llu?client=c%d",
                 load->prefix, (unsigned long long)client->number, client->id);
        break;
    case FILES:
        snprintf(target, sizeof(target), "/files/%s?client=c%d", load->file,
                 client->id);
        break;
    case PUSH:
        client->number = load->tally.jobs.next++;
        method = EVHTTP_REQ_POST;
        snprintf(target, sizeof(target), "/jobs?client=c%d", client->id);
        evbuffer_add_printf(evhttp_request_get_output_buffer(request),
                            "job %u %llu", load->run,
                            (unsigned long long)client->number);
        break;
    default:
        snprintf(target, sizeof(target), "/jobs/next?client=c%d", client->id);
    }
    if (evhttp_add_header(evhttp_request_get_output_headers(request), "Host",
                          load->host))
        fail("evhttp_add_header");
    client->busy = 1;
    client->sent_us = now_us();
    if (!client->waiting_us)
        client->waiting_us = client->sent_us;
    if (evhttp_make_request(client->connection, request, method, target))
        fail("evhttp_make_request");
}

static void maybe_finish(struct load *load);

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct client *client = arg;

    (void)fd;
    (void)what;
    if (!client->load->stopping || client->load->emptying)
        send_request(client);
    else
        maybe_finish(client->load);
}

static void go_on(struct client *client, int pause_ms)
{
    const struct timeval pause = {pause_ms / 1000, pause_ms % 1000 * 1000};
    struct load *load = client->load;

    client->busy = 0;
    if (load->stopping && !(load->emptying && !load->emptied)) {
        maybe_finish(load);
    } else if (pause_ms) {
        if (event_add(client->timer, &pause))
            fail("event_add");
    } else {
        send_request(client);
    }
}

/* ---- answers ---------------------------------------------------------- */

static void note_lost(struct client *client)
{
    struct tally *tally = &client->load->tally;

    tally->lost++;
    if (client->kind == COUNT)
        tally->counters[client->number].lost++;
    else if (client->kind == PUSH)
        tally_push_lost(&tally->jobs, client->number);
    else if (client->kind == POP)
        tally->jobs.pops_lost++;
}

static void note_time(struct client *client)
{
    struct load *load = client->load;
    const uint64_t now = now_us();

    load->tally.answered++;
    tally_latency(&load->tally.latency, now - client->sent_us);
    if (now - client->waiting_us > load->wait_max_us)
        load->wait_max_us = now - client->waiting_us;
    client->waiting_us = 0;
    if (load->stopping)
        return;
    if (load->last_answer_us &&
        now - load->last_answer_us > load->stall_max_us)
        load->stall_max_us = now - load->last_answer_us;
    load->last_answer_us = now;
}

/* The body as a string; NULL if it is longer than anything we asked for. */
static const char *body_text(struct evhttp_request *request, char *buf,
                             size_t size)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(request);
    size_t len = evbuffer_get_length(in);

    if (len >= size || evbuffer_copyout(in, buf, len) != (ev_ssize_t)len)
        return NULL;
    buf[len] = '\0';
    return buf;
}

static int note_count(struct client *client, const char *body)
{
    struct tally *tally = &client->load->tally;
    unsigned long long value;
    char newline, more;

    if (!body || sscanf(body, "%llu%c%c", &value, &newline, &more) != 2 ||
        newline != '\n' || value == 0 || value > UINT32_MAX)
        return -1;
    tally_counted(&tally->counters[client->number], value);
    return 0;
}

static int note_pop(struct client *client, const char *body)
{
    unsigned long long number;
    unsigned run;
    char more;

    if (!body || sscanf(body, "job %u %llu%c", &run, &number, &more) != 2)
        return -1;
    if (run == client->load->run) /* else left by an earlier run */
        tally_popped(&client->load->tally.jobs, number);
    return 0;
}

static int note_file(struct client *client, struct evhttp_request *request)
{
    struct load *load = client->load;
    uint64_t len =
        evbuffer_get_length(evhttp_request_get_input_buffer(request));

    if (!load->file_bytes)
        load->file_bytes = len;
    return len && len == load->file_bytes ? 0 : -1;
}

static void note_answer(struct client *client, struct evhttp_request *request,
                        int code)
{
    struct tally *tally = &client->load->tally;
    char buf[128];
    const char *body = body_text(request, buf, sizeof(buf));
    int wrong = 0;

    if (client->kind == COUNT && code == 200)
        wrong = note_count(client, body);
    else if (client->kind == FILES && code == 200)
        wrong = note_file(client, request);
    else if (client->kind == PUSH && code == 201)
        tally_pushed(&tally->jobs, client->number);
    else if (client->kind == POP && code == 200)
        wrong = note_pop(client, body);
    else if (client->kind == POP && code == 204)
        client->load->emptied = client->load->emptying;
    else
        tally->refused++;
    if (wrong)
        tally->garbled++;
}

static void on_answer(struct evhttp_request *request, void *arg)
{
    struct client *client = arg;
    int code = request ? evhttp_request_get_response_code(request) : 0;

    if (!code) {
        if (request) /* libevent: no connection came about */
            client->load->tally.unsent++;
        else
            note_lost(client);
        go_on(client, RETRY_MS);
        return;
    }
    note_time(client);
    note_answer(client, request, code);
    go_on(client, client->load->think_ms);
}

/* ---- beginning and end ------------------------------------------------ */

static void maybe_finish(struct load *load)
{
    for (int i = 0; i < load->client_count; i++) {
        if (load->clients[i].busy)
            return;
    }
    if (load->shares[PUSH] && !load->emptying) {
        load->emptying = 1;
        send_request(&load->clients[0]);
    } else {
        event_base_loopexit(load->base, NULL);
    }
}

static void stop(struct load *load)
{
    const uint64_t now = now_us();

    if (load->stopping)
        return;
    load->stopping = 1;
    load->stopped_us = now;
    if (load->last_answer_us &&
        now - load->last_answer_us > load->stall_max_us)
        load->stall_max_us = now - load->last_answer_us;
    for (int i = 0; i < load->client_count; i++) {
        if (event_del(load->clients[i].timer))
            fail("event_del");
    }
    maybe_finish(load);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    (void)number;
    (void)what;
    stop(arg);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct load *load = arg;
    const uint64_t now = now_us();

    (void)fd;
    (void)what;
    if (!load->quiet && !load->stopping)
        fprintf(stderr, "load: %llu requests answered, %llu lost\n",
                (unsigned long long)load->tally.answered,
                (unsigned long long)load->tally.lost);
    if (load->stopping) {
        if (now - load->stopped_us > FINISH_S * 1000000ULL) {
            fputs("http_load: the last answers did not come\n", stderr);
            exit(1);
        }
    } else if (load->duration_s && now - load->started_us + 5000 >=
                                       (uint64_t)load->duration_s * 1000000) {
        stop(load); /* a timer may be a little early */
    }
}

/* ---- report ----------------------------------------------------------- */

static void line(const char *name, uint64_t value)
{
    printf("%s %llu\n", name, (unsigned long long)value);
}

/* True if the answers agree with each other. */
static int report(struct load *load)
{
    struct tally *t = &load->tally;
    uint64_t duplicates = 0;

    tally_close_jobs(&t->jobs);
    line("elapsed_ms", (load->stopped_us - load->started_us) / 1000);
    line("answered", t->answered);
    line("lost", t->lost);
    line("unsent", t->unsent);
    line("refused", t->refused);
    line("timeouts", t->timeouts);
    line("garbled", t->garbled);
    line("latency_p50_us", tally_quantile_us(&t->latency, 0.5));
    line("latency_p99_us", tally_quantile_us(&t->latency, 0.99));
    line("latency_max_us", t->latency.max_us);
    line("stall_max_us", load->stall_max_us);
    line("wait_max_us", load->wait_max_us);
    line("jobs_pushed", t->jobs.pushed);
    line("jobs_pushes_lost", t->jobs.pushes_lost);
    line("jobs_popped", t->jobs.popped);
    line("jobs_pops_lost", t->jobs.pops_lost);
    line("jobs_twice", t->jobs.twice);
    line("jobs_unknown", t->jobs.unknown);
    line("jobs_missing", t->jobs.missing);
    for (size_t i = 0; i < t->counter_count; i++) {
        const struct tally_counter *c = &t->counters[i];

        duplicates += c->duplicates;
        printf("counter %s%zu acked %llu lost %llu max %llu "
               "duplicates %llu\n",
               load->prefix, i, (unsigned long long)c->acked,
               (unsigned long long)c->lost, (unsigned long long)c->value_max,
               (unsigned long long)c->duplicates);
    }
    return !duplicates && !t->garbled && !t->jobs.twice && !t->jobs.unknown &&
           t->jobs.missing <= t->jobs.pops_lost;
}

/* ---- options ---------------------------------------------------------- */

static void usage(FILE *out)
{
    fputs("usage: http_load [options] ADDRESS:PORT\n"
          "  -c, --connections N  in parallel, one request each (32)\n"
          "  -d, --duration S     seconds; without it until SIGTERM\n"
          "  -k, --counters N     counters to count on (8)\n"
          "  -p, --prefix NAME    of the counters' names (load)\n"
          "  -f, --file NAME      file to get (hello.txt)\n"
          "  -m, --mix C,F,J      per cent of counts, files, jobs "
          "(80,10,10)\n"
          "  -t, --think-ms MS    pause of a connection between requests\n"
          "  -q, --quiet          no progress on stderr\n",
          out);
}

static int integer(const char *text, int min, int max)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno || *end || end == text || value < min || value > max) {
        fprintf(stderr, "http_load: \"%s\" is not a number of %d..%d\n", text,
                min, max);
        exit(2);
    }
    return (int)value;
}

static void set_mix(struct load *load, const char *text)
{
    unsigned counts, files, jobs;
    char more;

    if (sscanf(text, "%u,%u,%u%c", &counts, &files, &jobs, &more) != 3 ||
        counts > 100 || files > 100 || jobs > 100 ||
        counts + files + jobs != 100) {
        fputs("http_load: --mix wants three numbers that make 100\n", stderr);
        exit(2);
    }
    load->shares[COUNT] = counts;
    load->shares[FILES] = files;
    load->shares[PUSH] = (jobs + 1) / 2;
    load->shares[POP] = jobs / 2;
}

static void set_address(struct load *load, const char *text)
{
    const char *colon = text ? strrchr(text, ':') : NULL;

    if (!colon || colon == text) {
        usage(stderr);
        exit(2);
    }
    load->port = (uint16_t)integer(colon + 1, 1, 65535);
    load->host = strndup(text, (size_t)(colon - text));
    if (!load->host)
        fail("strndup");
}

static void parse_options(struct load *load, int argc, char **argv)
{
    static const struct option options[] = {
        {"connections", 1, NULL, 'c'}, {"duration", 1, NULL, 'd'},
        {"counters", 1, NULL, 'k'},    {"prefix", 1, NULL, 'p'},
        {"file", 1, NULL, 'f'},        {"mix", 1, NULL, 'm'},
        {"think-ms", 1, NULL, 't'},    {"quiet", 0, NULL, 'q'},
        {"help", 0, NULL, 'h'},        {NULL, 0, NULL, 0}};
    int c;

    set_mix(load, "80,10,10");
    while ((c = getopt_long(argc, argv, "c:d:k:p:f:m:t:qh", options, NULL)) !=
           -1) {
        if (c == 'c') {
            load->client_count = integer(optarg, 1, 10000);
        } else if (c == 'd') {
            load->duration_s = integer(optarg, 1, 86400);
        } else if (c == 'k') {
            load->counter_count = integer(optarg, 1, 10000);
        } else if (c == 't') {
            load->think_ms = integer(optarg, 0, 60000);
        } else if (c == 'p') {
            load->prefix = optarg;
        } else if (c == 'f') {
            load->file = optarg;
        } else if (c == 'm') {
            set_mix(load, optarg);
        } else if (c == 'q') {
            load->quiet = 1;
        } else {
            usage(c == 'h' ? stdout : stderr);
            exit(c == 'h' ? 0 : 2);
        }
    }
    set_address(load, optind + 1 == argc ? argv[optind] : NULL);
}

/* ---- main ------------------------------------------------------------- */

static void start_client(struct load *load, int id)
{
    struct client *client = &load->clients[id];

    client->load = load;
    client->id = id;
    client->connection =
        evhttp_connection_base_new(load->base, NULL, load->host, load->port);
    client->timer = evtimer_new(load->base, on_timer, client);
    if (!client->connection || !client->timer)
        fail("evhttp_connection_base_new");
    evhttp_connection_set_timeout(client->connection, TIMEOUT_S);
    send_request(client);
}

static void set_up(struct load *load)
{
    const struct timeval second = {1, 0};
    struct event **signals = load->signals;

    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        fail("signal");
    load->base = event_base_new();
    load->clients = calloc((size_t)load->client_count, sizeof(*load->clients));
    if (!load->base || !load->clients)
        fail("event_base_new");
    load->tick = event_new(load->base, -1, EV_PERSIST, on_tick, load);
    signals[0] = evsignal_new(load->base, SIGTERM, on_signal, load);
    signals[1] = evsignal_new(load->base, SIGINT, on_signal, load);
    if (!load->tick || !signals[0] || !signals[1] ||
        event_add(load->tick, &second) || event_add(signals[0], NULL) ||
        event_add(signals[1], NULL))
        fail("event_new");
}

static void tear_down(struct load *load)
{
    for (int i = 0; i < load->client_count; i++) {
        event_free(load->clients[i].timer);
        evhttp_connection_free(load->clients[i].connection);
    }
    event_free(load->tick);
    event_free(load->signals[0]);
    event_free(load->signals[1]);
    event_base_free(load->base);
    free(load->clients);
    free(load->host);
    tally_free(&load->tally);
}

int main(int argc, char **argv)
{
    struct load load = {.prefix = "load",
                        .file = "hello.txt",
                        .client_count = 32,
                        .counter_count = 8};
    int agrees;

    parse_options(&load, argc, argv);
    tally_init(&load.tally, (size_t)load.counter_count);
    set_up(&load);
    load.started_us = now_us();
    load.random = load.started_us * 2654435761u | 1;
    load.run = (unsigned)(load.started_us ^ load.started_us >> 20) >> 1;
    for (int i = 0; i < load.client_count; i++)
        start_client(&load, i);
    if (event_base_dispatch(load.base) < 0)
        fail("event_base_dispatch");
    agrees = report(&load);
    tear_down(&load);
    return agrees && !fflush(stdout) ? 0 : 1;
}
