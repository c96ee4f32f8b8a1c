/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/histories/history.h"

#include <string.h>

const char *const VERB_NAMES[VERBS] = {
    "get",  "set",  "add",   "replace", "delete", "take", "cas",
    "incr", "init", "lpush", "rpush",   "lpop",   "rpop", "llen",
    "qpush", "qpop", "lease", "ack", "nack", "qdies",
    "acquire", "try", "release", "held", "ldies",
    "look", "resign", "edies",
    "listen", "post", "receive", "mdies",
    "jrpush", "jlpush", "jpop", "jlen", "jdelete",
    "jltake", "jrtake", "jack", "jnack", "jdies",
    "publish", "subscribe", "next", "save"};
const char *const OUTCOME_NAMES[OUTCOMES] = {
    "done", "notfound", "exists", "changed", "busy", "lost", "inherited"};

static void put(struct state *s, uint32_t value)
{
    s->count = 1;
    s->item[0] = value;
}

static void push(struct state *s, bool left, uint32_t value)
{
    if (left) {
        memmove(s->item + 1, s->item, s->count * sizeof(s->item[0]));
        s->item[0] = value;
    } else {
        s->item[s->count] = value;
    }
    s->count++;
}

static uint32_t pop(struct state *s, bool left)
{
    uint32_t value = s->item[left ? 0 : s->count - 1];

    s->count--;
    if (left)
        memmove(s->item, s->item + 1, s->count * sizeof(s->item[0]));
    return value;
}

/* The outcome; *result: 0 where an operation gives none. */
static enum outcome run(const struct operation *o, struct state *s,
                        uint32_t *result)
{
    bool there = s->count > 0;

    *result = 0;
    switch ((enum verb)o->verb) {
    case LPUSH:
    case RPUSH:
        push(s, o->verb == LPUSH, o->value);
        *result = s->count;
        return DONE;
    case LLEN:
        *result = s->count;
        return DONE;
    case ADD:
        if (there)
            return EXISTS;
        /* fall through */
    case SET:
        put(s, o->value);
        return DONE;
    case INIT:
        put(s, (there ? s->item[0] : 0) + o->value);
        *result = s->item[0];
        return DONE;
    default:
        break;
    }
    if (!there)
        return NOTFOUND;
    switch ((enum verb)o->verb) {
    case LPOP:
    case RPOP:
        *result = pop(s, o->verb == LPOP);
        return DONE;
    case INCR:
        s->item[0] += o->value;
        *result = s->item[0];
        return DONE;
    case CAS:
        if (s->item[0] != o->other)
            return CHANGED;
        put(s, o->value);
        return DONE;
    case REPLACE:
        put(s, o->value);
        return DONE;
    case DELETE:
        s->count = 0;
        return DONE;
    case TAKE:
        *result = s->item[0];
        s->count = 0;
        return DONE;
    default: /* GET */
        *result = s->item[0];
        return DONE;
    }
}

/* ---- objects ---------------- */

static void insert(struct state *s, uint32_t at, uint32_t value)
{
    memmove(s->item + at + 1, s->item + at,
            (s->count - at) * sizeof(s->item[0]));
    s->item[at] = value;
    s->count++;
}

static void erase(struct state *s, uint32_t at, uint32_t n)
{
    memmove(s->item + at, s->item + at + n,
            (s->count - at - n) * sizeof(s->item[0]));
    s->count -= n;
}

/* An object that is not there yet has so many words of 0. */
static void at_least(struct state *s, uint32_t n)
{
    while (s->count < n)
        s->item[s->count++] = 0;
}

/* A queue: how many are ready; they, the next one first; then who has what on
 * a lease, in pairs, by process: of each one at most. */
static uint32_t lease_of(const struct state *s, uint32_t process)
{
    uint32_t i = 1 + s->item[0];

    while (i < s->count && s->item[i] < process)
        i += 2;
    return i;
}

static bool has_lease(const struct state *s, uint32_t process)
{
    uint32_t i = lease_of(s, process);

    return i < s->count && s->item[i] == process;
}

static void to_front(struct state *s, uint32_t process)
{
    uint32_t i = lease_of(s, process), value = s->item[i + 1];

    erase(s, i, 2);
    insert(s, 1, value);
    s->item[0]++;
}

static enum outcome run_queue(const struct operation *o, struct state *s,
                              uint32_t *result)
{
    uint32_t process = o->other;

    at_least(s, 1);
    switch ((enum verb)o->verb) {
    case QPUSH:
        insert(s, 1 + s->item[0]++, o->value);
        return DONE;
    case QPOP:
    case LEASE:
        if (s->item[0] == 0)
            return NOTFOUND;
        *result = s->item[1];
        erase(s, 1, 1);
        s->item[0]--;
        if (o->verb == LEASE) {
            uint32_t i = lease_of(s, process);

            insert(s, i, *result);
            insert(s, i, process);
        }
        return DONE;
    default:
        break;
    }
    if (!has_lease(s, process))
        return o->verb == QDIES ? DONE : LOST;
    if (o->verb == ACK)
        erase(s, lease_of(s, process), 2);
    else /* NACK, QDIES */
        to_front(s, process);
    return DONE;
}

/* A lock: who has it, the last token that somebody was told, and whether the
 * last holder died. */
static enum outcome run_lock(const struct operation *o, struct state *s,
                             uint32_t *result)
{
    bool had = s->item[0] == o->other;
    bool died = s->item[2] != 0;

    switch ((enum verb)o->verb) {
    case ACQUIRE:
    case TRY:
        if (s->item[0] != 0)
            return BUSY;
        s->item[0] = o->other;
        s->item[2] = 0;
        /* Any that is larger; of one that died before it was told, none. */
        *result = o->cut_off || o->result > s->item[1] ? o->result
                                                       : s->item[1] + 1;
        if (!o->cut_off)
            s->item[1] = *result;
        return died ? INHERITED : DONE;
    case HELD:
        return had ? DONE : LOST;
    case RELEASE:
        if (!had)
            return LOST;
        s->item[0] = 0;
        return DONE;
    default: /* LDIES */
        if (had) {
            s->item[0] = 0;
            s->item[2] = 1;
        }
        return DONE;
    }
}

/* A leader: the last token that somebody was told, whether it is that of the
 * one who leads, and who stands, the leader first. */
static void stand_no_more(struct state *s, uint32_t process)
{
    for (uint32_t i = 2; i < s->count; i++) {
        if (s->item[i] != process)
            continue;
        if (i == 2)
            s->item[1] = 0;
        erase(s, i, 1);
    }
}

static enum outcome run_leader(const struct operation *o, struct state *s,
                               uint32_t *result)
{
    uint32_t i = 2;

    if (o->verb != LOOK) {
        stand_no_more(s, o->other);
        return DONE;
    }
    while (i < s->count && s->item[i] != o->other)
        i++;
    if (i == s->count)
        s->item[s->count++] = o->other;
    if (i != 2)
        return NOTFOUND;
    if (o->cut_off)
        return DONE;
    if (s->item[1] == 0)
        s->item[0] = o->result > s->item[0] ? o->result : s->item[0] + 1;
    s->item[1] = 1;
    *result = s->item[0];
    return DONE;
}

/* A mailbox: of each box its process + 2^31, then its messages. */
#define BOX 0x80000000u

static uint32_t box_of(const struct state *s, uint32_t process)
{
    uint32_t i = 0;

    while (i < s->count && s->item[i] != (BOX | process))
        i++;
    return i;
}

static uint32_t box_end(const struct state *s, uint32_t i)
{
    for (i++; i < s->count && (s->item[i] & BOX) == 0; i++)
        ;
    return i;
}

/* By process, so that the same boxes are the same state. */
static void make_box(struct state *s, uint32_t process)
{
    uint32_t i = 0;

    while (i < s->count && s->item[i] < (BOX | process))
        i = box_end(s, i);
    insert(s, i, BOX | process);
}

static enum outcome run_mailbox(const struct operation *o, struct state *s,
                                uint32_t *result)
{
    uint32_t i = box_of(s, o->other);
    bool there = i < s->count;

    switch ((enum verb)o->verb) {
    case LISTEN:
    case RECEIVE:
        if (!there)
            make_box(s, o->other);
        if (o->verb == LISTEN)
            return DONE;
        i = box_of(s, o->other);
        if (box_end(s, i) == i + 1)
            return NOTFOUND;
        *result = s->item[i + 1];
        erase(s, i + 1, 1);
        return DONE;
    case POST:
        if (!there)
            return LOST;
        insert(s, box_end(s, i), o->value);
        return DONE;
    default: /* MDIES */
        if (there)
            erase(s, i, box_end(s, i) - i);
        return DONE;
    }
}

/* A list of jobs: how many elements it has; they, from the left; then who has
 * which on a lease, in threes, by process, of each one at most: the process,
 * the element, the end it came from. */
enum { JOB_LEFT, JOB_RIGHT, JOB_GONE /* with its list */ };

static uint32_t job_of(const struct state *s, uint32_t process)
{
    uint32_t i = 1 + s->item[0];

    while (i < s->count && s->item[i] < process)
        i += 3;
    return i;
}

/* Is there a list, if only of elements that are leased? */
static bool has_jobs(const struct state *s)
{
    bool has = s->item[0] > 0;

    for (uint32_t i = 1 + s->item[0]; i < s->count; i += 3)
        has |= s->item[i + 2] != JOB_GONE;
    return has;
}

static void job_comes(struct state *s, bool left, uint32_t value)
{
    insert(s, left ? 1 : 1 + s->item[0], value);
    s->item[0]++;
}

static uint32_t job_goes(struct state *s, bool left)
{
    uint32_t at = left ? 1 : s->item[0], value = s->item[at];

    erase(s, at, 1);
    s->item[0]--;
    return value;
}

static void jobs_go(struct state *s)
{
    erase(s, 1, s->item[0]);
    s->item[0] = 0;
    for (uint32_t i = 1; i < s->count; i += 3)
        s->item[i + 2] = JOB_GONE;
}

static enum outcome run_lease(const struct operation *o, struct state *s)
{
    uint32_t i = job_of(s, o->other), value, how;

    if (i >= s->count || s->item[i] != o->other)
        return o->verb == JDIES ? DONE : LOST;
    value = s->item[i + 1];
    how = s->item[i + 2];
    erase(s, i, 3);
    if (how == JOB_GONE)
        return o->verb == JDIES ? DONE : LOST;
    if (o->verb != JACK)
        job_comes(s, how == JOB_LEFT, value);
    return DONE;
}

static enum outcome run_jobs(const struct operation *o, struct state *s,
                             uint32_t *result)
{
    uint32_t i;

    at_least(s, 1);
    switch ((enum verb)o->verb) {
    case JRPUSH:
    case JLPUSH:
        job_comes(s, o->verb == JLPUSH, o->value);
        /* fall through */
    case JLEN:
        *result = s->item[0];
        return DONE;
    case JDELETE:
        if (!has_jobs(s))
            return NOTFOUND;
        jobs_go(s);
        return DONE;
    case JPOP:
    case JLTAKE:
    case JRTAKE:
        if (s->item[0] == 0)
            return NOTFOUND;
        *result = job_goes(s, o->verb != JRTAKE);
        if (o->verb == JPOP)
            return DONE;
        i = job_of(s, o->other);
        insert(s, i, o->verb == JRTAKE ? JOB_RIGHT : JOB_LEFT);
        insert(s, i, *result);
        insert(s, i, o->other);
        return DONE;
    default: /* JACK, JNACK, JDIES */
        return run_lease(o, s);
    }
}

/* A topic: how many events are kept; they, the oldest first; then by name, in
 * threes: the name, how many it has done with, and how many it was given. Kept
 * is what some name has not done with. */
static uint32_t name_of_process(uint32_t process)
{
    return 1 + (process - 1) % SLOTS;
}

static uint32_t cursor_of(const struct state *s, uint32_t name)
{
    uint32_t i = 1 + s->item[0];

    while (i < s->count && s->item[i] < name)
        i += 3;
    return i;
}

static void forget_events(struct state *s)
{
    uint32_t done = s->item[0];

    for (uint32_t i = 1 + s->item[0]; i < s->count; i += 3)
        done = s->item[i + 1] < done ? s->item[i + 1] : done;
    erase(s, 1, done);
    s->item[0] -= done;
    for (uint32_t i = 1 + s->item[0]; i < s->count; i += 3) {
        s->item[i + 1] -= done;
        s->item[i + 2] -= done;
    }
}

/* What was given is done with when the next one is asked for. */
static enum outcome run_subscriber(const struct operation *o, struct state *s,
                                   uint32_t i, uint32_t *result)
{
    enum outcome outcome = DONE;

    if (o->verb == SUBSCRIBE) {
        s->item[i + 2] = s->item[i + 1];
    } else {
        s->item[i + 1] = s->item[i + 2];
        if (o->verb == NEXT && s->item[i + 2] == s->item[0])
            outcome = NOTFOUND;
        else if (o->verb == NEXT)
            *result = s->item[1 + s->item[i + 2]++];
    }
    forget_events(s);
    return outcome;
}

static enum outcome run_topic(const struct operation *o, struct state *s,
                              uint32_t *result)
{
    uint32_t name = name_of_process(o->other), i;

    at_least(s, 1);
    if (o->verb == PUBLISH) {
        insert(s, 1 + s->item[0]++, o->value);
        forget_events(s);
        return DONE;
    }
    i = cursor_of(s, name);
    if (i == s->count || s->item[i] != name) {
        if (o->verb != SUBSCRIBE)
            return LOST;
        insert(s, i, s->item[0]);
        insert(s, i, s->item[0]);
        insert(s, i, name);
    }
    return run_subscriber(o, s, i, result);
}

static enum outcome run_any(const struct operation *o, struct state *s,
                            uint32_t *result)
{
    *result = 0;
    if (o->verb <= LLEN)
        return run(o, s, result);
    if (o->verb <= QDIES)
        return run_queue(o, s, result);
    if (o->verb <= LDIES) {
        at_least(s, 3);
        return run_lock(o, s, result);
    }
    if (o->verb <= EDIES) {
        at_least(s, 2);
        return run_leader(o, s, result);
    }
    if (o->verb <= MDIES)
        return run_mailbox(o, s, result);
    return o->verb <= JDIES ? run_jobs(o, s, result)
                            : run_topic(o, s, result);
}

bool specification_apply(const struct operation *o, struct state *s)
{
    uint32_t result;
    enum outcome outcome = run_any(o, s, &result);

    return o->cut_off || (outcome == o->outcome && result == o->result);
}
