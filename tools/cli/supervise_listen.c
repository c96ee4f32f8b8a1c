/* SPDX-License-Identifier: BSD-2-Clause */
/* One listening socket for all workers. It lives in the supervisor too, so
 * that the death of a worker, or of all, drops no queued connection. */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

int sup_move_fd(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    int error = errno;

    close(fd);
    errno = error;
    return high;
}

/* "127.0.0.1:80", "[::]:80", ":80", "*:80". False: not like this. */
static bool split(const char *address, char *host, size_t size,
                  const char **port)
{
    const char *colon = strrchr(address, ':');
    const char *from = address, *to = colon;

    if (colon == NULL || colon[1] == '\0')
        return false;
    if (*from == '[') {
        if (to == from || to[-1] != ']')
            return false;
        from++;
        to--;
    } else if (memchr(from, ':', (size_t)(to - from)) != NULL) {
        return false; /* an IPv6 address without brackets */
    }
    size_t len = (size_t)(to - from);
    if (len >= size)
        return false;
    memcpy(host, from, len);
    host[len] = '\0';
    if (strcmp(host, "*") == 0)
        host[0] = '\0';
    *port = colon + 1;
    return true;
}

/* SO_REUSEPORT: the workers of a supervisor that died hold its socket, and
 * go on serving while a new supervisor binds the same address. */
static int open_socket(const struct addrinfo *a)
{
    int on = 1;
    int fd =
        socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0 &&
        bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return sup_move_fd(fd);
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static bool same_address(const struct sockaddr *wanted,
                         const struct sockaddr *got)
{
    if (wanted->sa_family != got->sa_family)
        return false;
    if (wanted->sa_family == AF_INET) {
        const struct sockaddr_in *a = (const void *)wanted;
        const struct sockaddr_in *b = (const void *)got;
        return a->sin_addr.s_addr == b->sin_addr.s_addr &&
               (a->sin_port == 0 || a->sin_port == b->sin_port);
    }
    const struct sockaddr_in6 *a = (const void *)wanted;
    const struct sockaddr_in6 *b = (const void *)got;
    return wanted->sa_family == AF_INET6 &&
           memcmp(&a->sin6_addr, &b->sin6_addr, sizeof(a->sin6_addr)) == 0 &&
           (a->sin6_port == 0 || a->sin6_port == b->sin6_port);
}

static bool is_wanted(int fd, const struct addrinfo *wanted)
{
    struct sockaddr_storage got;
    socklen_t len = sizeof(got), size = sizeof(int);
    int listening = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 ||
        !listening || getsockname(fd, (struct sockaddr *)&got, &len) != 0)
        return false;
    for (const struct addrinfo *a = wanted; a; a = a->ai_next)
        if (same_address(a->ai_addr, (struct sockaddr *)&got))
            return true;
    return false;
}

/* The very socket of the supervisor before us, from a worker of its. Where
 * that is forbidden (ptrace rights) there is SO_REUSEPORT still. */
static int take_over(struct supervisor *s, const struct addrinfo *wanted)
{
    const struct sup_worker *w;

    TAILQ_FOREACH(w, &s->workers, link)
    {
        int fd = w->adopted ? pidfd_getfd(w->pidfd, SUP_LISTEN_FD, 0) : -1;
        if (fd < 0)
            continue;
        if (is_wanted(fd, wanted))
            return sup_move_fd(fd);
        close(fd);
    }
    return -1;
}

static void log_address(const struct supervisor *s, int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    char host[256], port[32];

    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0 ||
        getnameinfo((struct sockaddr *)&address, len, host, sizeof(host), port,
                    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    sup_log_begin(s, "listen");
    sup_log_text("address", host);
    sup_log_text("port", port);
    sup_log_end();
}

int sup_listen(struct supervisor *s, const char *address)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    char host[256];
    const char *port;

    if (!split(address, host, sizeof(host), &port))
        cli_usage(s->args, "--listen: \"%s\" is not like 127.0.0.1:8080",
                  address);
    int error = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (error != 0) {
        cli_message(s->args, "--listen %s: %s", address, gai_strerror(error));
        return -1;
    }
    int fd = take_over(s, found);
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
        fd = open_socket(a);
    if (fd < 0)
        cli_message(s->args, "--listen %s: %m", address);
    else
        log_address(s, fd);
    freeaddrinfo(found);
    return fd;
}

static bool environment_is(const char *name, long value)
{
    const char *text = getenv(name);
    char *end;

    return text != NULL && text[0] != '\0' &&
           strtol(text, &end, 10) == value && *end == '\0';
}

int sup_listen_passed(struct supervisor *s)
{
    if (!environment_is("LISTEN_PID", getpid()) ||
        getenv("LISTEN_FDS") == NULL)
        return -1;
    if (!environment_is("LISTEN_FDS", 1)) {
        cli_message(s->args, "LISTEN_FDS: workers get one socket, and that "
                             "is not one");
        exit(CLI_USAGE);
    }
    int fd = fcntl(SUP_LISTEN_FD, F_DUPFD_CLOEXEC, 10);
    if (fd >= 0)
        log_address(s, fd);
    return fd;
}
