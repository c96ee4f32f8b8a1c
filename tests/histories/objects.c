/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who has a message or a list's element on a lease, or the lock, goes on with
 * other operations before it gives it back: so many die with it. Nobody has two
 * leases of a kind, or waits for a lock that it has. A subscriber's name is its
 * slot's: who comes after one that died goes on where that one was.
 */
#include "tests/histories/history.h"

#include <stdio.h>
#include <string.h>

#include "shm/shdict.h"

#define WAIT_MS 60000
#define MESSAGE_MAX 4000u /* shorter than what is copied without the lock */

static shd_segment *segment;
static shd_queue *queue;
static shd_lock *lock;
static shd_leader *leader;
static shd_mailbox *mailbox;
static shd_dict *dict;
static shd_topic *topic;
static unsigned char bytes[MESSAGE_MAX];

bool objects_open(void *segment_handle)
{
    struct shd_queue_options q = {.struct_size = sizeof(q)};
    struct shd_mailbox_options m = {.struct_size = sizeof(m)};
    struct shd_lock_options l = {.struct_size = sizeof(l),
                                 .flags = SHD_LOCK_CREATE};
    struct shd_topic_options t = {.struct_size = sizeof(t),
                                  .flags = SHD_TOPIC_CREATE};
    int rc;

    q.capacity_bytes = m.capacity_bytes = 16u << 20;
    segment = segment_handle;
    rc = shd_queue_open(segment, "queue", &q, &queue);
    if (rc == SHD_OK)
        rc = shd_lock_open(segment, "lock", SHD_OBJECT_LOCK, &l, &lock);
    if (rc == SHD_OK)
        rc = shd_leader_open(segment, "leader", &l, &leader);
    if (rc == SHD_OK)
        rc = shd_mailbox_open(segment, "mailbox", &m, &mailbox);
    if (rc == SHD_OK)
        rc = shd_topic_open(segment, "topic", &t, &topic);
    if (rc == SHD_OK)
        rc = shd_dict_open(segment, "histories", NULL, &dict);
    if (rc != SHD_OK)
        printf("  FAIL an object could not be made: %s\n", shd_last_error());
    return rc == SHD_OK;
}

static const char *slot_name(uint32_t slot)
{
    static char name[16];

    snprintf(name, sizeof(name), "slot%u", slot % SLOTS);
    return name;
}

/* The next round's begin from then. */
static bool forget_names(void)
{
    bool good = true;

    for (uint32_t i = 0; i < SLOTS && good; i++) {
        int rc = shd_topic_forget(topic, slot_name(i));

        good = rc == SHD_OK || rc == SHD_NOTFOUND;
    }
    return good;
}

/* With all dead and reaped: is anything held still? */
static const char *held(void)
{
    struct shd_queue_info q = {.struct_size = sizeof(q)};
    struct shd_mailbox_info m = {.struct_size = sizeof(m)};
    struct shd_lock_info l = {.struct_size = sizeof(l)};
    struct shd_dict_info d = {.struct_size = sizeof(d)};
    struct shd_grant grant;

    if (shd_dict_info(dict, &d) != SHD_OK || d.leases != 0)
        return "a list";
    if (!forget_names())
        return "the topic";
    if (shd_queue_drain(queue, 0, 0, NULL) != SHD_OK ||
        shd_queue_info(queue, &q) != SHD_OK || q.leased != 0 || q.ready != 0)
        return "the queue";
    if (shd_mailbox_info(mailbox, &m) != SHD_OK || m.boxes != 0)
        return "the mailbox";
    if (shd_lock_info(lock, &l) != SHD_OK || l.taken != 0 || l.waiting != 0)
        return "the lock";
    /* The next round is not told of this one's deaths. */
    if (shd_lock_acquire(lock, 0, 0, &grant) != SHD_OK ||
        shd_lock_release(lock, grant.token) != SHD_OK ||
        shd_leader_look(leader, 0, &grant) != 0 ||
        shd_leader_resign(leader) != SHD_OK)
        return "the lock or the leader";
    return NULL;
}

bool objects_clean_up(void)
{
    const char *what = held();

    if (what != NULL)
        printf("  FAIL with all dead and reaped somebody has %s still: %s\n",
               what, shd_last_error());
    return what == NULL;
}

/* ---- messages: their length and bytes follow from the number ------------ */

static size_t length_of(uint32_t value)
{
    return sizeof(value) + value * 2654435761u % (value % 8 == 0 ? 3000 : 150);
}

static size_t fill(uint32_t value)
{
    size_t len = length_of(value);

    memset(bytes, (int)(value * 31 & 0xff), len);
    memcpy(bytes, &value, sizeof(value));
    return len;
}

static uint32_t value_of(uint64_t len)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof(value));
    if (len < sizeof(value) || len != length_of(value))
        return UINT32_MAX;
    for (size_t i = sizeof(value); i < len; i++) {
        if (bytes[i] != (value * 31 & 0xff))
            return UINT32_MAX;
    }
    return value;
}

/* ---- what is done -------------------------------------------------------- */

static bool has(const struct holding *h, uint32_t key)
{
    switch (key) {
    case QUEUE: return h->lease != 0;
    case LOCK: return h->token != 0;
    case JOBS: return h->job != 0;
    case TOPIC: return h->subscription != NULL;
    default: return false;
    }
}

void objects_choose(const struct holding *h, uint32_t key, uint32_t random,
                    uint32_t box, struct operation *o)
{
    static const uint8_t FREE[KEYS - DICT_KEYS][8] = {
        {QPUSH, QPUSH, QPUSH, QPUSH, QPOP, LEASE, LEASE, LEASE},
        {ACQUIRE, ACQUIRE, ACQUIRE, ACQUIRE, ACQUIRE, TRY, TRY, TRY},
        {LOOK, LOOK, LOOK, LOOK, LOOK, LOOK, LOOK, RESIGN},
        {POST, POST, POST, POST, RECEIVE, RECEIVE, RECEIVE, RECEIVE},
        {JRPUSH, JRPUSH, JRPUSH, JLPUSH, JPOP, JLTAKE, JRTAKE, JLEN},
        {SUBSCRIBE, SUBSCRIBE, SUBSCRIBE, SUBSCRIBE, SUBSCRIBE, SUBSCRIBE,
         PUBLISH, PUBLISH}};
    static const uint8_t HAS[KEYS - DICT_KEYS][8] = {
        [QUEUE - DICT_KEYS] = {ACK, ACK, ACK, ACK, NACK, NACK, QPUSH, QPOP},
        [LOCK - DICT_KEYS] = {RELEASE, RELEASE, RELEASE, RELEASE, RELEASE,
                              HELD, HELD, HELD},
        [JOBS - DICT_KEYS] = {JACK, JACK, JNACK, JNACK, JRPUSH, JLPUSH, JPOP,
                              JDELETE},
        [TOPIC - DICT_KEYS] = {PUBLISH, PUBLISH, PUBLISH, NEXT, NEXT, NEXT,
                               NEXT, SAVE}};

    o->verb = has(h, key) ? HAS[key - DICT_KEYS][random % 8]
                          : FREE[key - DICT_KEYS][random % 8];
    o->other = h->process;
    if (o->verb != POST)
        return;
    o->other = box;
    if (box == 0) {
        o->verb = RECEIVE;
        o->other = h->process;
    }
}

bool objects_give_back(const struct holding *h, struct operation *o,
                       uint32_t *key)
{
    static const uint32_t KEY[] = {QUEUE, LOCK, JOBS};
    static const uint8_t VERB[] = {NACK, RELEASE, JNACK};

    for (uint32_t i = 0; i < 3; i++) {
        if (!has(h, KEY[i]))
            continue;
        o->verb = VERB[i];
        o->other = h->process;
        *key = KEY[i];
        return true;
    }
    return false;
}

static int do_queue(struct holding *h, struct operation *o)
{
    struct shd_message m = {0};
    int rc;

    switch ((enum verb)o->verb) {
    case QPUSH:
        return shd_queue_push(queue, bytes, fill(o->value), 0, 0, NULL);
    case QPOP:
        rc = shd_queue_pop(queue, bytes, sizeof(bytes), 0, &m);
        break;
    case LEASE:
        rc = shd_queue_take(queue, bytes, sizeof(bytes), 0, &m);
        if (rc == SHD_OK)
            h->lease = m.lease;
        break;
    default:
        rc = o->verb == ACK ? shd_queue_ack(queue, h->lease)
                            : shd_queue_nack(queue, h->lease, 0);
        h->lease = 0;
        return rc;
    }
    if (rc == SHD_OK)
        o->result = value_of(m.len);
    return rc;
}

static int do_lock(struct holding *h, struct operation *o, bool *died)
{
    struct shd_grant grant = {0};
    int rc;

    if (o->verb == HELD)
        return shd_lock_check(lock, h->token, NULL);
    if (o->verb == RELEASE) {
        rc = shd_lock_release(lock, h->token);
        h->token = 0;
        return rc;
    }
    rc = shd_lock_acquire(lock, o->verb == ACQUIRE ? WAIT_MS : 0, 0, &grant);
    if (rc == SHD_OK) {
        h->token = grant.token;
        o->result = (uint32_t)grant.token;
        *died = grant.former == SHD_FORMER_DIED;
    }
    return rc;
}

static int do_leader(struct operation *o)
{
    struct shd_grant grant = {0};
    int rc;

    if (o->verb == RESIGN)
        return shd_leader_resign(leader);
    rc = shd_leader_look(leader, 0, &grant);
    if (rc == 0)
        o->result = (uint32_t)grant.token;
    return rc == 1 ? SHD_NOTFOUND : rc;
}

static int do_mailbox(struct operation *o, uint64_t box)
{
    struct shd_mail m = {0};
    int rc;

    if (o->verb == LISTEN)
        return shd_mailbox_listen(mailbox);
    if (o->verb == POST) {
        rc = shd_mailbox_post(mailbox, box, bytes, fill(o->value), 0, NULL);
        return rc == SHD_NOTFOUND || rc == SHD_DEAD ? SHD_LOST : rc;
    }
    rc = shd_mailbox_receive(mailbox, bytes, sizeof(bytes), 0, &m);
    if (rc == SHD_OK)
        o->result = value_of(m.len);
    return rc;
}

static int take_job(struct holding *h, struct operation *o)
{
    struct shd_value v = {0};
    uint64_t lease = 0;
    int rc = o->verb == JPOP
                 ? shd_pop(dict, 1, "jobs", 4, bytes, sizeof(bytes), &v)
                 : shd_ltake(dict, o->verb == JLTAKE, "jobs", 4, bytes,
                             sizeof(bytes), &v, &lease);

    if (rc == SHD_OK) {
        h->job = o->verb == JPOP ? h->job : lease;
        o->result = value_of(v.len);
    }
    return rc;
}

static int do_jobs(struct holding *h, struct operation *o)
{
    uint64_t length = 0;
    int rc;

    switch ((enum verb)o->verb) {
    case JRPUSH:
    case JLPUSH:
        rc = shd_push(dict, o->verb == JLPUSH, "jobs", 4, SHD_STRING, bytes,
                      fill(o->value), 0, &length);
        break;
    case JLEN:
        rc = shd_llen(dict, "jobs", 4, &length);
        break;
    case JDELETE:
        return shd_delete(dict, "jobs", 4);
    case JACK:
    case JNACK:
        rc = o->verb == JACK ? shd_lack(dict, h->job) : shd_lnack(dict, h->job);
        h->job = 0;
        return rc;
    default:
        return take_job(h, o);
    }
    if (rc == SHD_OK)
        o->result = (uint32_t)length;
    return rc;
}

/* The ring is larger than what a round publishes: nobody misses anything. */
static int do_topic(struct holding *h, struct operation *o)
{
    struct shd_event event;
    shd_subscription *s = h->subscription;
    uint64_t missed = 0;
    uint32_t count = 0;
    int rc;

    switch ((enum verb)o->verb) {
    case PUBLISH:
        return shd_topic_publish(topic, bytes, fill(o->value), 0, NULL);
    case SUBSCRIBE:
        rc = shd_topic_subscribe(topic, slot_name(h->process - 1),
                                 SHD_FROM_NOW, &s);
        if (rc == SHD_OK)
            h->subscription = s;
        return rc;
    case SAVE:
        return shd_subscription_acknowledge(s);
    default:
        rc = shd_subscription_next(s, bytes, sizeof(bytes), 0, &event, 1,
                                   &count, &missed);
        if (rc == SHD_OK && (missed != 0 || count != 1))
            return SHD_LOST;
        if (rc == SHD_OK)
            o->result = value_of(event.len);
        return rc;
    }
}

bool objects_perform(struct holding *h, struct operation *o, uint64_t box,
                     int *rc)
{
    bool died = false;

    *rc = o->verb <= QDIES   ? do_queue(h, o)
          : o->verb <= LDIES ? do_lock(h, o, &died)
          : o->verb <= EDIES ? do_leader(o)
          : o->verb <= MDIES ? do_mailbox(o, box)
          : o->verb <= JDIES ? do_jobs(h, o)
                             : do_topic(h, o);
    switch (*rc) {
    case SHD_OK: o->outcome = died ? INHERITED : DONE; return true;
    case SHD_NOTFOUND: o->outcome = NOTFOUND; return true;
    case SHD_BUSY: o->outcome = BUSY; return o->verb == TRY;
    case SHD_LOST: o->outcome = LOST; return true;
    default: return false;
    }
}

int objects_join(uint64_t *incarnation)
{
    return shd_worker_join(segment, incarnation);
}

enum verb objects_death(uint32_t key)
{
    return key == QUEUE    ? QDIES
           : key == LOCK   ? LDIES
           : key == LEADER ? EDIES
           : key == MAILBOX ? MDIES
           : key == JOBS   ? JDIES
                           : VERBS;
}
