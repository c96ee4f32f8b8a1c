/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/topic.h - a broadcast ring of events of any size.
 *
 *      tail                                head
 *       v                                   v
 *   ... | 17 | 18      | 19 | 20       | 21 | (the next one goes here) ...
 *         ^                  ^
 *       lapped if it        a cursor: the place and the number of the next
 *       falls behind        event that its subscriber wants
 *
 * Places count bytes since the topic was made and never go back; place modulo
 * the ring's size is where it lies. An event is 16 bytes (struct topic_event)
 * and its data, padded to 16; it may go round the end.
 *
 * OWNS   the object's extent: header, cursors, ring.
 * HOLDS  from tail to head lie whole events with ascending numbers; at the head
 *        lies a 0 where the next one's number goes. Nothing between them
 *        changes before a transaction has moved the tail past it.
 * LOCK   publishing, and moving a cursor that is shared: the object's guard,
 *        taken here. Reading takes none: an event was whole if the tail had
 *        not passed it after it was copied.
 * CRASH  an event, or a batch, is published, with its numbers, for all or for
 *        nobody: by the store of its first number, which is the transaction. A
 *        publisher that dies may have made room for nothing: subscribers are
 *        told of what went as of any event they missed.
 * COST   publishing: the copy, and that one line which its reader waits for.
 *        Once for a sixteenth of the ring: a transaction of three words, and a
 *        look at the head of each event that goes.
 *
 * A cursor is the subscriber's own private memory, unless it has a name or the
 * topic is lossless: then it is in the table as well. That of a name is moved
 * there when the subscriber asks for what comes next, or says so
 * (topic_acknowledge); that of a subscriber without a name by a sixteenth of
 * the ring at once, which the ring has besides what it was made for, or before
 * it sleeps. Publishers of a lossless topic make no room past the cursor of a
 * subscriber that lives.
 */
#ifndef SHD_IPC_TOPIC_H
#define SHD_IPC_TOPIC_H

#include "shm/guard/txn.h"
#include "shm/ipc/object.h"

#define TOPIC_BYTES_MIN 4096u
#define TOPIC_BYTES_MAX (1ull << 32)
#define TOPIC_UNIT 16u
#define TOPIC_SPARE_SHARE 16u
#define TOPIC_CURSORS_MAX 65535u

/* An event in the ring, at a multiple of 16. */
struct topic_event {
    uint64_t seq;   /* 0 stored last; 0: there is none yet */
    uint32_t len;   /* 8 of the data, which follows */
    uint32_t check; /* 12 over the above and the place */
};
static_assert(sizeof(struct topic_event) == TOPIC_UNIT, "layout");

/* Two places, with the numbers of the events that are there: private memory. */
struct topic_span {
    uint64_t head_at;
    uint64_t head_seq; /* of the last one published, from 0 */
    uint64_t tail_at;
    uint64_t tail_seq; /* of the oldest one kept; head_seq + 1: none */
};

struct topic_header {
    uint64_t capacity_bytes; /*   0 constant */
    uint32_t flags;          /*   8 constant: SHD_TOPIC_LOSSLESS */
    uint32_t cursors_max;    /*  12 constant */
    uint8_t pad1[48];        /*  16 */
    /* What readers look at, and seldom changes: */
    uint64_t tail_at;        /*  64 */
    uint64_t tail_seq;       /*  72 */
    uint32_t cursors_used;   /*  80 that ever were; they have memory */
    uint32_t cursors_free;   /*  84 the first free one + 1; 0: none */
    uint32_t subscribers;    /*  88 cursors in use */
    uint8_t pad2[36];        /*  92 */
    /* What every publisher changes: */
    uint64_t kept;           /* 128 from the tail to the head: units of 16
                                    bytes | events << 32; without those of a
                                    publisher that died after its store */
    uint64_t sealed;         /* 136 made of `kept`: that is all there is; any
                                    other value: who publishes looks. A hint,
                                    without a log */
    uint8_t pad3[48];        /* 144 */
};
static_assert(offsetof(struct topic_header, tail_at) == 64, "layout");
static_assert(offsetof(struct topic_header, kept) == 128, "layout");
static_assert(sizeof(struct topic_header) == 192, "layout");

enum { /* struct topic_cursor.state */
       TOPIC_CURSOR_FREE = 0,
       TOPIC_CURSOR_PLAIN = 1, /* of a live subscriber to a lossless topic */
       TOPIC_CURSOR_NAMED = 2  /* stays when its subscriber goes */
};

struct topic_cursor {
    uint64_t owner;  /*  0 incarnation of the subscriber; 0: nobody just now */
    uint64_t at;     /*  8 the next event it wants */
    uint64_t seq;    /* 16 */
    uint32_t state;  /* 24 */
    uint32_t next;   /* 28 of the free ones, + 1 */
    uint8_t pad[32]; /* 32 */
    char name[64];   /* 64 NUL-terminated */
};
static_assert(sizeof(struct topic_cursor) == 128, "layout");

/* A topic as this process sees it: private memory. */
struct topic {
    struct object object;
    struct topic_header *header;
    struct topic_cursor *cursors;
    unsigned char *ring;
    uint64_t capacity;   /* bytes of events that it was made for */
    uint64_t room;       /* of events that are ever in it: some more */
    uint64_t ring_bytes; /* room, the 0 at the head, up to a whole line */
    uint32_t cursors_max;
    uint32_t flags;
};

static inline struct guard *topic_guard(const struct topic *t)
{
    return object_guard(&t->object, 0);
}

/* A subscription: private memory of one thread at a time. */
struct topic_subscriber {
    uint64_t at, seq;           /* the next event it wants */
    uint64_t done_at, done_seq; /* what is before this is done with */
    uint64_t saved_at; /* where the cursor in the table is */
    uint64_t missed;   /* not told yet */
    uint64_t owner;    /* the incarnation that subscribed */
    uint32_t cursor;   /* its number + 1 in the table; 0: private */
    uint32_t named;    /* 1: the table is to have each step */
    uint32_t vain;     /* looks in a row that found nothing */
};

/* Bytes that the ring of a topic has besides those it was made for: room is
 * made by so much at once. */
static inline uint64_t topic_spare(uint64_t capacity)
{
    return capacity / TOPIC_SPARE_SHARE / TOPIC_UNIT * TOPIC_UNIT;
}

/* Opens the topic of that name, and makes it if it is not there and `make`. As
 * the public shd_topic_open. */
int topic_open(const struct guard_env *env, const char *name,
               const struct shd_topic_options *o, bool make,
               struct topic *out);

/* The same, and a new one begins at that place (a multiple of TOPIC_UNIT), with
 * event number seq. */
int topic_make(const struct guard_env *env, const char *name,
               const struct shd_topic_options *o, uint64_t at, uint64_t seq,
               struct topic *out);

/* Publishes; *seq, if not NULL, gets the event's number. SHD_TOOBIG: larger
 * than the ring. SHD_FULL: lossless, and a live subscriber has not read what
 * would have to go. Who waits for events is woken. */
int topic_publish(const struct topic *t, const void *data, size_t len,
                  uint64_t *seq);

/* The same for the first *n, at least one, of `count` events, at least one: as
 * many as go in one hold of the lock and, in a lossless topic, have room. All
 * of these or none. *seq gets the number of the first. */
int topic_publish_many(const struct topic *t, const void *const *data,
                       const size_t *len, uint32_t count, uint32_t *n,
                       uint64_t *seq);

/* Subscribes at the head, or the tail, or by name where that cursor is.
 * SHD_EXISTS: the name's subscriber lives. SHD_FULL: no cursor is left. */
int topic_subscribe(const struct topic *t, const char *name, uint32_t from,
                    struct topic_subscriber *s);

/* Ends it. A named cursor stays. */
int topic_unsubscribe(const struct topic *t, struct topic_subscriber *s);

/* Removes a named cursor that nobody uses. SHD_NOTFOUND, SHD_EXISTS. */
int topic_forget(const struct topic *t, const char *name);

/* What comes next, up to `max` events, into buf; *missed gets how many were
 * missed before the first of them. SHD_OK with *count 0 if there is nothing
 * (or only *missed). SHD_SPACE: the next one does not fit, got[0].len tells.
 * What was given by the last call counts as done with. */
int topic_next(const struct topic *t, struct topic_subscriber *s, void *buf,
               size_t size, struct shd_event *got, uint32_t max,
               uint32_t *count, uint64_t *missed);

/* What is done with is told to the table: whoever takes the named cursor over
 * starts after it, and publishers may make room up to there. */
int topic_save(const struct topic *t, struct topic_subscriber *s);

/* The same, and what was given so far is done with. */
int topic_acknowledge(const struct topic *t, struct topic_subscriber *s);

/* Where those wait who want events, and who want room (guard_wait places). */
enum { TOPIC_NEWS = 0, TOPIC_ROOM = 1, TOPIC_PLACES = 2 };

/* Is there anything that topic_next would give? It may turn out not to be
 * there. */
bool topic_has_news(const struct topic *t, const struct topic_subscriber *s);

/* The same for some microseconds, which is less than being woken takes. */
bool topic_look_for_news(const struct topic *t,
                         const struct topic_subscriber *s);

/* Sleeps until there may be news, or room, or until_ms is over, or a slice of
 * wait.h. */
int topic_wait_news(const struct topic *t, struct topic_subscriber *s,
                    uint64_t until_ms);
int topic_wait_room(const struct topic *t, size_t len, uint64_t until_ms);

/* The same for news on a read-only attachment, where nobody can be asked to
 * wake one: looks again and again, with pauses of up to TOPIC_NAP_MS. */
#define TOPIC_NAP_MS 20u
void topic_nap(const struct topic *t, const struct topic_subscriber *s,
               uint64_t until_ms);

/* This worker's bell rings once there are news: 0. 1: there are already. */
int topic_arm(const struct topic *t, struct topic_subscriber *s);

/* Head and tail as they are at one moment. */
int topic_look(const struct topic *t, struct topic_span *span);

/* The same with the lock, or in a read section. SHD_CORRUPT, without a
 * sentence. */
int topic_span_load(const struct topic *t, struct topic_span *span);

/* A consistent copy of a cursor in the table. SHD_NOTFOUND: free. SHD_INVAL:
 * past the end. */
int topic_cursor_at(const struct topic *t, uint32_t index,
                    struct topic_cursor *copy);

/* How many cursors in the table are that worker's. */
int topic_held(const struct topic *t, uint64_t incarnation, uint64_t *count);

/* Takes the cursors of a worker that is proved dead from it, or those of all
 * who are; gives how many, or an error. */
int topic_bury(const struct topic *t, uint64_t incarnation);
int topic_bury_all(const struct topic *t);

/* The place of the live subscriber that is furthest behind; UINT64_MAX: there
 * is none. With the lock. */
uint64_t topic_cursors_bound(const struct topic *t);

/* ---- for topic_*.c ----------------------------------------------------- */

/* What an event of len bytes takes in the ring. */
uint64_t topic_event_bytes(uint64_t len);

/* The event at a place, as it may be; and is it number seq, before `end`? */
void topic_event_at(const struct topic *t, uint64_t at,
                    struct topic_event *event);
bool topic_event_is_sound(const struct topic *t, uint64_t at, uint64_t seq,
                          uint64_t end, const struct topic_event *event);

/* topic_span_load's two steps: what the header says, if that can be, and what
 * was published and is not told there. */
bool topic_span_kept(const struct topic *t, struct topic_span *span);
bool topic_span_follow(const struct topic *t, struct topic_span *span);

/* SHD_CORRUPT: head and tail contradict each other, or there is no event where
 * one should be. */
int topic_span_corrupt(const struct topic *t);

/* Copies the data of the event at a place. */
void topic_event_bytes_read(const struct topic *t, uint64_t at, void *to,
                            uint32_t len);

/* ---- for keep/ --------------------------------------------------------- */

/* Makes a cursor of that name which nobody uses. SHD_INVAL: it would be past
 * the head. SHD_EXISTS, SHD_FULL. */
int topic_put_cursor(const struct topic *t, const char *name, uint64_t at,
                     uint64_t seq);

/* The place of the live subscriber that is furthest behind; UINT64_MAX: there
 * is none. With the lock. */
uint64_t topic_cursors_bound(const struct topic *t);

/* For ipc/kinds.c. */
int topic_check(const struct object *o, char *report, size_t size);
int topic_reap(const struct object *o);

/* A view of the topic behind an object. SHD_CORRUPT. */
int topic_view(const struct object *o, struct topic *out);

#endif
