/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/bench/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef HAVE_BOOST
#include "tools/bench/ipc_boost.h"
#endif

#define RING_BYTES (1u << 20)
#define KERNEL_BYTES (256u << 10)
#define WAIT_MS 20000

static uint32_t made;

static int64_t wait_ms(bool wait)
{
    return wait ? WAIT_MS : 0;
}

/* All of the batch is one piece of memory again and again, which flatters all
 * alike. */
static uint32_t fill(const void *data, size_t len, uint32_t n,
                     const void **all, size_t *lens)
{
    for (uint32_t i = 0; i < n; i++) {
        all[i] = data;
        lens[i] = len;
    }
    return n;
}

static bool make_buffer(struct channel *c)
{
    c->buf = malloc(2 * SIZE_MAX_BYTES);
    return c->buf != NULL;
}

static uint64_t ring_bytes(size_t size)
{
    return size > 4096 ? 4 * RING_BYTES : RING_BYTES;
}

static int answer(int rc, int none, int n)
{
    return rc == SHD_OK ? n : rc == none ? 0 : -1;
}

static void drop_object(struct channel *c)
{
    (void)!shd_object_destroy(segment, c->name);
}

/* ---- topics ---------------------------------------------------------------- */

static bool make_topic(struct channel *c, size_t size)
{
    struct shd_topic_options o = {
        .struct_size = sizeof(o),
        .flags = SHD_TOPIC_CREATE | SHD_TOPIC_LOSSLESS,
        .capacity_bytes = ring_bytes(size)};

    snprintf(c->name, sizeof(c->name), "t%u", made++);
    return shd_topic_open(segment, c->name, &o, &c->topic) == SHD_OK;
}

static bool receiver_topic(struct channel *c)
{
    return make_buffer(c) &&
           shd_topic_subscribe(c->topic, NULL, SHD_FROM_OLDEST,
                               &c->subscription) == SHD_OK;
}

static int send_topic(struct channel *c, const void *data, size_t len,
                      uint32_t n, bool wait)
{
    const void *all[BATCH_MAX];
    size_t lens[BATCH_MAX];
    uint32_t done = 1;
    int rc;

    if (n == 1)
        rc = shd_topic_publish(c->topic, data, len, wait_ms(wait), NULL);
    else
        rc = shd_topic_publish_many(c->topic, fill(data, len, n, all, lens),
                                    all, lens, wait_ms(wait), NULL, &done);
    return answer(rc, SHD_FULL, (int)done);
}

static int receive_topic(struct channel *c, void *to, size_t size, uint32_t n,
                         bool wait)
{
    struct shd_event events[BATCH_MAX];
    uint64_t missed;
    uint32_t got;
    int rc = shd_subscription_next(c->subscription, n == 1 ? to : c->buf,
                                   n == 1 ? size : 2 * SIZE_MAX_BYTES,
                                   wait_ms(wait), events, n, &got, &missed);

    return answer(rc, SHD_NOTFOUND, (int)got);
}

/* ---- queues ---------------------------------------------------------------- */

static bool make_queue(struct channel *c, size_t size)
{
    struct shd_queue_options o = {.struct_size = sizeof(o),
                                  .capacity_bytes = ring_bytes(size),
                                  .message_bytes = size};

    snprintf(c->name, sizeof(c->name), "q%u", made++);
    return shd_queue_open(segment, c->name, &o, &c->queue) == SHD_OK;
}

static int send_queue(struct channel *c, const void *data, size_t len,
                      uint32_t n, bool wait)
{
    const void *all[BATCH_MAX];
    size_t lens[BATCH_MAX];
    uint32_t done = 1;
    int rc;

    if (n == 1)
        rc = shd_queue_push(c->queue, data, len, 0, wait_ms(wait), NULL);
    else
        rc = shd_queue_push_many(c->queue, fill(data, len, n, all, lens), all,
                                 lens, 0, wait_ms(wait), NULL, &done);
    return answer(rc, SHD_FULL, (int)done);
}

static int receive_queue(struct channel *c, void *to, size_t size, uint32_t n,
                         bool wait)
{
    struct shd_message m[BATCH_MAX];
    size_t at[BATCH_MAX];
    uint32_t got = 1;
    int rc;

    if (n == 1)
        rc = shd_queue_pop(c->queue, to, size, wait_ms(wait), m);
    else
        rc = shd_queue_pop_many(c->queue, n, c->buf, 2 * SIZE_MAX_BYTES,
                                wait_ms(wait), m, at, &got);
    return answer(rc, SHD_NOTFOUND, (int)got);
}

static int receive_leased(struct channel *c, void *to, size_t size, uint32_t n,
                          bool wait)
{
    struct shd_message m[BATCH_MAX];
    uint64_t leases[BATCH_MAX];
    size_t at[BATCH_MAX];
    uint32_t got = 1;
    int rc;

    if (n == 1)
        rc = shd_queue_take(c->queue, to, size, wait_ms(wait), m);
    else
        rc = shd_queue_take_many(c->queue, n, c->buf, 2 * SIZE_MAX_BYTES,
                                 wait_ms(wait), m, at, &got);
    if (rc != SHD_OK)
        return answer(rc, SHD_NOTFOUND, 0);
    for (uint32_t i = 0; i < got; i++)
        leases[i] = m[i].lease;
    rc = shd_queue_ack_many(c->queue, got, leases, NULL);
    return answer(rc, 1, (int)got);
}

/* ---- mailboxes ------------------------------------------------------------- */

static bool make_mailbox(struct channel *c, size_t size)
{
    struct shd_mailbox_options o = {.struct_size = sizeof(o),
                                    .capacity_bytes = 4 * ring_bytes(size),
                                    .message_bytes = size,
                                    .box_bytes = ring_bytes(size)};

    snprintf(c->name, sizeof(c->name), "m%u", made++);
    return shd_mailbox_open(segment, c->name, &o, &c->mailbox) == SHD_OK;
}

static bool receiver_mailbox(struct channel *c)
{
    return shd_worker_join(segment, &shared->receiver[c->number]) == SHD_OK &&
           shd_mailbox_listen(c->mailbox) == SHD_OK;
}

static int send_mailbox(struct channel *c, const void *data, size_t len,
                        uint32_t n, bool wait)
{
    (void)n;
    return answer(shd_mailbox_post(c->mailbox, shared->receiver[c->number],
                                   data, len, wait_ms(wait), NULL),
                  SHD_FULL, 1);
}

static int receive_mailbox(struct channel *c, void *to, size_t size,
                           uint32_t n, bool wait)
{
    struct shd_mail m;

    (void)n;
    return answer(shd_mailbox_receive(c->mailbox, to, size, wait_ms(wait), &m),
                  SHD_NOTFOUND, 1);
}

static int call_mailbox(struct channel *c, const void *data, size_t len,
                        bool wait)
{
    static unsigned char back[SIZE_MAX_BYTES];
    uint64_t request;
    struct shd_mail m;
    int rc = shd_mailbox_request(c->mailbox, shared->receiver[c->number], data,
                                 len, len, WAIT_MS, &request);

    if (rc != SHD_OK)
        return -1;
    do
        rc = shd_mailbox_await(c->mailbox, request, back, sizeof(back),
                               wait_ms(wait), &m);
    while (rc == 1);
    return rc == SHD_OK ? 1 : -1;
}

static int serve_mailbox(struct channel *c, void *to, size_t size, bool wait)
{
    struct shd_mail m;
    int rc = shd_mailbox_receive(c->mailbox, to, size, wait_ms(wait), &m);

    if (rc != SHD_OK)
        return answer(rc, SHD_NOTFOUND, 0);
    rc = shd_mailbox_answer(c->mailbox, m.request, to, size, WAIT_MS);
    return answer(rc, 1, 1);
}

/* ---- pipes ----------------------------------------------------------------- */

static bool make_pipe(struct channel *c, size_t size)
{
    (void)size;
    if (pipe2(c->fd, O_CLOEXEC) != 0)
        return false;
    (void)fcntl(c->fd[1], F_SETPIPE_SZ, (int)KERNEL_BYTES);
    return true;
}

/* A pipe has no messages: all of one is written, and read. Many at once are
 * as many as it takes in one piece from each of several writers. */
static int send_pipe(struct channel *c, const void *data, size_t len,
                     uint32_t n, bool wait)
{
    union {
        const void *from;
        void *base;
    } u = {.from = data};
    struct iovec all[BATCH_MAX];
    unsigned char *p = u.base;
    size_t done = 0;
    ssize_t got;

    (void)wait;
    if (len * n > 4096)
        n = len > 4096 ? 1 : (uint32_t)(4096 / len);
    if (n > 1) {
        for (uint32_t i = 0; i < n; i++)
            all[i] = (struct iovec){.iov_base = p, .iov_len = len};
        do
            got = writev(c->fd[1], all, (int)n);
        while (got < 0 && errno == EINTR);
        return got == (ssize_t)(len * n) ? (int)n : -1;
    }
    while (done < len) {
        got = write(c->fd[1], p + done, len - done);
        if (got < 0 && errno != EINTR)
            return -1;
        done += got > 0 ? (size_t)got : 0;
    }
    return 1;
}

static int receive_pipe(struct channel *c, void *to, size_t size, uint32_t n,
                        bool wait)
{
    unsigned char *p = n == 1 ? to : c->buf;
    size_t room = n == 1 || size * n > 2 * SIZE_MAX_BYTES ? size : size * n;
    size_t done = 0;

    do {
        ssize_t got = read(c->fd[0], p + done,
                           done == 0 ? room : size - done % size);

        if (got < 0 && errno == EAGAIN && done == 0 && !wait)
            return 0;
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return -1;
        done += got > 0 ? (size_t)got : 0;
    } while (done == 0 || done % size != 0);
    return (int)(done / size);
}

static void drop_fds(struct channel *c)
{
    (void)close(c->fd[0]);
    (void)close(c->fd[1]);
}

/* ---- sockets --------------------------------------------------------------- */

static bool make_pair(struct channel *c, int type)
{
    int room = (int)(4 * KERNEL_BYTES);

    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, c->fd) != 0)
        return false;
    (void)setsockopt(c->fd[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    return true;
}

static bool make_datagram(struct channel *c, size_t size)
{
    (void)size;
    return make_pair(c, SOCK_DGRAM);
}

static bool make_seqpacket(struct channel *c, size_t size)
{
    (void)size;
    return make_pair(c, SOCK_SEQPACKET);
}

static int again(ssize_t n, int done)
{
    return n >= 0 ? done : errno == EAGAIN || errno == ETIMEDOUT ? 0 : -1;
}

static void headers(struct mmsghdr *all, struct iovec *pieces, uint32_t n,
                    void *data, size_t len, size_t step)
{
    memset(all, 0, n * sizeof(*all));
    for (uint32_t i = 0; i < n; i++) {
        pieces[i] = (struct iovec){
            .iov_base = (unsigned char *)data + i * step, .iov_len = len};
        all[i].msg_hdr.msg_iov = &pieces[i];
        all[i].msg_hdr.msg_iovlen = 1;
    }
}

static int send_socket(struct channel *c, const void *data, size_t len,
                       uint32_t n, bool wait)
{
    union {
        const void *from;
        void *base;
    } u = {.from = data};
    int flags = wait ? 0 : MSG_DONTWAIT, got;
    struct mmsghdr all[BATCH_MAX];
    struct iovec pieces[BATCH_MAX];

    if (n == 1)
        return again(send(c->fd[1], data, len, flags), 1);
    headers(all, pieces, n, u.base, len, 0);
    got = sendmmsg(c->fd[1], all, n, flags);
    return again(got, got);
}

static int receive_socket(struct channel *c, void *to, size_t size, uint32_t n,
                          bool wait)
{
    int flags = wait ? 0 : MSG_DONTWAIT, got;
    struct mmsghdr all[BATCH_MAX];
    struct iovec pieces[BATCH_MAX];

    if (n == 1)
        return again(recv(c->fd[0], to, size, flags), 1);
    if (n > 2 * SIZE_MAX_BYTES / size)
        n = (uint32_t)(2 * SIZE_MAX_BYTES / size);
    headers(all, pieces, n, c->buf, size, size);
    got = recvmmsg(c->fd[0], all, n, flags | MSG_WAITFORONE, NULL);
    return again(got, got);
}

/* ---- POSIX message queues -------------------------------------------------- */

static bool make_mq(struct channel *c, size_t size)
{
    struct mq_attr a = {.mq_maxmsg = 10, .mq_msgsize = (long)size};

    /* As deep as the system allows. */
    for (long depth = 256; depth >= 8; depth /= 2) {
        snprintf(c->name, sizeof(c->name), "/shdict-bench-%d-%u",
                 (int)getpid(), made++);
        a.mq_maxmsg = depth;
        c->mq = mq_open(c->name, O_RDWR | O_CREAT | O_EXCL, 0600, &a);
        if (c->mq != (mqd_t)-1)
            return true;
    }
    return false;
}

static int send_mq(struct channel *c, const void *data, size_t len, uint32_t n,
                   bool wait)
{
    struct timespec never = {0, 0};

    (void)n;
    return again(wait ? mq_send(c->mq, data, len, 0)
                      : mq_timedsend(c->mq, data, len, 0, &never),
                 1);
}

static int receive_mq(struct channel *c, void *to, size_t size, uint32_t n,
                      bool wait)
{
    struct timespec never = {0, 0};

    (void)n;
    return again(wait ? mq_receive(c->mq, to, size, NULL)
                      : mq_timedreceive(c->mq, to, size, NULL, &never),
                 1);
}

static void drop_mq(struct channel *c)
{
    (void)mq_close(c->mq);
    (void)mq_unlink(c->name);
}

/* ---- boost ----------------------------------------------------------------- */

#ifdef HAVE_BOOST
static bool make_boost(struct channel *c, size_t size)
{
    size_t depth = size > 4096 ? 64 : 1024;

    snprintf(c->name, sizeof(c->name), "shdict-bench-%d-%u", (int)getpid(),
             made++);
    c->boost = boost_make(c->name, depth, size);
    return c->boost != NULL;
}

static int send_boost(struct channel *c, const void *data, size_t len,
                      uint32_t n, bool wait)
{
    (void)n;
    return boost_send(c->boost, data, len, wait);
}

static int receive_boost(struct channel *c, void *to, size_t size, uint32_t n,
                         bool wait)
{
    (void)n;
    return boost_receive(c->boost, to, size, wait);
}

static void drop_boost(struct channel *c)
{
    boost_drop(c->name);
}
#endif

/* ---- all ------------------------------------------------------------------- */

const struct way WAYS[] = {
    {"shdict topic", true, true, true, SIZE_MAX_BYTES, make_topic,
     receiver_topic, send_topic, receive_topic, drop_object, NULL, NULL},
    {"shdict queue, pop", true, false, true, SIZE_MAX_BYTES, make_queue,
     make_buffer, send_queue, receive_queue, drop_object, NULL, NULL},
    {"shdict queue, acked", true, false, true, SIZE_MAX_BYTES, make_queue,
     make_buffer, send_queue, receive_leased, drop_object, NULL, NULL},
    {"shdict mailbox", true, false, false, SIZE_MAX_BYTES, make_mailbox,
     receiver_mailbox, send_mailbox, receive_mailbox, drop_object, NULL, NULL},
    {"shdict request", true, false, false, SIZE_MAX_BYTES, make_mailbox,
     receiver_mailbox, NULL, NULL, drop_object, call_mailbox, serve_mailbox},
    {"pipe", false, false, true, SIZE_MAX_BYTES, make_pipe, make_buffer,
     send_pipe, receive_pipe, drop_fds, NULL, NULL},
    {"unix datagram", false, false, true, SIZE_MAX_BYTES, make_datagram,
     make_buffer, send_socket, receive_socket, drop_fds, NULL, NULL},
    {"unix seqpacket", false, false, true, SIZE_MAX_BYTES, make_seqpacket,
     make_buffer, send_socket, receive_socket, drop_fds, NULL, NULL},
    {"posix mq", false, false, false, 8192, make_mq, NULL, send_mq, receive_mq,
     drop_mq, NULL, NULL},
#ifdef HAVE_BOOST
    {"boost mq", false, false, false, SIZE_MAX_BYTES, make_boost, NULL,
     send_boost, receive_boost, drop_boost, NULL, NULL},
#endif
    {.name = NULL}};

void way_set_waiting(const struct way *w, struct channel *c, bool wait)
{
    int flags, wanted;

    if (w->drop != drop_fds)
        return;
    flags = fcntl(c->fd[0], F_GETFL);
    wanted = wait ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
    if (flags != wanted)
        (void)fcntl(c->fd[0], F_SETFL, wanted);
}

/* ---- locks ----------------------------------------------------------------- */

static shd_lock *lock;
static struct shd_grant grant;
static pthread_mutex_t *mutex;
static sem_t *semaphore;

static bool make_lock(void)
{
    static uint32_t number;
    struct shd_lock_options o = {.struct_size = sizeof(o)};
    char name[32];

    o.flags = SHD_LOCK_CREATE;
    snprintf(name, sizeof(name), "l%u", number++);
    return shd_lock_open(segment, name, SHD_OBJECT_LOCK, &o, &lock) == SHD_OK;
}

static bool take_lock(void)
{
    return shd_lock_acquire(lock, WAIT_MS, 0, &grant) == SHD_OK;
}

static bool give_lock(void)
{
    return shd_lock_release(lock, grant.token) == SHD_OK;
}

static void *page(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    return p;
}

static bool make_mutex(void)
{
    pthread_mutexattr_t a;

    mutex = page();
    return mutex != NULL && pthread_mutexattr_init(&a) == 0 &&
           pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0 &&
           pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST) == 0 &&
           pthread_mutex_init(mutex, &a) == 0;
}

static bool take_mutex(void)
{
    return pthread_mutex_lock(mutex) == 0;
}

static bool give_mutex(void)
{
    return pthread_mutex_unlock(mutex) == 0;
}

static bool make_semaphore(void)
{
    semaphore = page();
    return semaphore != NULL && sem_init(semaphore, 1, 1) == 0;
}

static bool take_semaphore(void)
{
    return sem_wait(semaphore) == 0;
}

static bool give_semaphore(void)
{
    return sem_post(semaphore) == 0;
}

const struct lock_way LOCK_WAYS[] = {
    {"shdict lock", true, make_lock, take_lock, give_lock},
    {"robust mutex", false, make_mutex, take_mutex, give_mutex},
    {"sem_t", false, make_semaphore, take_semaphore, give_semaphore},
    {.name = NULL}};
