/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ringer's socket is one a process and segment, made at the first ring. Two
 * threads that make it at once keep one of the two.
 */
#include "shm/worker/doorbell.h"
#include "shm/base/error.h"
#include "shm/guard/txn.h"
#include "shm/worker/registry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME_TRIES 16
#define CLEAR_MAX 65536 /* more than a socket's queue ever holds */

static socklen_t address_of(uint64_t number, struct sockaddr_un *a)
{
    int n;

    memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX;
    /* A NUL first: the abstract namespace. */
    n = snprintf(a->sun_path + 1, sizeof(a->sun_path) - 1, "shdict-%016llx",
                 (unsigned long long)number);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                       (size_t)n);
}

static int open_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd >= 0 ? fd : error_errno("making a doorbell's socket");
}

static int bind_somewhere(int fd, uint64_t *number)
{
    struct sockaddr_un a;

    for (int i = 0; i < NAME_TRIES; i++) {
        if (getrandom(number, sizeof(*number), 0) != sizeof(*number))
            return error_errno("getrandom");
        if (*number == 0)
            continue;
        if (bind(fd, (struct sockaddr *)&a, address_of(*number, &a)) == 0)
            return SHD_OK;
        if (errno != EADDRINUSE)
            break;
    }
    return error_errno("binding a doorbell's socket");
}

int doorbell_open(const struct guard_env *env, int *out)
{
    uint64_t number;
    int fd = open_socket(), rc;

    if (fd < 0)
        return fd;
    rc = bind_somewhere(fd, &number);
    if (rc == SHD_OK)
        rc = registry_set_doorbell(env, number);
    if (rc != SHD_OK) {
        (void)close(fd);
        return rc;
    }
    *out = fd;
    return SHD_OK;
}

int doorbell_clear(int fd)
{
    char byte;

    for (int i = 0; i < CLEAR_MAX; i++) {
        if (recv(fd, &byte, 1, MSG_DONTWAIT) >= 0 || errno == EINTR)
            continue;
        return errno == EAGAIN ? SHD_OK : error_errno("reading a doorbell");
    }
    return SHD_OK;
}

/* The ringer's socket, or -1. It is kept as the number + 1. */
static int ringer(const struct guard_env *env)
{
    uint32_t kept = atomic_load32(&env->segment->ringer);
    int fd;

    if (kept != 0)
        return (int)kept - 1;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || atomic_cas32(&env->segment->ringer, 0, (uint32_t)fd + 1))
        return fd;
    (void)close(fd);
    return (int)atomic_load32(&env->segment->ringer) - 1;
}

void doorbell_ring(const struct guard_env *env, uint32_t index)
{
    uint64_t number = registry_doorbell(env->segment, index);
    struct sockaddr_un a;
    socklen_t len;
    int fd, saved = errno;

    if (number == 0)
        return;
    len = address_of(number, &a);
    fd = ringer(env);
    /* What fails is a bell that has been rung, or a worker that is gone. */
    if (fd >= 0)
        (void)sendto(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL,
                     (struct sockaddr *)&a, len);
    errno = saved;
}
