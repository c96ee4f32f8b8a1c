/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Publishing, under the lock:
 *
 *   1  If the ring is full, a transaction moves the tail, some way. It commits
 *      before a byte of the events that went is overwritten: a reader that is
 *      in the middle of one finds that the tail has passed it.
 *   2  The event is written at the head, but for its number, which is 0 there;
 *      and a 0 where the head will be.
 *   3  Its number is stored: it is published. Of a batch all others are whole
 *      by then, and their readers come by the first.
 *   4  The header's `kept` follows. Who finds it without what a publisher had
 *      stored before it died looks on from there (topic_span_follow).
 *
 * The next publisher looks there only if the header's `sealed` is not that of
 * `kept`, which it is from before step 2 until after step 4: the line is with
 * who waits for the event, and to look would take longer than to write to it.
 *
 * Reading, without it: a subscriber looks for the number where its next event
 * goes, and copies that; all of a small one lies in the line that it has waited
 * for. Then it looks at the tail: what the tail had not passed was whole, and
 * if there was no number there was no event. A tail beyond the event, even one
 * that is not committed yet, sends it to look at both ends in a read section;
 * only what that says counts.
 *
 * A transaction, which makes readers that look at the guard's counter come for
 * its line again, is opened for every sixteenth of the ring only.
 */
#include "shm/ipc/topic.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/memory/cell.h"
#include "shm/segment/protect.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define TAIL_WORDS 3u
#define STEP_BYTES 16384u /* published in one hold of the lock */
#define LINE_BYTES 64u    /* of a cache, most likely */
#define VAIN_MAX 64u      /* looks before what is read is told */

uint64_t topic_event_bytes(uint64_t len)
{
    return TOPIC_UNIT +
           (len + TOPIC_UNIT - 1) / TOPIC_UNIT * TOPIC_UNIT;
}

static uint32_t event_check(uint64_t at, uint64_t seq, uint32_t len)
{
    uint64_t h = (at ^ seq << 40 ^ seq >> 24 ^ (uint64_t)len << 20) *
                 0x9e3779b97f4a7c15ull;

    return (uint32_t)(h >> 32);
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

/* The number of the event at that offset. */
static uint64_t *ring_number(const struct topic *t, uint64_t offset)
{
    return (uint64_t *)(void *)(t->ring + offset);
}

/* How many of len bytes there lie before the ring's end. */
static size_t ring_piece(const struct topic *t, uint64_t offset, size_t len)
{
    uint64_t left = t->ring_bytes - offset;

    return left < len ? (size_t)left : len;
}

TXN_INLINE void ring_write(const struct topic *t, uint64_t offset,
                       const void *data, size_t len)
{
    size_t piece = ring_piece(t, offset, len);

    cell_fill(t->ring + offset, data, piece);
    if (piece < len)
        cell_fill(t->ring, (const unsigned char *)data + piece, len - piece);
}

TXN_INLINE void ring_read(const struct topic *t, uint64_t offset, void *to,
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
TXN_INLINE bool is_sound(const struct topic *t, uint64_t at, uint64_t seq,
                         uint64_t end, const struct topic_event *event)
{
    return event->seq == seq &&
           event->check == event_check(at, seq, event->len) &&
           event->len <= t->capacity - TOPIC_UNIT &&
           topic_event_bytes(event->len) <= end - at;
}

bool topic_event_is_sound(const struct topic *t, uint64_t at, uint64_t seq,
                          uint64_t end, const struct topic_event *event)
{
    return is_sound(t, at, seq, end, event);
}

/* ---- head and tail ----------------------------------------------------- */

/* Adds what has been published since `kept` was stored: the events of one
 * call, whose publisher is just about to store it, or has died before. More of
 * them while others go on publishing. */
static __attribute__((noinline)) bool
follow(const struct topic *t, struct topic_span *s, uint64_t offset)
{
    /* Each turn takes a part of the room. */
    while (atomic_load64_acquire(ring_number(t, offset)) != 0) {
        struct topic_event event;
        uint64_t bytes;

        reading_copy(&event, t->ring + offset, sizeof(event));
        if (!topic_event_is_sound(t, s->head_at, s->head_seq + 1,
                                  s->tail_at + t->room, &event))
            return false;
        bytes = topic_event_bytes(event.len);
        s->head_at += bytes;
        s->head_seq++;
        offset = ring_after(t, offset, bytes);
    }
    return true;
}

bool topic_span_follow(const struct topic *t, struct topic_span *s)
{
    return follow(t, s, ring_offset(t, s->head_at));
}

TXN_INLINE bool span_kept_load(const struct topic *t, struct topic_span *s)
{
    const struct topic_header *h = t->header;
    uint64_t kept = atomic_load64_acquire(&h->kept);
    uint64_t units = kept & UINT32_MAX, events = kept >> 32;

    s->tail_at = atomic_load64(&h->tail_at);
    s->tail_seq = atomic_load64(&h->tail_seq);
    s->head_at = s->tail_at + units * TOPIC_UNIT;
    s->head_seq = s->tail_seq - 1 + events;
    return s->tail_at % TOPIC_UNIT == 0 && s->tail_at <= UINT64_MAX / 2 &&
           s->tail_seq != 0 && units * TOPIC_UNIT <= t->room &&
           events <= units && (events == 0) == (units == 0);
}

bool topic_span_kept(const struct topic *t, struct topic_span *s)
{
    return span_kept_load(t, s);
}

int topic_span_load(const struct topic *t, struct topic_span *s)
{
    return topic_span_kept(t, s) && topic_span_follow(t, s) ? SHD_OK
                                                            : SHD_CORRUPT;
}

/* As `kept` has it. */
static uint64_t span_kept(const struct topic_span *s)
{
    return (s->head_seq + 1 - s->tail_seq) << 32 |
           (s->head_at - s->tail_at) / TOPIC_UNIT;
}

/* Of a `kept` that no publisher has died over: never 0. */
static uint64_t seal_of(uint64_t kept)
{
    return (kept + 1) * 0x9e3779b97f4a7c15ull;
}

int topic_span_corrupt(const struct topic *t)
{
    return error_set(SHD_CORRUPT, "topic '%s': head and tail contradict",
                     t->object.name);
}

int topic_look(const struct topic *t, struct topic_span *span)
{
    struct reading r;
    bool gone;
    int rc;

    reading_begin(&r, t->object.env, topic_guard(t));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        gone = object_gone(&t->object, 0);
        rc = gone ? SHD_OK : topic_span_load(t, span);
    } while (!reading_done(&r));
    if (gone)
        return object_gone_error(&t->object);
    return rc == SHD_OK ? SHD_OK : topic_span_corrupt(t);
}

/* ---- publishing -------------------------------------------------------- */

static int event_corrupt(const struct topic *t, uint64_t at)
{
    return error_set(SHD_CORRUPT, "topic '%s': no event at %llu",
                     t->object.name, (unsigned long long)at);
}

/* With the lock: moves span's tail until so many bytes more are not more than
 * the topic was made for, or a subscriber is in the way. */
static int span_make_room(const struct topic *t, struct topic_span *span,
                          uint64_t need)
{
    uint64_t bound = (t->flags & SHD_TOPIC_LOSSLESS) != 0
                         ? topic_cursors_bound(t)
                         : UINT64_MAX;

    while (span->head_at - span->tail_at + need > t->capacity &&
           span->tail_at < bound && span->tail_at < span->head_at) {
        struct topic_event event;

        topic_event_at(t, span->tail_at, &event);
        if (!topic_event_is_sound(t, span->tail_at, span->tail_seq,
                                  span->head_at, &event))
            return event_corrupt(t, span->tail_at);
        span->tail_at += topic_event_bytes(event.len);
        span->tail_seq++;
    }
    return SHD_OK;
}

static bool span_has_room(const struct topic *t, const struct topic_span *span,
                          uint64_t need)
{
    return span->head_at - span->tail_at + need <= t->room;
}

/* With the lock: how many of the events go into the ring at once, and their
 * bytes. */
TXN_INLINE uint32_t take_step(const struct topic *t, const size_t *len,
                          uint32_t count, uint64_t *need)
{
    uint32_t n = 1;

    for (*need = topic_event_bytes(len[0]); n < count; n++) {
        uint64_t with = *need + topic_event_bytes(len[n]);

        if (len[n] > STEP_BYTES || with > STEP_BYTES || with > t->capacity)
            break;
        *need = with;
    }
    return n;
}

/* With the lock, for events that have no room: moves the tail. In a lossless
 * topic *n gets less if there is room for some of them. */
static __attribute__((noinline)) int
make_room(const struct topic *t, struct topic_span *span, const size_t *len,
          uint32_t *n, uint64_t *need)
{
    struct topic_header *h = t->header;
    struct txn txn;
    int rc = span_make_room(t, span, *need);

    if (rc != SHD_OK)
        return rc;
    for (; !span_has_room(t, span, *need); --*n) {
        if (*n == 1)
            return SHD_FULL;
        *need -= topic_event_bytes(len[*n - 1]);
    }
    txn_begin(&txn, t->object.env->segment, topic_guard(t), TAIL_WORDS);
    txn_store64(&txn, &h->tail_at, span->tail_at);
    txn_store64(&txn, &h->tail_seq, span->tail_seq);
    txn_store64(&txn, &h->kept, span_kept(span));
    txn_commit(&txn);
    /* Readers see the tail before what is written over the events. */
    atomic_fence_release();
    return SHD_OK;
}

/* Writes an event where nobody looks yet, but for its number. */
TXN_INLINE void event_write(const struct topic *t, uint64_t at,
                            uint64_t offset, uint64_t seq, const void *data,
                            size_t len)
{
    uint64_t check = event_check(at, seq, (uint32_t)len);

    atomic_store64(ring_number(t, offset) + 1, check << 32 | len);
    ring_write(t, ring_after(t, offset, TOPIC_UNIT), data, len);
}

/* A place, and where in the ring that is. */
struct head {
    uint64_t at, offset;
};

/* Without the lock, so only most likely: where the next event goes. Its line,
 * which is with who waits for it, comes while the lock is taken. */
TXN_INLINE void ask_for_head(const struct topic *t, struct head *likely)
{
    struct topic_span span;

    (void)span_kept_load(t, &span);
    likely->at = span.head_at;
    likely->offset = ring_offset(t, span.head_at);
    atomic_will_write(ring_number(t, likely->offset));
}

/* If another event of that size follows, the 0 behind it is stored before its
 * number. If that goes into another line than the one that readers look at
 * from now on, it can come meanwhile. */
TXN_INLINE void ask_for_next(const struct topic *t, uint64_t offset,
                             uint64_t need)
{
    uint64_t end = ring_after(t, offset, need);

    if (offset / LINE_BYTES != end / LINE_BYTES)
        atomic_will_write(ring_number(t, end));
}

/* With the lock. *n: how many of them. */
TXN_INLINE int publish(const struct topic *t, const struct head *likely,
                       const void *const *data, const size_t *len,
                       uint32_t count, uint32_t *n, uint64_t *seq)
{
    struct topic_header *h = t->header;
    struct topic_span span;
    uint64_t need, at, first, offset, end, kept;
    int rc = SHD_OK;

    if (!span_kept_load(t, &span))
        return topic_span_corrupt(t);
    first = span.head_at == likely->at ? likely->offset
                                       : ring_offset(t, span.head_at);
    if (atomic_load64(&h->sealed) != seal_of(atomic_load64(&h->kept)) &&
        atomic_load64(ring_number(t, first)) != 0) {
        if (!follow(t, &span, first))
            return topic_span_corrupt(t);
        first = ring_offset(t, span.head_at);
    }
    *n = take_step(t, len, count, &need);
    if (!span_has_room(t, &span, need))
        rc = make_room(t, &span, len, n, &need);
    if (rc != SHD_OK)
        return rc;
    at = span.head_at;
    *seq = span.head_seq + 1;
    offset = first;
    end = ring_after(t, first, need);
    atomic_store64(&h->sealed, 0);
    atomic_store64(ring_number(t, end), 0);
    for (uint32_t i = 1; count > 1 && i < *n; i++) {
        uint64_t bytes = topic_event_bytes(len[i - 1]);

        at += bytes;
        offset = ring_after(t, offset, bytes);
        event_write(t, at, offset, *seq + i, data[i], len[i]);
        atomic_store64(ring_number(t, offset), *seq + i);
    }
    event_write(t, span.head_at, first, *seq, data[0], len[0]);
    txn_store64_alone(topic_guard(t), ring_number(t, first), *seq);
    span.head_at += need;
    span.head_seq += *n;
    kept = span_kept(&span);
    txn_store64_alone(topic_guard(t), &h->kept, kept);
    atomic_store64_release(&h->sealed, seal_of(kept));
    ask_for_next(t, end, need);
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

static int too_big(const struct topic *t, size_t len)
{
    return error_set(SHD_TOOBIG,
                     "an event of %zu bytes: topic '%s' holds %llu", len,
                     t->object.name,
                     (unsigned long long)(t->capacity - TOPIC_UNIT));
}

/* With the lock, which is let go of. */
static int publish_failed(const struct topic *t, int rc)
{
    object_unlock(&t->object, 0);
    return rc != SHD_FULL
               ? rc
               : error_set(SHD_FULL,
                           "a subscriber of topic '%s' has not read what "
                           "would have to go",
                           t->object.name);
}

int topic_publish(const struct topic *t, const void *data, size_t len,
                  uint64_t *seq)
{
    struct head likely;
    uint64_t number = 0;
    uint32_t n;
    int rc;

    if (len > t->capacity - TOPIC_UNIT)
        return too_big(t, len);
    ask_for_head(t, &likely);
    rc = object_lock_only(&t->object, 0);
    if (rc != SHD_OK)
        return rc;
    rc = publish(t, &likely, &data, &len, 1, &n, &number);
    if (rc != SHD_OK)
        return publish_failed(t, rc);
    unlock_and_wake(t);
    if (seq != NULL)
        *seq = number;
    return SHD_OK;
}

int topic_publish_many(const struct topic *t, const void *const *data,
                       const size_t *len, uint32_t count, uint32_t *n,
                       uint64_t *seq)
{
    struct head likely;
    int rc;

    *n = 0;
    if (len[0] > t->capacity - TOPIC_UNIT)
        return too_big(t, len[0]);
    ask_for_head(t, &likely);
    rc = object_lock_only(&t->object, 0);
    if (rc != SHD_OK)
        return rc;
    rc = publish(t, &likely, data, len, count, n, seq);
    if (rc != SHD_OK) {
        *n = 0;
        return publish_failed(t, rc);
    }
    unlock_and_wake(t);
    return SHD_OK;
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
    return SHD_OK;
}

/* Has what was loaded from `at` on been there all the time? */
static bool still_there(const struct topic *t, uint64_t at)
{
    bool kept;

    atomic_fence_acquire();
    kept = atomic_load64(&t->header->tail_at) <= at;
    /* What is destroyed loses its guard before its memory. */
    atomic_fence_acquire();
    return kept && !object_gone(&t->object, 0);
}

/* The event that s wants. SHD_NOTFOUND: it is not published yet. SHD_CHANGED:
 * catch_up. */
TXN_INLINE int read_event(const struct topic *t,
                          const struct topic_subscriber *s, uint64_t offset,
                          unsigned char *buf, size_t size,
                          struct shd_event *got)
{
    struct topic_event event = {
        .seq = atomic_load64_acquire(ring_number(t, offset))};
    bool sound = false;

    if (event.seq == s->seq) {
        reading_copy(&event, t->ring + offset, sizeof(event));
        sound = is_sound(t, s->at, s->seq, UINT64_MAX, &event);
    }
    if (sound && event.len <= size)
        ring_read(t, ring_after(t, offset, TOPIC_UNIT), buf, event.len);
    if (!still_there(t, s->at))
        return SHD_CHANGED;
    if (event.seq == 0)
        return SHD_NOTFOUND;
    if (!sound)
        return event_corrupt(t, s->at);
    got->seq = s->seq;
    got->len = event.len;
    return event.len <= size ? SHD_OK : SHD_SPACE;
}

/* How it ended before there were `max`; of those that came tells *count. */
TXN_INLINE int read_events(const struct topic *t, struct topic_subscriber *s,
                           unsigned char *buf, size_t size,
                           struct shd_event *got, uint32_t max,
                           uint32_t *count)
{
    uint64_t used = 0, offset = ring_offset(t, s->at);

    while (*count < max) {
        struct shd_event *g = &got[*count];
        int rc = read_event(t, s, offset, buf + used, size - used, g);
        uint64_t bytes;

        if (rc != SHD_OK)
            return rc;
        g->at = used;
        used += g->len;
        bytes = topic_event_bytes(g->len);
        offset = ring_after(t, offset, bytes);
        s->at += bytes;
        s->seq++;
        (*count)++;
    }
    return SHD_OK;
}

TXN_INLINE int subscriber_check(const struct topic *t,
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

/* What the last call gave is done with. The table hears of it at once if it is
 * a name's; else when it is much, or nothing comes. */
TXN_INLINE int done_with(const struct topic *t, struct topic_subscriber *s)
{
    s->done_at = s->at;
    s->done_seq = s->seq;
    if (s->done_at == s->saved_at || s->cursor == 0)
        return SHD_OK;
    if (s->named == 0 && s->vain < VAIN_MAX &&
        s->done_at - s->saved_at < topic_spare(t->capacity))
        return SHD_OK;
    return topic_save(t, s);
}

int topic_next(const struct topic *t, struct topic_subscriber *s, void *buf,
               size_t size, struct shd_event *got, uint32_t max,
               uint32_t *count, uint64_t *missed)
{
    int rc = subscriber_check(t, s);

    *count = 0;
    *missed = 0;
    if (rc == SHD_OK)
        rc = done_with(t, s);
    for (int i = 0; rc == SHD_OK && i < READ_TRIES; i++) {
        rc = read_events(t, s, buf, size, got, max, count);
        /* What comes after a gap is for the next call. */
        if (*count > 0)
            rc = SHD_OK;
        if (rc != SHD_CHANGED)
            break;
        rc = catch_up(t, s);
    }
    s->vain = *count == 0 ? s->vain + 1 : 0;
    if (rc == SHD_NOTFOUND)
        rc = SHD_OK;
    if (rc == SHD_OK || rc == SHD_SPACE) {
        *missed = s->missed;
        s->missed = 0;
    }
    return rc;
}

bool topic_has_news(const struct topic *t, const struct topic_subscriber *s)
{
    return s->missed > 0 ||
           atomic_load64(ring_number(t, ring_offset(t, s->at))) != 0 ||
           s->at < atomic_load64(&t->header->tail_at) ||
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

int topic_wait_news(const struct topic *t, struct topic_subscriber *s,
                    uint64_t until_ms)
{
    struct guard_wait *place = object_place(&t->object, TOPIC_NEWS);
    uint32_t turn = 0;
    bool asleep = false;
    int rc = topic_save(t, s);

    if (rc == SHD_OK)
        rc = object_lock(&t->object, 0);
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
    uint64_t need = topic_event_bytes(len);
    struct topic_span span;

    return topic_span_load(t, &span) != SHD_OK ||
           span_has_room(t, &span, need) ||
           span_make_room(t, &span, need) != SHD_OK ||
           span_has_room(t, &span, need);
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
    uint32_t paused = protect_pause(); /* it only looks */
    long ms = 1;

    while (!topic_has_news(t, s) && clock_now_ms() < until_ms) {
        const struct timespec nap = {.tv_nsec = ms * 1000000};

        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        ms = 2 * ms < (long)TOPIC_NAP_MS ? 2 * ms : (long)TOPIC_NAP_MS;
    }
    protect_resume(paused);
}

int topic_arm(const struct topic *t, struct topic_subscriber *s)
{
    int rc = topic_save(t, s);

    if (rc == SHD_OK)
        rc = object_lock(&t->object, 0);
    if (rc != SHD_OK)
        return rc;
    rc = topic_has_news(t, s) ? 1 : object_arm_bell(&t->object, TOPIC_NEWS);
    object_unlock(&t->object, 0);
    return rc;
}
