/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict export: the figures in the text format of Prometheus, on standard
 * output, into a file (for the node exporter's textfile collector; it is
 * replaced whole), or over HTTP by libmicrohttpd. */
#include "cli.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* A label's value: bytes as text, then what the format wants escaped. */
static void label(FILE *out, const char *name, const char *value)
{
    char *text = NULL;
    size_t size;
    FILE *memory = open_memstream(&text, &size);

    if (memory == NULL)
        return;
    for (const char *p = value; *p;) {
        size_t n = strcspn(p, "\\");
        cli_escape_utf8(memory, p, n);
        p += n;
        if (*p)
            putc(*p++, memory);
    }
    fclose(memory);
    fprintf(out, "%s=\"", name);
    for (const char *p = text; p && *p; p++) {
        if (*p == '\\' || *p == '"')
            putc('\\', out);
        putc(*p, out);
    }
    putc('"', out);
    free(text);
}

static void head(FILE *out, const char *name, const char *suffix,
                 const char *help, bool counter)
{
    fprintf(out, "# HELP shdict_%s%s %s\n# TYPE shdict_%s%s %s\n", name,
            suffix, help, name, suffix, counter ? "counter" : "gauge");
}

static void segment_figure(FILE *out, const char *segment, const char *name,
                           const char *help, bool counter, uint64_t value)
{
    head(out, name, counter ? "_total" : "", help, counter);
    fprintf(out, "shdict_%s%s{", name, counter ? "_total" : "");
    label(out, "segment", segment);
    fprintf(out, "} %llu\n", (unsigned long long)value);
}

static void workers(FILE *out, const char *name, shd_segment *segment,
                    uint32_t max)
{
    struct shd_worker_info w = {.struct_size = sizeof(w)};
    unsigned long long alive = 0, dead = 0;

    for (uint32_t i = 0; i < max; i++) {
        if (shd_worker_info(segment, i, &w) != SHD_OK)
            continue;
        alive += w.state == SHD_WORKER_ALIVE;
        dead += w.state == SHD_WORKER_DEAD;
    }
    head(out, "workers", "", "Workers, by whether their process is there",
         false);
    fputs("shdict_workers{", out);
    label(out, "segment", name);
    fprintf(out, ",state=\"alive\"} %llu\nshdict_workers{", alive);
    label(out, "segment", name);
    fprintf(out, ",state=\"dead\"} %llu\n", dead);
}

/* The lines of one figure must stand together: so all objects are asked first.
 */
struct objects {
    struct cli_object *object;
    bool *damaged;
    size_t n, room;
    size_t n_damaged; /* with those whose very name is lost */
};

static bool more_room(struct objects *all)
{
    size_t room = all->room ? 2 * all->room : 16;
    void *object = realloc(all->object, room * sizeof(*all->object));

    if (object != NULL)
        all->object = object;
    void *damaged = realloc(all->damaged, room * sizeof(*all->damaged));
    if (damaged != NULL)
        all->damaged = damaged;
    if (object == NULL || damaged == NULL)
        return false;
    all->room = room;
    return true;
}

/* *status: as cli_left_out. Who watches is not to be left without figures in
 * the night in which one object is damaged. */
static int gather(const struct cli_args *args, shd_segment *segment,
                  struct objects *all, int *status)
{
    for (uint32_t i = 0;; i++) {
        if (all->n == all->room && !more_room(all))
            return SHD_NOMEM;
        struct cli_object *o = &all->object[all->n];
        int code = cli_object_at(segment, i, o);
        if (code == SHD_INVAL)
            return SHD_OK;
        if (!cli_left_out(args, code, status) && code != SHD_OK)
            return code;
        if (code == SHD_CORRUPT) {
            o->figures = 0;
            all->n_damaged++;
        }
        if (code == SHD_OK || (code == SHD_CORRUPT && o->name[0] != '\0'))
            all->damaged[all->n++] = code == SHD_CORRUPT;
    }
}

/* Of all kinds, each figure once, in the order in which it is met. */
static bool is_first(const struct objects *all, size_t object, unsigned figure)
{
    const char *name = all->object[object].figure[figure].name;

    for (size_t i = 0; i < object; i++)
        for (unsigned k = 0; k < all->object[i].figures; k++)
            if (strcmp(all->object[i].figure[k].name, name) == 0)
                return false;
    return true;
}

static void line(FILE *out, const char *name, const char *suffix,
                 const char *segment, const struct cli_object *o,
                 uint64_t value)
{
    fprintf(out, "shdict_%s%s{", name, suffix);
    label(out, "segment", segment);
    putc(',', out);
    label(out, "object", o->name);
    fprintf(out, ",kind=\"%s\"} %llu\n", shd_object_kind_name(o->kind),
            (unsigned long long)value);
}

static void write_damaged(FILE *out, const char *segment,
                          const struct objects *all)
{
    head(out, "damaged", "", "1: it contradicts itself; shdict check tells",
         false);
    for (size_t i = 0; i < all->n; i++)
        line(out, "damaged", "", segment, &all->object[i], all->damaged[i]);
}

static void write_figure(FILE *out, const char *segment,
                         const struct objects *all,
                         const struct cli_figure *of)
{
    const char *suffix = of->unit == CLI_COUNTER ? "_total" : "";

    head(out, of->name, suffix, of->help, of->unit == CLI_COUNTER);
    for (size_t i = 0; i < all->n; i++) {
        const struct cli_object *o = &all->object[i];
        for (unsigned k = 0; k < o->figures; k++) {
            if (strcmp(o->figure[k].name, of->name) == 0)
                line(out, of->name, suffix, segment, o, o->figure[k].value);
        }
    }
}

/* *status becomes CLI_CORRUPT, with a message, if an object is damaged. */
static int write_all(FILE *out, const struct cli_args *args,
                     shd_segment *segment, int *status)
{
    const char *name = args->words[0];
    struct shd_segment_info s = {.struct_size = sizeof(s)};
    struct objects all = {0};
    int code = shd_segment_info(segment, &s);

    if (code == SHD_OK)
        code = gather(args, segment, &all, status);
    if (code != SHD_OK)
        goto out;
    segment_figure(out, name, "segment_size_bytes", "Address room", false,
                   s.size_bytes);
    segment_figure(out, name, "segment_committed_bytes",
                   "Memory taken from the system", false, s.committed_bytes);
    segment_figure(out, name, "segment_incarnations",
                   "Workers registered so far", true, s.incarnations);
    segment_figure(out, name, "segment_deaths",
                   "Workers found dead and reaped", true, s.deaths);
    segment_figure(out, name, "segment_recoveries",
                   "Operations of dead workers undone", true, s.recoveries);
    segment_figure(out, name, "segment_objects_damaged",
                   "Objects that contradict themselves; shdict check tells",
                   false, all.n_damaged);
    workers(out, name, segment, s.workers_max);
    if (all.n > 0)
        write_damaged(out, name, &all);
    for (size_t i = 0; i < all.n; i++)
        for (unsigned k = 0; k < all.object[i].figures; k++)
            if (is_first(&all, i, k))
                write_figure(out, name, &all, &all.object[i].figure[k]);
out:
    free(all.object);
    free(all.damaged);
    return code;
}

/* ---- a file ------------------------------------------------------------- */

static int to_file(struct cli_args *args, shd_segment *segment,
                   const char *path)
{
    char temporary[PATH_MAX];
    int n = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    int fd = n < (int)sizeof(temporary) ? mkstemp(temporary) : -1;
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

    if (out == NULL) {
        cli_message(args, "%s: %m", path);
        return CLI_FAILED;
    }
    int status = CLI_YES;
    int code = write_all(out, args, segment, &status);
    bool written = !ferror(out) && fchmod(fd, 0644) == 0;
    written = fclose(out) == 0 && written;
    if (code == SHD_OK && written && rename(temporary, path) == 0)
        return status;
    if (code == SHD_OK)
        cli_message(args, "%s: %m", path);
    (void)unlink(temporary);
    return code == SHD_OK ? CLI_FAILED
                          : cli_answer(args, args->words[0], code);
}

/* ---- HTTP --------------------------------------------------------------- */

struct service {
    struct cli_args *args;
    shd_segment *segment;
    int status; /* damage is told once */
};

static enum MHD_Result reply(struct MHD_Connection *c, unsigned status,
                             char *text, size_t len)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(
        len, text, MHD_RESPMEM_MUST_COPY);

    if (r == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE,
                                  CONTENT_TYPE);
    enum MHD_Result done = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return done;
}

static enum MHD_Result answer(void *context, struct MHD_Connection *c,
                              const char *url, const char *method,
                              const char *version, const char *upload,
                              size_t *upload_size, void **request)
{
    static char not_here[] = "the figures are at /metrics\n";
    static char only_get[] = "GET or HEAD\n";
    struct service *s = context;
    char *text = NULL;
    size_t len = 0;

    (void)version;
    (void)upload;
    (void)upload_size;
    (void)request;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return reply(c, MHD_HTTP_METHOD_NOT_ALLOWED, only_get,
                     sizeof(only_get) - 1);
    if (strcmp(url, "/metrics") != 0)
        return reply(c, MHD_HTTP_NOT_FOUND, not_here, sizeof(not_here) - 1);
    FILE *out = open_memstream(&text, &len);
    if (out == NULL)
        return MHD_NO;
    int code = write_all(out, s->args, s->segment, &s->status);
    if (fclose(out) != 0) {
        free(text);
        return MHD_NO;
    }
    enum MHD_Result done;
    if (code == SHD_OK) {
        done = reply(c, MHD_HTTP_OK, text, len);
    } else {
        char why[256];
        int n = snprintf(why, sizeof(why), "%s\n", shd_strerror(code));
        done = reply(c, MHD_HTTP_INTERNAL_SERVER_ERROR, why, (size_t)n);
    }
    free(text);
    return done;
}

/* "[ADDRESS:]PORT": without an address only this machine is listened to. */
static struct addrinfo *address_of(const struct cli_args *args,
                                   const char *spec)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICHOST |
                                         AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char host[128] = "127.0.0.1";
    const char *port = strrchr(spec, ':');

    if (port != NULL) {
        size_t n = (size_t)(port - spec);
        if (n > 1 && spec[0] == '[' && port[-1] == ']') {
            spec++;
            n -= 2;
        }
        if (n >= sizeof(host))
            cli_usage(args, "--listen: the address is too long");
        memcpy(host, spec, n);
        host[n] = '\0';
        port++;
    } else {
        port = spec;
    }
    (void)cli_count(args, "--listen", port, 65535);
    if (getaddrinfo(host[0] ? host : "0.0.0.0", port, &hints, &found) != 0)
        cli_usage(args, "--listen: \"%s\" is not like [ADDRESS:]PORT", spec);
    return found;
}

static void print_port(struct MHD_Daemon *d)
{
    const union MHD_DaemonInfo *port =
        MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT);

    printf("listening on port %u, path /metrics\n",
           port ? (unsigned)port->port : 0);
    fflush(stdout);
}

static int serve(struct cli_args *args, shd_segment *segment,
                 const char *spec)
{
    struct service s = {args, segment, CLI_YES};
    struct addrinfo *a = address_of(args, spec);
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO;
    sigset_t end;
    int got;

    if (a->ai_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    sigemptyset(&end);
    sigaddset(&end, SIGINT);
    sigaddset(&end, SIGTERM);
    /* Before the thread is there: it shall not get them. */
    pthread_sigmask(SIG_BLOCK, &end, NULL);
    struct MHD_Daemon *d = MHD_start_daemon(
        flags, 0, NULL, NULL, answer, &s, MHD_OPTION_SOCK_ADDR, a->ai_addr,
        MHD_OPTION_CONNECTION_TIMEOUT, 10u, MHD_OPTION_CONNECTION_LIMIT, 64u,
        MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    freeaddrinfo(a);
    if (d == NULL) {
        cli_message(args, "cannot listen on %s: %m", spec);
        return CLI_FAILED;
    }
    print_port(d);
    while (sigwait(&end, &got) != 0)
        ;
    MHD_stop_daemon(d);
    return CLI_YES;
}

/* ---- the verb ----------------------------------------------------------- */

static int run(struct cli_args *args)
{
    const char *path = cli_option(args, "output");
    const char *listen = cli_option(args, "listen");
    shd_segment *segment;

    if (path && listen)
        cli_usage(args, "--output and --listen exclude each other");
    if (args->json)
        cli_usage(args, "--json: the format is that of Prometheus; "
                        "`shdict stat --json` has the same figures");
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);
    if (status != CLI_YES)
        return status;
    if (listen) {
        status = serve(args, segment, listen);
    } else if (path) {
        status = to_file(args, segment, path);
    } else {
        int code = write_all(stdout, args, segment, &status);
        if (code != SHD_OK)
            status = cli_answer(args, args->words[0], code);
    }
    shd_segment_close(segment);
    return status;
}

static const struct cli_option options[] = {
    {"output", 'o', "FILE", "Replace the file by the figures, in one step"},
    {"listen", 'l', "[ADDRESS:]PORT",
     "Serve them over HTTP at /metrics; port 0: any"},
    {NULL}};

const struct cli_verb verb_export = {
    .name = "export",
    .words = "SEGMENT",
    .summary = "Write all figures in the text format of Prometheus",
    .options = options,
    .words_min = 1,
    .words_max = 1,
    .run = run};
