/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/letters.h - dead letters on their way into another queue.
 *
 * OWNS   of a queue's header: mover, letter, stage, forwarded, fed; of a
 *        message that arrives: tag, which is the generation of its queue.
 * HOLDS  a queue has one letter on its way at a time, with one mover. The
 *        letter is in the one queue, or in the other, or in both and then
 *        nobody can take it.
 * LOCK   guard 0 of the one queue, then of the other; never two.
 * CRASH  what a dead mover has begun is finished by whoever looks next: it is
 *        told by the stage and by the tag how far that one came.
 * COST   eight times a lock for a letter; one load for a queue that keeps its
 *        dead letters.
 *
 *   stage    there: from        here: to
 *   NONE     in the dead list   -
 *   PINNED   in no list         -, or reserved by the mover, or tagged
 *   LANDED   gone               tagged, or ready and whatever comes then
 *   NONE     gone               ready ...
 */
#ifndef SHD_IPC_LETTERS_H
#define SHD_IPC_LETTERS_H

#include "shm/ipc/queue.h"

enum { /* struct queue_header.stage */
    LETTER_NONE = 0,
    LETTER_PINNED = 1,
    LETTER_LANDED = 2
};

/* Is there something to be done? Without the lock, as a hint. */
static inline bool letters_wait(const struct queue *q)
{
    const struct queue_header *h = q->header;

    return h->dead_to[0] != '\0' &&
           (atomic_load32(&h->dead.first) != 0 ||
            atomic_load32(&h->stage) != LETTER_NONE);
}

/* Do others send their dead letters here? A hint. */
static inline bool letters_come(const struct queue *q)
{
    return atomic_load32(&q->header->fed) != 0;
}

/* Moves this queue's dead letters, as many as there is room for. Nothing if a
 * live worker is at it, or if there is no queue to move them to. Without any
 * lock. */
int letters_forward(const struct queue *q);

/* The same for the queues that send theirs here. */
int letters_gather(const struct queue *q);

/* Both, and takes in what dead movers have left here: for a reap. */
int letters_look(const struct queue *q);

/* A queue has been opened: the hints are set. Nothing if this process is no
 * worker yet. */
void letters_introduce(const struct queue *q);

#endif
