/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/mailbox.h - messages to one worker, requests and their answers.
 *
 * Not a queue for each worker: a box is a row of a table, by the number of the
 * worker's slot, and all boxes share the cells and one lock. So a worker joins
 * without making an object, and an answer changes boxes in one transaction.
 *
 *   sender   inbox of the other       its `taken`          sender's `answers`
 *   post     POST --receive--> gone (long ones: READING, then gone)
 *   request  REQUEST --receive--> TAKEN --answer--> ANSWERED --look--> gone
 *               |                   |  '--decline--> DECLINED --look--> gone
 *               '--- its death -----'-------------> FAILED ----look--> gone
 *            WRITING (own `taken`) is a long one before it is sent;
 *            ANSWERING one whose long answer is being written
 *
 * OWNS   the own part of an object of kind SHD_OBJECT_MAILBOX: this header, a
 *        box for each worker slot, the cells.
 * HOLDS  a message is in one list of one box. A request is one chain of cells
 *        from sending to the look at its answer, which is written over it: an
 *        answer needs room only for what is longer.
 *        The box of a slot has one owner, an incarnation; a message names two.
 * LOCK   guard 0 of the object, taken here, but for who finds no mail and does
 *        not wait: a read section tells it. Long messages are copied without
 *        it, where only their holder may touch them.
 * CRASH  each of the moves is one transaction. What the dead had is failed,
 *        dropped, or withdrawn by whoever comes next: reap, the next owner of
 *        the slot, a requester that waits, a sender that finds no room.
 * COST   O(1). A death: each message in the mailbox is looked at, in steps.
 */
#ifndef SHD_IPC_MAILBOX_H
#define SHD_IPC_MAILBOX_H

#include "shm/ipc/cells.h"

enum { /* struct message.state */
    MAIL_POST = 1,
    MAIL_REQUEST = 2,
    MAIL_TAKEN = 3,
    MAIL_READING = 4,
    MAIL_WRITING = 5,
    MAIL_ANSWERING = 6,
    MAIL_ANSWERED = 7,
    MAIL_FAILED = 8,
    MAIL_DECLINED = 9
};

enum { MAILBOX_WAIT_ROOM = 0 }; /* the place; for mail: registry_wait */

/* In use by messages: from is the sender (0: it wants no answer any more),
 * holder the receiver, lease the request's number, attempts 1 once it has been
 * received. */

struct mailbox_header {
    uint64_t capacity_bytes;   /*   0 as asked for */
    uint64_t message_bytes;    /*   8 */
    uint64_t box_bytes;        /*  16 */
    uint32_t box_cells;        /*  24 an inbox has no more */
    uint32_t boxes;            /*  28 the segment's worker slots */
    uint64_t looked_ms;        /*  32 when a sender last looked for the dead; a
                                      hint, without a log */
    uint8_t pad[24];           /*  40 */
    struct cells_header cells; /*  64 */
    uint64_t bytes;            /* 128 of all messages */
    uint64_t ids;              /* 136 the last number given */
    uint64_t leases;           /* 144 */
    uint64_t sent;             /* 152 were in an inbox, and then: */
    uint64_t received;         /* 160 */
    uint64_t unread;           /* 168 went without being received */
    uint64_t requests;         /* 176 of the sent; and they were: */
    uint64_t answered;         /* 184 */
    uint64_t declined;         /* 192 */
    uint64_t failed;           /* 200 their receiver died or left */
    uint64_t withdrawn;        /* 208 their sender gave up or died */
    uint8_t pad2[40];          /* 216 */
};
static_assert(sizeof(struct mailbox_header) == 256, "layout");
static_assert(offsetof(struct mailbox_header, cells) == 64, "layout");

struct mailbox_box {
    uint64_t owner;              /*  0 incarnation; 0: nobody has it */
    struct message_list inbox;   /*  8 */
    struct message_list taken;   /* 16 what its owner works on */
    struct message_list answers; /* 24 to its owner's requests */
    uint32_t n_inbox;            /* 32 */
    uint32_t n_taken;            /* 36 */
    uint32_t n_answers;          /* 40 */
    uint32_t cells;              /* 44 of the inbox */
    uint32_t listening;          /* 48 1: it takes messages */
    uint32_t armed;              /* 52 1: ring its bell; a hint, without a
                                       log */
    uint8_t pad[8];              /* 56 */
};
static_assert(sizeof(struct mailbox_box) == 64, "layout");

/* This process's view, constant. */
struct mailbox {
    struct object object;
    struct mailbox_header *header;
    struct mailbox_box *boxes;
    struct cells cells;
    uint32_t count;     /* of boxes */
    uint32_t box_cells; /* checked copies */
};

/* Opens the mailbox of that name; with create, makes it as o says if there is
 * none. SHD_MISMATCH. */
int mailbox_open(const struct guard_env *env, const char *name,
                 const struct shd_mailbox_options *o, bool create,
                 struct mailbox *out);
int mailbox_view(const struct object *o, struct mailbox *out);

/* As shdict.h's, with checked arguments. */
int mailbox_listen(const struct mailbox *b);
int mailbox_leave(const struct mailbox *b);
int mailbox_find(const struct mailbox *b, int32_t worker_id,
                 uint64_t *incarnation);
int mailbox_send(const struct mailbox *b, uint64_t to, const void *data,
                 size_t len, size_t answer_bytes, bool request,
                 int64_t wait_ms, uint64_t *number);
int mailbox_receive(const struct mailbox *b, void *buf, size_t size,
                    int64_t wait_ms, struct shd_mail *m);
int mailbox_answer(const struct mailbox *b, uint64_t request,
                   const void *data, size_t len, int64_t wait_ms);
int mailbox_decline(const struct mailbox *b, uint64_t request);
int mailbox_await(const struct mailbox *b, uint64_t request, void *buf,
                  size_t size, int64_t wait_ms, struct shd_mail *m);
int mailbox_cancel(const struct mailbox *b, uint64_t request);
int mailbox_arm(const struct mailbox *b);
int mailbox_arm_room(const struct mailbox *b, uint64_t to, size_t len);
int mailbox_peek(const struct mailbox *b, uint32_t box, uint64_t index,
                 void *buf, size_t size, struct shd_mail *m);
int mailbox_info(const struct mailbox *b, struct shd_mailbox_info *info);
int mailbox_box_at(const struct mailbox *b, uint32_t index,
                   struct mailbox_box *copy);

/* ---- for mailbox_*.c --------------------------------------------------- */

/* Whom to wake for its mail, collected with the lock and told without it. */
struct mail_told {
    uint32_t index; /* of its slot */
    uint32_t posted;
    bool bell;
};

#define MAIL_STEP_MAX 64u

struct mail_notice {
    uint32_t count;
    bool room; /* cells were given back */
    struct mail_told told[MAIL_STEP_MAX];
};

static inline void mail_notice_begin(struct mail_notice *n)
{
    n->count = 0;
    n->room = false;
}

/* With the lock, after the commit. */
void mail_notice_box(const struct mailbox *b, struct mailbox_box *box,
                     struct mail_notice *n);
/* Lets go of the lock, and tells. */
void mail_notice_unlock(const struct mailbox *b, struct mail_notice *n);

#define MAIL_GONE_WORDS (MESSAGE_LIST_WORDS + CELLS_FREE_WORDS + 10u)
#define MAIL_MOVE_WORDS (2 * MESSAGE_LIST_WORDS + 12u)

/* The box of a worker, whoever owns it now; NULL: there is none such. */
struct mailbox_box *mailbox_box_of(const struct mailbox *b,
                                   uint64_t incarnation);

uint32_t mail_state(const struct message *m);

/* A transaction on the mailbox; and its end, by rc. */
void mail_begin(const struct mailbox *b, struct txn *t, uint32_t words);
int mail_end(struct txn *t, int rc);
void mail_add32(struct txn *t, uint32_t *p, uint32_t n);
void mail_add64(struct txn *t, uint64_t *p, uint64_t n);
int mail_unlist(const struct mailbox *b, struct txn *t,
                struct mailbox_box *box, struct message *m);
int mail_drop(const struct mailbox *b, struct txn *t, struct message *m);

/* To the answers of whoever asked, in that state; gone, if that one is. */
int mail_settle(const struct mailbox *b, struct mailbox_box *box,
                struct message *m, uint32_t state, struct mail_notice *n);

/* Fails, drops and withdraws all that a worker that is gone had to do with, and
 * frees its box. `left`: it lives, and only its inbox and what it has taken
 * go. */
int mailbox_bury(const struct mailbox *b, uint64_t incarnation, bool left);
int mailbox_bury_all(const struct mailbox *b);

/* For the table of kinds. */
int mailbox_check(const struct object *o, char *report, size_t size);
int mailbox_reap(const struct object *o);

#endif
