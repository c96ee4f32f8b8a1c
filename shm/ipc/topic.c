/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Publishing, under the lock:
 *
 *   1  If the ring is full, a transaction moves the tail. It commits before a
 *      byte of the events that went is overwritten: a reader that is in the
 *      middle of one finds that the tail has passed it.
 *   2  The event is written at the head, where nobody looks.
 *   3  A transaction moves the head.
 *
 * Reading, without it: a subscriber learns where the head is in a read section
 * of the guard, so it never sees a head that is not committed, and believes it
 * until it gets there: the head only grows. It copies an event, and then looks
 * at the tail. A tail beyond the event, even one that is not committed yet,
 * sends it back to look at both in a read section; only what that says counts.
 */
#include "shm/ipc/topic.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/memory/cell.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define SPAN_WORDS 2u
#define STEP_BYTES 16384u /* published in one hold of the lock */

uint64_t topic_event_bytes(uint64_t len)
{
    return TOPIC_UNIT +
           (len + TOPIC_UNIT - 1) / TOPIC_UNIT * TOPIC_UNIT;
}

static uint32_t event_check(uint64_t at, uint64_t seq, uint32_t len)
{
    uint64_t h = (at * 0x9e3779b97f4a7c15ull) ^ (seq * 0xc2b2ae3d27d4eb4full) ^
                 (len * 0x165667b19e3779f9ull);

    return (uint32_t)(h >> 32) ^ (uint32_t)h;
}

/* ---- the ring's bytes -------------------------------------------------- */

/* at is a multiple of 16, as is the ring's size: the head of an event lies in
 * one piece. One division an event: the rest goes by the offset it gives. */
static uint64_t ring_offset(const struct topic *t, uint64_t at)
{
    return at % t->ring_bytes;
}

/* The offset that is so many bytes, not more than the ring's, further on. */
static uint64_t ring_after(const struct topic *t, uint64_t offset,
                           uint64_t bytes)
{
    offset += bytes;
    return offset < t->ring_bytes ? offset : offset - t->ring_bytes;
}

/* How many of len bytes there lie before the ring's end. */
static size_t ring_piece(const struct topic *t, uint64_t offset, size_t len)
{
    uint64_t left = t->ring_bytes - offset;

    return left < len ? (size_t)left : len;
}

static void ring_write(const struct topic *t, uint64_t offset,
                       const void *data, size_t len)
{
    size_t piece = ring_piece(t, offset, len);

    cell_fill(t->ring + offset, data, piece);
    if (piece < len)
        cell_fill(t->ring, (const unsigned char *)data + piece, len - piece);
}

static void ring_read(const struct topic *t, uint64_t offset, void *to,
                      size_t len)
{
    size_t piece = ring_piece(t, offset, len);

    cell_copy_out(to, t->ring + offset, piece);
    if (piece < len)
        cell_copy_out((unsigned char *)to + piece, t->ring, len - piece);
}

void topic_event_at(const struct topic *t, uint64_t at,
                    struct topic_event *event)
{
    reading_copy(event, t->ring + ring_offset(t, at), sizeof(*event));
}

void topic_event_bytes_read(const struct topic *t, uint64_t at, void *to,
                            uint32_t len)
{
    ring_read(t, ring_offset(t, at + TOPIC_UNIT), to, len);
}

/* Is that the event number seq, before `end`? */
bool topic_event_is_sound(const struct topic *t, uint64_t at, uint64_t seq,
                          uint64_t end, const struct topic_event *event)
{
    return event->seq == seq &&
           event->check == event_check(at, seq, event->len) &&
           event->len <= t->ring_bytes - TOPIC_UNIT &&
           topic_event_bytes(event->len) <= end - at;
}

/* ---- head and tail ----------------------------------------------------- */

static void span_load(const struct topic *t, struct topic_span *span)
{
    reading_copy(span, &t->header->span, sizeof(*span));
}

bool topic_span_is_sound(const struct topic *t, const struct topic_span *s)
{
    return s->head_at % TOPIC_UNIT == 0 && s->tail_at % TOPIC_UNIT == 0 &&
           s->tail_at <= s->head_at &&
           s->head_at - s->tail_at <= t->ring_bytes &&
           s->tail_seq <= s->head_seq + 1 &&
           (s->tail_at == s->head_at) == (s->tail_seq == s->head_seq + 1);
}

static int span_corrupt(const struct topic *t)
{
    return error_set(SHD_CORRUPT, "topic '%s': head and tail contradict",
                     t->object.name);
}

int topic_look(const struct topic *t, struct topic_span *span)
{
    struct reading r;
    uint64_t object;

    reading_begin(&r, t->object.env, topic_guard(t));
    do {
        int rc = reading_try(&r);

        if (rc != SHD_OK)
            return rc;
        span_load(t, span);
        object = atomic_load64(&topic_guard(t)->object);
    } while (!reading_done(&r));
    if (object != t->object.generation)
        return object_gone_error(&t->object);
    return topic_span_is_sound(t, span) ? SHD_OK : span_corrupt(t);
}

/* ---- publishing -------------------------------------------------------- */

static int event_corrupt(const struct topic *t, uint64_t at)
{
    return error_set(SHD_CORRUPT, "topic '%s': no event at %llu",
                     t->object.name, (unsigned long long)at);
}

/* Moves span's tail until `need` bytes are free, not past `bound`. SHD_FULL:
 * the bound is in the way. */
static int span_make_room(const struct topic *t, struct topic_span *span,
                          uint64_t need, uint64_t bound)
{
    while (t->ring_bytes - (span->head_at - span->tail_at) < need) {
        struct topic_event event;

        topic_event_at(t, span->tail_at, &event);
        if (!topic_event_is_sound(t, span->tail_at, span->tail_seq, span->head_at,
                            &event))
            return event_corrupt(t, span->tail_at);
        if (span->tail_at >= bound)
            return SHD_FULL;
        span->tail_at += topic_event_bytes(event.len);
        span->tail_seq++;
    }
    return SHD_OK;
}

/* With the lock. How many of the events go into the ring at once, at least one: *need gets
 * their bytes, and span the tail that leaves room for them. */
static int span_find(const struct topic *t, struct topic_span *span,
                     const size_t *len, uint32_t count, uint32_t *n,
                     uint64_t *need)
{
    uint64_t bound = UINT64_MAX, bytes = 0;
    int rc = SHD_OK;

    if ((t->flags & SHD_TOPIC_LOSSLESS) != 0)
        bound = topic_cursors_bound(t);
    for (*n = 0; *n < count; ++*n) {
        struct topic_span with = *span;
        uint64_t more = topic_event_bytes(len[*n]);

        if (*n > 0 && (len[*n] > STEP_BYTES || bytes + more > STEP_BYTES ||
                       bytes + more > t->ring_bytes))
            return SHD_OK;
        rc = span_make_room(t, &with, bytes + more, bound);
        if (rc != SHD_OK)
            return *n > 0 && rc == SHD_FULL ? SHD_OK : rc;
        *span = with;
        bytes += more;
        *need = bytes;
    }
    return SHD_OK;
}

/* Stores two words of the span in a transaction. */
static void span_move(const struct topic *t, uint64_t *at, uint64_t at_to,
                      uint64_t *seq, uint64_t seq_to)
{
    struct txn txn;

    txn_begin(&txn, t->object.env->segment, topic_guard(t), SPAN_WORDS);
    txn_store64(&txn, at, at_to);
    txn_store64(&txn, seq, seq_to);
    txn_commit(&txn);
}

/* Writes an event where nobody looks yet: place `at`, at that offset. */
static void event_write(const struct topic *t, uint64_t at, uint64_t offset,
                        uint64_t seq, const void *data, size_t len)
{
    uint64_t *head = (uint64_t *)(void *)(t->ring + offset);
    uint64_t check = event_check(at, seq, (uint32_t)len);

    atomic_store64(&head[0], seq);
    atomic_store64(&head[1], check << 32 | len);
    ring_write(t, ring_after(t, offset, TOPIC_UNIT), data, len);
}

/* With the lock. *n: how many of them. */
static int publish(const struct topic *t, const void *const *data,
                   const size_t *len, uint32_t count, uint32_t *n,
                   uint64_t *seq)
{
    struct topic_header *h = t->header;
    struct topic_span span, was;
    uint64_t need = 0, at, offset;
    int rc;

    span_load(t, &was);
    if (!topic_span_is_sound(t, &was))
        return span_corrupt(t);
    span = was;
    rc = span_find(t, &span, len, count, n, &need);
    if (rc != SHD_OK)
        return rc;
    if (span.tail_at != was.tail_at) {
        span_move(t, &h->span.tail_at, span.tail_at, &h->span.tail_seq,
                  span.tail_seq);
        /* Readers see the tail before what is written over the events. */
        atomic_fence_release();
    }
    at = span.head_at;
    offset = ring_offset(t, at);
    for (uint32_t i = 0; i < *n; i++) {
        uint64_t bytes = topic_event_bytes(len[i]);

        event_write(t, at, offset, span.head_seq + 1 + i, data[i], len[i]);
        at += bytes;
        offset = ring_after(t, offset, bytes);
    }
    span_move(t, &h->span.head_at, span.head_at + need, &h->span.head_seq,
              span.head_seq + *n);
    *seq = span.head_seq + 1;
    return SHD_OK;
}

/* With the lock, which is let go of: there are news. */
static void unlock_and_wake(const struct topic *t)
{
    struct object_notice notice;

    if (!object_awaited(&t->object, TOPIC_NEWS)) {
        object_unlock(&t->object, 0);
        return;
    }
    object_notice_begin(&notice);
    object_post(&t->object, TOPIC_NEWS, WAIT_ALL, &notice);
    object_unlock(&t->object, 0);
    object_deliver(&t->object, &notice);
}

int topic_publish(const struct topic *t, const void *data, size_t len,
                  uint64_t *seq)
{
    uint64_t number;
    uint32_t n;
    int rc = topic_publish_many(t, &data, &len, 1, &n, &number);

    if (rc == SHD_OK && seq != NULL)
        *seq = number;
    return rc;
}

int topic_publish_many(const struct topic *t, const void *const *data,
                       const size_t *len, uint32_t count, uint32_t *n,
                       uint64_t *seq)
{
    int rc;

    *n = 0;
    if (len[0] > t->ring_bytes - TOPIC_UNIT)
        return error_set(SHD_TOOBIG,
                         "an event of %zu bytes: topic '%s' holds %llu",
                         len[0], t->object.name,
                         (unsigned long long)(t->ring_bytes - TOPIC_UNIT));
    atomic_will_write(&t->header->span);
    rc = object_lock(&t->object, 0);
    if (rc != SHD_OK)
        return rc;
    rc = publish(t, data, len, count, n, seq);
    if (rc == SHD_OK) {
        unlock_and_wake(t);
        return SHD_OK;
    }
    *n = 0;
    object_unlock(&t->object, 0);
    return rc != SHD_FULL
               ? rc
               : error_set(SHD_FULL,
                           "a subscriber of topic '%s' has not read what "
                           "would have to go",
                           t->object.name);
}

/* ---- reading ----------------------------------------------------------- */

/* Looks at head and tail, and counts what has been lost. */
static int catch_up(const struct topic *t, struct topic_subscriber *s)
{
    struct topic_span span;
    int rc = topic_look(t, &span);

    if (rc != SHD_OK)
        return rc;
    if (s->seq > span.head_seq + 1 || s->at > span.head_at)
        return error_set(SHD_CORRUPT,
                         "topic '%s': a subscriber is past the head",
                         t->object.name);
    if (s->at < span.tail_at) {
        s->missed += span.tail_seq - s->seq;
        s->at = span.tail_at;
        s->seq = span.tail_seq;
    }
    s->known_at = span.head_at;
    return SHD_OK;
}

/* Has what was copied from `at` on been there all the time? */
static bool still_there(const struct topic *t, uint64_t at)
{
    bool kept;

    atomic_fence_acquire();
    kept = atomic_load64(&t->header->span.tail_at) <= at;
    /* What is destroyed loses its guard before its memory. */
    atomic_fence_acquire();
    return kept && !object_gone(&t->object, 0);
}

/* The event that s wants, if it lies before known_at. SHD_CHANGED: look
 * again. */
static int read_event(const struct topic *t, const struct topic_subscriber *s,
                      unsigned char *buf, size_t size, struct shd_event *got)
{
    uint64_t offset = ring_offset(t, s->at);
    struct topic_event event;
    bool sound;

    reading_copy(&event, t->ring + offset, sizeof(event));
    sound = topic_event_is_sound(t, s->at, s->seq, s->known_at, &event);
    if (sound && event.len <= size)
        ring_read(t, ring_after(t, offset, TOPIC_UNIT), buf, event.len);
    if (!still_there(t, s->at))
        return SHD_CHANGED;
    if (!sound)
        return event_corrupt(t, s->at);
    got->seq = s->seq;
    got->len = event.len;
    return event.len <= size ? SHD_OK : SHD_SPACE;
}

static int read_events(const struct topic *t, struct topic_subscriber *s,
                       unsigned char *buf, size_t size, struct shd_event *got,
                       uint32_t max, uint32_t *count)
{
    uint64_t used = 0;

    while (*count < max && s->at < s->known_at) {
        struct shd_event *g = &got[*count];
        int rc = read_event(t, s, buf + used, size - used, g);

        if (rc == SHD_SPACE && *count > 0)
            return SHD_OK;
        if (rc != SHD_OK)
            return rc;
        g->at = used;
        used += g->len;
        s->at += topic_event_bytes(g->len);
        s->seq++;
        (*count)++;
    }
    return SHD_OK;
}

static int subscriber_check(const struct topic *t,
                            const struct topic_subscriber *s)
{
    if (s->cursor != 0 &&
        s->owner != atomic_load64(&t->object.env->incarnation))
        return error_set(SHD_LOST,
                         "a subscription to '%s' that another worker made, "
                         "before a fork or before leaving",
                         t->object.name);
    return SHD_OK;
}

int topic_next(const struct topic *t, struct topic_subscriber *s, void *buf,
               size_t size, struct shd_event *got, uint32_t max,
               uint32_t *count, uint64_t *missed)
{
    int rc = subscriber_check(t, s);

    *count = 0;
    *missed = 0;
    if (rc == SHD_OK)
        rc = topic_acknowledge(t, s);
    /* Who asks again and again keeps from the publisher's lines. */
    if (rc == SHD_OK && !topic_has_news(t, s) &&
        s->at == atomic_load64(&t->header->span.head_at))
        return SHD_OK;
    for (int i = 0; rc == SHD_OK && i < READ_TRIES; i++) {
        if (s->at >= s->known_at || i > 0)
            rc = catch_up(t, s);
        if (rc == SHD_OK)
            rc = read_events(t, s, buf, size, got, max, count);
        if (rc != SHD_CHANGED)
            break;
        rc = SHD_OK;
        /* What comes after the gap is for the next call. */
        if (*count > 0)
            break;
    }
    if (rc == SHD_OK || rc == SHD_SPACE) {
        *missed = s->missed;
        s->missed = 0;
    }
    return rc;
}

bool topic_has_news(const struct topic *t, const struct topic_subscriber *s)
{
    return s->missed > 0 || s->at < s->known_at ||
           s->at < atomic_load64(&t->header->span.head_at) ||
           object_gone(&t->object, 0);
}

/* ---- waiting ----------------------------------------------------------- */

bool topic_look_for_news(const struct topic *t,
                         const struct topic_subscriber *s)
{
    bool news = topic_has_news(t, s);

    for (uint32_t n = 1; n <= WAIT_LOOK_PAUSES && !news; n *= 2) {
        for (uint32_t i = 0; i < n; i++)
            atomic_pause();
        news = topic_has_news(t, s);
    }
    return news;
}

int topic_wait_news(const struct topic *t, const struct topic_subscriber *s,
                    uint64_t until_ms)
{
    struct guard_wait *place = object_place(&t->object, TOPIC_NEWS);
    uint32_t turn = 0;
    bool asleep = false;
    int rc = object_lock(&t->object, 0);

    if (rc != SHD_OK)
        return rc;
    if (!topic_has_news(t, s)) {
        turn = wait_arm(place);
        asleep = true;
    }
    object_unlock(&t->object, 0);
    if (asleep)
        wait_sleep(place, turn, until_ms);
    return SHD_OK;
}

/* With the lock: what publish would look at. */
static bool has_room(const struct topic *t, size_t len)
{
    struct topic_span span;

    span_load(t, &span);
    return !topic_span_is_sound(t, &span) ||
           span_make_room(t, &span, topic_event_bytes(len),
                          topic_cursors_bound(t)) != SHD_FULL;
}

int topic_wait_room(const struct topic *t, size_t len, uint64_t until_ms)
{
    struct guard_wait *place = object_place(&t->object, TOPIC_ROOM);
    uint32_t turn = 0;
    bool asleep = false;
    int rc = object_lock(&t->object, 0);

    if (rc != SHD_OK)
        return rc;
    if (!has_room(t, len)) {
        turn = wait_arm(place);
        asleep = true;
    }
    object_unlock(&t->object, 0);
    if (asleep)
        wait_sleep(place, turn, until_ms);
    return SHD_OK;
}

void topic_nap(const struct topic *t, const struct topic_subscriber *s,
               uint64_t until_ms)
{
    long ms = 1;

    while (!topic_has_news(t, s) && clock_now_ms() < until_ms) {
        const struct timespec nap = {.tv_nsec = ms * 1000000};

        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        ms = 2 * ms < (long)TOPIC_NAP_MS ? 2 * ms : (long)TOPIC_NAP_MS;
    }
}

int topic_arm(const struct topic *t, const struct topic_subscriber *s)
{
    int rc = object_lock(&t->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = topic_has_news(t, s) ? 1 : object_arm_bell(&t->object, TOPIC_NEWS);
    object_unlock(&t->object, 0);
    return rc;
}
