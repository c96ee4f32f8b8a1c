/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taking over: the workers of a supervisor that is gone. They are found by
 * what it gave them in their environment - the segment's file, and the process
 * number itself, so that a worker's own children are not taken for workers -
 * whether they have joined the segment or not. Who was between fork and exec
 * when the supervisor died kept its claim (SHD_WATCH_HOLD_IN_CHILDREN), so all
 * are to be seen by now.
 *
 * Of several generations one goes on: the highest that is complete, or else
 * the one that most are of. What was draining, and the rest, is told to end.
 */
#include "supervise.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

int sup_token(struct supervisor *s)
{
    struct stat st;
    int fd = shd_segment_fd(s->segment);

    if (fd < 0 || fstat(fd, &st) != 0)
        return -1;
    snprintf(s->token, sizeof(s->token), "%llx:%llx",
             (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    return 0;
}

/* A file of /proc as a whole, with a NUL behind it. NULL: not to be read. */
static char *read_all(const char *path, size_t *len)
{
    size_t size = 1 << 16, used = 0;
    char *text = malloc(size);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 || text == NULL ? -1 : 1;

    while (n > 0) {
        if (used + 1 == size) {
            char *more = realloc(text, size *= 2);
            if (more == NULL) {
                n = -1;
                break;
            }
            text = more;
        }
        n = read(fd, text + used, size - used - 1);
        used += n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0)
        close(fd);
    if (n < 0) {
        free(text);
        return NULL;
    }
    text[used] = '\0';
    *len = used;
    return text;
}

static const char *value_of(const char *environment, size_t len,
                            const char *name)
{
    size_t n = strlen(name);

    for (size_t at = 0; at < len; at += strlen(environment + at) + 1)
        if (strncmp(environment + at, name, n) == 0 &&
            environment[at + n] == '=')
            return environment + at + n + 1;
    return NULL;
}

static bool number_of(const char *environment, size_t len, const char *name,
                      uint32_t *out)
{
    const char *text = value_of(environment, len, name);
    char *end;

    if (text == NULL || text[0] < '0' || text[0] > '9')
        return false;
    unsigned long v = strtoul(text, &end, 10);
    *out = (uint32_t)v;
    return *end == '\0' && v <= UINT32_MAX;
}

/* Is that process one of ours? Then *id and so on are what it was given. */
static bool read_worker(const struct supervisor *s, pid_t pid,
                        struct sup_worker *w)
{
    char path[32];
    uint32_t self, id = 0;
    size_t len = 0;

    snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
    char *environment = read_all(path, &len);
    if (environment == NULL)
        return false;
    const char *token = value_of(environment, len, "SHDICT_SUPERVISED");
    bool ok = token != NULL && strcmp(token, s->token) == 0 &&
              number_of(environment, len, "SHDICT_PID", &self) &&
              self == (uint32_t)pid &&
              number_of(environment, len, "SHDICT_WORKER", &id) &&
              number_of(environment, len, "SHDICT_GENERATION",
                        &w->generation) &&
              number_of(environment, len, "SHDICT_RESTARTS", &w->restarts);
    free(environment);
    w->id = id;
    return ok;
}

static bool has_ended(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    return poll(&p, 1, 0) != 0;
}

static void adopt(struct supervisor *s, pid_t pid)
{
    struct sup_worker found = {0};
    int pidfd = pidfd_open(pid, 0);

    /* The descriptor first: what is read then is of that process, if it has
     * not ended meanwhile. */
    if (pidfd < 0)
        return;
    struct sup_worker *w = NULL;
    if (pid != getpid() && read_worker(s, pid, &found) && !has_ended(pidfd))
        w = sup_worker_new(s, SUP_CURRENT, found.id, found.generation);
    if (w == NULL) {
        close(pidfd);
        return;
    }
    w->pid = pid;
    w->adopted = true;
    w->recovered = w->recovery_us = -1;
    w->restarts = found.restarts;
    w->started_ms = sup_now_ms() - s->options.healthy_ms;
    if (sup_worker_watch(s, w, pidfd) != 0)
        sup_worker_free(s, w);
}

/* Those that have joined also say whether they drain. */
static void read_phases(struct supervisor *s)
{
    struct shd_worker_info info = {.struct_size = sizeof(info)};
    struct sup_worker *w;
    int code;

    for (uint32_t i = 0;
         (code = shd_worker_info(s->segment, i, &info)) != SHD_INVAL; i++) {
        if (code != SHD_OK || info.state != SHD_WORKER_ALIVE)
            continue;
        TAILQ_FOREACH(w, &s->workers, link)
        if ((uint32_t)w->pid == info.pid) {
            w->incarnation = info.incarnation;
            w->draining = info.phase == SHD_PHASE_DRAINING;
            w->ready = info.phase == SHD_PHASE_READY;
        }
    }
}

static struct sup_worker *find(struct supervisor *s, unsigned id,
                               uint32_t generation)
{
    struct sup_worker *w;

    TAILQ_FOREACH(w, &s->workers, link)
    if (w->id == id && w->generation == generation && !w->draining &&
        w->role == SUP_CURRENT)
        return w;
    return NULL;
}

static unsigned count(struct supervisor *s, uint32_t generation)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->options.workers; i++)
        n += find(s, i, generation) != NULL;
    return n;
}

/* The generation that goes on, 0: none. */
static uint32_t choose(struct supervisor *s)
{
    uint32_t best = 0;
    unsigned most = 0;
    const struct sup_worker *w;

    TAILQ_FOREACH(w, &s->workers, link)
    {
        unsigned n = count(s, w->generation);
        if (n > most || (n == most && n > 0 && w->generation > best)) {
            most = n;
            best = w->generation;
        }
    }
    return best;
}

static void end_the_others(struct supervisor *s, uint32_t generation)
{
    struct sup_worker *w, *next;

    for (w = TAILQ_FIRST(&s->workers); w; w = next) {
        next = TAILQ_NEXT(w, link);
        if (w->generation != generation || w->id >= s->options.workers ||
            find(s, w->id, generation) != w)
            sup_worker_stop(s, w);
    }
}

void sup_adopt(struct supervisor *s)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;

    while (proc != NULL && (entry = readdir(proc)) != NULL) {
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid > 0 && entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
            adopt(s, (pid_t)pid);
    }
    if (proc != NULL)
        closedir(proc);
    read_phases(s);
}

int sup_adopt_settle(struct supervisor *s)
{
    uint32_t generation = choose(s);
    const struct sup_worker *w;

    if (generation == 0 &&
        shd_generation_next(s->segment, &generation) != SHD_OK)
        return -1;
    s->generation = s->generation_last = generation;
    sup_log_segment(s);
    TAILQ_FOREACH(w, &s->workers, link)
    {
        sup_log_begin(s, "adopt");
        sup_log_worker(w);
        sup_log_end();
    }
    end_the_others(s, generation);
    return 0;
}
