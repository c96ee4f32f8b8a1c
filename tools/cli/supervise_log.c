/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's log: key=value (or JSON) lines on stderr. A line goes out
 * in one write, and only if that cannot block: a reader that stopped reading
 * must not stop the supervisor. What was dropped is counted in the next. */
#include "supervise.h"

#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048 /* below PIPE_BUF: never torn */

static char line[LINE_MAX_BYTES];
static size_t used;
static bool json;
static int64_t dropped;

static void put(const char *text, size_t len)
{
    size_t room = sizeof(line) - 64 - used; /* the end always fits */

    len = len < room ? len : room;
    memcpy(line + used, text, len);
    used += len;
}

static void put_key(const char *key)
{
    if (json) {
        put(used == 1 ? "\"" : ", \"", used == 1 ? 1 : 3);
        put(key, strlen(key));
        put("\": ", 3);
        return;
    }
    if (used > 0)
        put(" ", 1);
    put(key, strlen(key));
    put("=", 1);
}

void sup_log_number(const char *key, int64_t value)
{
    char text[24];
    int len = snprintf(text, sizeof(text), "%lld", (long long)value);

    put_key(key);
    put(text, (size_t)len);
}

void sup_log_text(const char *key, const char *value)
{
    bool quote = json || value[0] == '\0' || strpbrk(value, " =\"\\") != NULL;

    put_key(key);
    if (quote)
        put("\"", 1);
    for (const unsigned char *p = (const unsigned char *)value;
         *p && used < sizeof(line) - 80; p++) {
        char escaped[8] = {(char)*p};
        if (*p == '"' || *p == '\\')
            snprintf(escaped, sizeof(escaped), "\\%c", *p);
        else if (*p < 0x20 || *p >= 0x7f)
            snprintf(escaped, sizeof(escaped), json ? "\\u%04x" : "\\x%02x",
                     *p);
        put(escaped, strlen(escaped));
    }
    if (quote)
        put("\"", 1);
}

void sup_log_worker(const struct sup_worker *w)
{
    sup_log_number("worker", w->id);
    sup_log_number("generation", w->generation);
    sup_log_number("pid", w->pid);
}

void sup_log_begin(const struct supervisor *s, const char *event)
{
    used = 0;
    json = s->args->json;
    if (json)
        put("{", 1);
    sup_log_text("event", event);
}

static void put_time(void)
{
    struct timespec now;
    struct tm tm;
    char text[40] = "?";

    if (clock_gettime(CLOCK_REALTIME, &now) == 0 &&
        gmtime_r(&now.tv_sec, &tm) != NULL) {
        size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(text + n, sizeof(text) - n, ".%03ldZ", now.tv_nsec / 1000000);
    }
    sup_log_text("time", text);
}

void sup_log_end(void)
{
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};

    if (dropped > 0)
        sup_log_number("dropped", dropped);
    put_time();
    if (json)
        line[used++] = '}';
    line[used++] = '\n';
    if (poll(&out, 1, 0) == 1 && (out.revents & POLLOUT) &&
        write(STDERR_FILENO, line, used) == (ssize_t)used)
        dropped = 0;
    else
        dropped++;
}
