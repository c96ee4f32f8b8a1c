/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A line is: slot, began, ended, operation, value, other (the old one of a
 * cas), outcome, result. In those that were recorded, but for those of
 * numbers, every value is stored once, so what the mutations make of them
 * cannot have been.
 */
#include "tests/histories/history.h"

#include <stdio.h>

#define MOST 1000000u

static const struct {
    const char *name;
    enum verdict verdict;
    const char *text;
} BY_HAND[] = {
    {"a value that was overwritten", IMPOSSIBLE,
     "0 1 2 set 7 0 done 0\n"
     "0 3 4 set 8 0 done 0\n"
     "1 5 6 get 0 0 done 7\n"},
    {"the old value while it is being overwritten", POSSIBLE,
     "0 1 2 set 7 0 done 0\n"
     "0 3 6 set 8 0 done 0\n"
     "1 4 5 get 0 0 done 7\n"},
    {"the new one, and then the old one", IMPOSSIBLE,
     "0 1 2 set 7 0 done 0\n"
     "0 3 8 set 8 0 done 0\n"
     "1 4 5 get 0 0 done 8\n"
     "1 6 7 get 0 0 done 7\n"},
    {"a value before it was stored", IMPOSSIBLE,
     "1 1 2 get 0 0 done 7\n"
     "0 3 4 set 7 0 done 0\n"},
    {"nothing where something is", IMPOSSIBLE,
     "0 1 2 set 7 0 done 0\n"
     "1 3 4 get 0 0 notfound 0\n"},
    {"a value that nobody stored", IMPOSSIBLE,
     "0 1 2 set 7 0 done 0\n"
     "1 3 4 get 0 0 done 9\n"},
    {"two that add", IMPOSSIBLE,
     "0 1 3 add 7 0 done 0\n"
     "1 2 4 add 8 0 done 0\n"},
    {"one that adds, and one that finds it", POSSIBLE,
     "0 1 3 add 7 0 done 0\n"
     "1 2 4 add 8 0 exists 0\n"},
    {"two that compare and set from one value", IMPOSSIBLE,
     "0 1 2 set 7 0 done 0\n"
     "1 3 6 cas 8 7 done 0\n"
     "2 4 5 cas 9 7 done 0\n"},
    {"two that delete one value", IMPOSSIBLE,
     "0 1 2 set 7 0 done 0\n"
     "1 3 6 delete 0 0 done 0\n"
     "2 4 5 take 0 0 done 7\n"},
    {"an increment that is lost", IMPOSSIBLE,
     "0 1 3 init 1 0 done 1\n"
     "1 2 4 init 1 0 done 1\n"},
    {"increments in either order", POSSIBLE,
     "0 1 3 init 1 0 done 11\n"
     "1 2 4 init 10 0 done 10\n"},
    {"an increment that goes back", IMPOSSIBLE,
     "0 1 2 init 5 0 done 5\n"
     "0 3 4 incr 5 0 done 10\n"
     "1 5 6 get 0 0 done 5\n"},
    {"an element that is popped twice", IMPOSSIBLE,
     "0 1 2 rpush 7 0 done 1\n"
     "1 3 5 lpop 0 0 done 7\n"
     "2 4 6 rpop 0 0 done 7\n"},
    {"elements out of order", IMPOSSIBLE,
     "0 1 2 rpush 7 0 done 1\n"
     "0 3 4 rpush 8 0 done 2\n"
     "1 5 6 lpop 0 0 done 8\n"},
    {"elements from the other end", POSSIBLE,
     "0 1 2 rpush 7 0 done 1\n"
     "0 3 4 rpush 8 0 done 2\n"
     "1 5 6 rpop 0 0 done 8\n"},
    {"an element that is lost", IMPOSSIBLE,
     "0 1 2 rpush 7 0 done 1\n"
     "1 3 4 lpop 0 0 notfound 0\n"},
    {"a length that does not count", IMPOSSIBLE,
     "0 1 2 rpush 7 0 done 1\n"
     "0 3 4 lpush 8 0 done 1\n"},
    {"a length of 1, and then nothing", POSSIBLE, /* see fingerprint() */
     "3 7 13 rpush 2 0 done 1\n"
     "1 19 20 rpush 7 0 done 2\n"
     "2 25 31 rpop 10 0 done 7\n"
     "0 63 66 llen 28 0 done 1\n"
     "0 103 112 rpop 47 0 done 2\n"},
    {"a dead one's value", POSSIBLE,
     "0 1 4 set 7 0 killed 0\n"
     "1 5 6 get 0 0 done 7\n"},
    {"a dead one's value that never came", POSSIBLE,
     "0 1 4 set 7 0 killed 0\n"
     "1 5 6 get 0 0 notfound 0\n"},
    {"a dead one's value that comes and goes", IMPOSSIBLE,
     "0 1 6 set 7 0 killed 0\n"
     "1 2 3 get 0 0 done 7\n"
     "1 4 5 get 0 0 notfound 0\n"},
    {"a dead one's value that comes after its end", IMPOSSIBLE,
     "0 1 2 set 7 0 killed 0\n"
     "1 3 4 get 0 0 notfound 0\n"
     "1 5 6 get 0 0 done 7\n"},
    {"a dead one's push that is done twice", IMPOSSIBLE,
     "0 1 2 rpush 7 0 killed 0\n"
     "1 3 4 lpop 0 0 done 7\n"
     "1 5 6 lpop 0 0 done 7\n"},
    {"half of what a dead one did", IMPOSSIBLE,
     "0 1 2 rpush 7 0 killed 0\n"
     "1 3 4 llen 0 0 done 1\n"
     "1 5 6 lpop 0 0 notfound 0\n"},
    {"a dead one's increment, seen by another", POSSIBLE,
     "0 1 4 init 5 0 killed 0\n"
     "1 2 3 init 1 0 done 6\n"},
    {"a message that two take", IMPOSSIBLE,
     "0 1 2 qpush 7 0 done 0\n"
     "1 3 5 lease 0 2 done 7\n"
     "2 4 6 lease 0 3 done 7\n"},
    {"a message that is taken, comes back, and is taken", POSSIBLE,
     "0 1 2 qpush 7 0 done 0\n"
     "1 3 4 lease 0 2 done 7\n"
     "1 5 6 nack 0 2 done 0\n"
     "2 7 8 lease 0 3 done 7\n"},
    {"a message that comes back behind another", IMPOSSIBLE,
     "0 1 2 qpush 7 0 done 0\n"
     "0 3 4 qpush 8 0 done 0\n"
     "1 5 6 lease 0 2 done 7\n"
     "1 7 8 nack 0 2 done 0\n"
     "2 9 10 qpop 0 3 done 8\n"},
    {"a message that was acknowledged comes back", IMPOSSIBLE,
     "0 1 2 qpush 7 0 done 0\n"
     "1 3 4 lease 0 2 done 7\n"
     "1 5 6 ack 0 2 done 0\n"
     "2 7 8 qpop 0 3 done 7\n"},
    {"a dead one's message comes back", POSSIBLE,
     "0 1 2 qpush 7 0 done 0\n"
     "1 3 4 lease 0 2 done 7\n"
     "1 5 8 qdies 0 2 done 0\n"
     "2 6 7 qpop 0 3 done 7\n"},
    {"a dead one's message does not come back", IMPOSSIBLE,
     "0 1 2 qpush 7 0 done 0\n"
     "1 3 4 lease 0 2 done 7\n"
     "1 5 6 qdies 0 2 done 0\n"
     "2 7 8 qpop 0 3 notfound 0\n"},
    {"a dead one's acknowledgement, done or not", POSSIBLE,
     "0 1 2 qpush 7 0 done 0\n"
     "1 3 4 lease 0 2 done 7\n"
     "1 5 8 ack 0 2 killed 0\n"
     "1 9 10 qdies 0 2 done 0\n"
     "2 11 12 qpop 0 3 notfound 0\n"},
    {"messages out of order", IMPOSSIBLE,
     "0 1 2 qpush 7 0 done 0\n"
     "0 3 4 qpush 8 0 done 0\n"
     "1 5 6 qpop 0 2 done 8\n"},
    {"two that hold one lock", IMPOSSIBLE,
     "0 1 2 acquire 0 1 done 1\n"
     "1 3 4 try 0 2 done 2\n"
     "0 5 6 release 0 1 done 0\n"},
    {"a lock that is handed on", POSSIBLE,
     "0 1 2 acquire 0 1 done 1\n"
     "1 3 8 acquire 0 2 done 2\n"
     "2 4 5 try 0 3 busy 0\n"
     "0 6 7 release 0 1 done 0\n"},
    {"a token that does not grow", IMPOSSIBLE,
     "0 1 2 acquire 0 1 done 4\n"
     "0 3 4 release 0 1 done 0\n"
     "1 5 6 acquire 0 2 done 4\n"},
    {"a dead holder's lock, and who has it next is told", POSSIBLE,
     "0 1 2 acquire 0 1 done 1\n"
     "0 3 4 ldies 0 1 done 0\n"
     "1 5 6 try 0 2 inherited 2\n"},
    {"a dead holder's lock, and nobody is told", IMPOSSIBLE,
     "0 1 2 acquire 0 1 done 1\n"
     "0 3 4 ldies 0 1 done 0\n"
     "1 5 6 try 0 2 done 2\n"},
    {"a lock that a dead holder keeps", IMPOSSIBLE,
     "0 1 2 acquire 0 1 done 1\n"
     "0 3 4 ldies 0 1 done 0\n"
     "1 5 6 try 0 2 busy 0\n"},
    {"a lock that a living holder loses", IMPOSSIBLE,
     "0 1 2 acquire 0 1 done 1\n"
     "0 3 4 held 0 1 lost 0\n"},
    {"a lock that is busy, and nobody has it", IMPOSSIBLE,
     "0 1 2 acquire 0 1 done 1\n"
     "0 3 4 release 0 1 done 0\n"
     "1 5 6 try 0 2 busy 0\n"},
    {"two that lead", IMPOSSIBLE,
     "0 1 2 look 0 1 done 1\n"
     "1 3 4 look 0 2 done 2\n"
     "0 5 6 look 0 1 done 1\n"},
    {"one that leads, resigns, and the next in line", POSSIBLE,
     "0 1 2 look 0 1 done 1\n"
     "1 3 4 look 0 2 notfound 0\n"
     "0 5 6 resign 0 1 done 0\n"
     "2 7 8 look 0 3 notfound 0\n"
     "1 9 10 look 0 2 done 2\n"},
    {"nobody that leads", IMPOSSIBLE,
     "0 1 2 look 0 1 done 1\n"
     "1 3 4 look 0 2 notfound 0\n"
     "0 5 6 edies 0 1 done 0\n"
     "1 7 8 look 0 2 notfound 0\n"},
    {"a leader with another token", IMPOSSIBLE,
     "0 1 2 look 0 1 done 1\n"
     "0 3 4 look 0 1 done 2\n"},
    {"a post that is received twice", IMPOSSIBLE,
     "0 1 2 listen 0 1 done 0\n"
     "1 3 4 post 7 1 done 0\n"
     "0 5 6 receive 0 1 done 7\n"
     "0 7 8 receive 0 1 done 7\n"},
    {"posts out of order", IMPOSSIBLE,
     "0 1 2 listen 0 1 done 0\n"
     "1 3 4 post 7 1 done 0\n"
     "1 5 6 post 8 1 done 0\n"
     "0 7 8 receive 0 1 done 8\n"},
    {"a post that is lost", IMPOSSIBLE,
     "0 1 2 listen 0 1 done 0\n"
     "1 3 4 post 7 1 done 0\n"
     "0 5 6 receive 0 1 notfound 0\n"},
    {"a post to the dead", IMPOSSIBLE,
     "0 1 2 listen 0 1 done 0\n"
     "0 3 4 mdies 0 1 done 0\n"
     "1 5 6 post 7 1 done 0\n"},
    {"a post to one that dies", POSSIBLE,
     "0 1 2 listen 0 1 done 0\n"
     "0 3 8 mdies 0 1 done 0\n"
     "1 4 5 post 7 1 done 0\n"
     "1 6 7 post 8 1 lost 0\n"},
    {"a living one's box is lost", IMPOSSIBLE,
     "0 1 2 listen 0 1 done 0\n"
     "1 3 4 post 7 1 lost 0\n"},
    {"a job that two have on a lease", IMPOSSIBLE,
     "0 1 2 jrpush 7 0 done 1\n"
     "1 3 4 jltake 0 2 done 7\n"
     "2 5 6 jltake 0 3 done 7\n"},
    {"a job that comes back to the end it came from", POSSIBLE,
     "0 1 2 jrpush 7 0 done 1\n"
     "0 3 4 jrpush 8 0 done 2\n"
     "1 5 6 jrtake 0 2 done 8\n"
     "1 7 8 jnack 0 2 done 0\n"
     "2 9 10 jpop 0 3 done 7\n"},
    {"a job that comes back to the other end", IMPOSSIBLE,
     "0 1 2 jrpush 7 0 done 1\n"
     "0 3 4 jrpush 8 0 done 2\n"
     "1 5 6 jltake 0 2 done 7\n"
     "1 7 8 jnack 0 2 done 0\n"
     "2 9 10 jpop 0 3 done 8\n"},
    {"a dead one's job comes back", POSSIBLE,
     "0 1 2 jrpush 7 0 done 1\n"
     "1 3 4 jltake 0 2 done 7\n"
     "1 5 8 jdies 0 2 done 0\n"
     "2 6 7 jltake 0 3 done 7\n"},
    {"a living one's job comes back", IMPOSSIBLE,
     "0 1 2 jrpush 7 0 done 1\n"
     "1 3 4 jltake 0 2 done 7\n"
     "2 5 6 jpop 0 3 done 7\n"
     "1 7 8 jack 0 2 done 0\n"},
    {"a leased job goes with its list", POSSIBLE,
     "0 1 2 jrpush 7 0 done 1\n"
     "1 3 4 jltake 0 2 done 7\n"
     "0 5 6 jdelete 0 1 done 0\n"
     "0 7 8 jrpush 8 1 done 1\n"
     "1 9 10 jnack 0 2 lost 0\n"
     "2 11 12 jlen 0 3 done 1\n"},
    {"a leased job comes back into another list", IMPOSSIBLE,
     "0 1 2 jrpush 7 0 done 1\n"
     "1 3 4 jltake 0 2 done 7\n"
     "0 5 6 jdelete 0 1 done 0\n"
     "0 7 8 jrpush 8 1 done 1\n"
     "1 9 10 jnack 0 2 done 0\n"},
    {"an event that a subscriber does not get", IMPOSSIBLE,
     "0 1 2 subscribe 0 1 done 0\n"
     "1 3 4 publish 7 2 done 0\n"
     "1 5 6 publish 8 2 done 0\n"
     "0 7 8 next 0 1 done 8\n"},
    {"an event of before the subscription", IMPOSSIBLE,
     "1 1 2 publish 7 2 done 0\n"
     "0 3 4 subscribe 0 1 done 0\n"
     "0 5 6 next 0 1 done 7\n"},
    {"events in two orders", IMPOSSIBLE,
     "0 1 2 subscribe 0 1 done 0\n"
     "1 3 4 subscribe 0 2 done 0\n"
     "2 5 9 publish 7 3 done 0\n"
     "3 6 10 publish 8 4 done 0\n"
     "0 11 12 next 0 1 done 7\n"
     "1 13 14 next 0 2 done 8\n"
     "0 15 16 next 0 1 done 8\n"
     "1 17 18 next 0 2 done 7\n"},
    {"what a dead one was given last is given again", POSSIBLE,
     "0 1 2 subscribe 0 1 done 0\n"
     "1 3 4 publish 7 2 done 0\n"
     "1 5 6 publish 8 2 done 0\n"
     "0 7 8 next 0 1 done 7\n"
     "0 9 10 next 0 1 done 8\n"
     "0 11 12 subscribe 0 5 done 0\n"
     "0 13 14 next 0 5 done 8\n"},
    {"what was done with is given again", IMPOSSIBLE,
     "0 1 2 subscribe 0 1 done 0\n"
     "1 3 4 publish 7 2 done 0\n"
     "0 5 6 next 0 1 done 7\n"
     "0 7 8 save 0 1 done 0\n"
     "0 9 10 subscribe 0 5 done 0\n"
     "0 11 12 next 0 5 done 7\n"},
    {"a dead one's event, and nobody's", POSSIBLE,
     "0 1 2 subscribe 0 1 done 0\n"
     "1 3 4 publish 7 2 killed 0\n"
     "0 5 6 next 0 1 notfound 0\n"},
    {"a dead one's event that one gets, and another not", IMPOSSIBLE,
     "0 1 2 subscribe 0 1 done 0\n"
     "2 3 4 subscribe 0 3 done 0\n"
     "1 5 6 publish 7 2 killed 0\n"
     "0 7 8 next 0 1 done 7\n"
     "2 9 10 next 0 3 notfound 0\n"},
    {"a value of before, in another slot's gap", IMPOSSIBLE,
     "0 1 2 set 7 0 done 0\n"
     "2 3 10 set 9 0 done 0\n"
     "0 4 5 set 8 0 done 0\n"
     "1 6 7 get 0 0 done 7\n"},
};

void wrong_by_hand(uint32_t *good, uint32_t *bad)
{
    static struct history h;

    *good = *bad = 0;
    for (size_t i = 0; i < sizeof(BY_HAND) / sizeof(BY_HAND[0]); i++) {
        if (history_parse(BY_HAND[i].text, &h) &&
            history_check(&h, MOST, NULL, &(uint64_t){0}) ==
                BY_HAND[i].verdict) {
            ++*good;
            continue;
        }
        ++*bad;
        printf("  FAIL by hand: %s\n", BY_HAND[i].name);
    }
}

/* ---- of those that were recorded ---------------- */

const char *const MUTATION_NAMES[MUTATIONS] = {
    "an element popped a second time", "a value that was overwritten",
    "a value before it was stored", "a value whose store is forgotten",
    "a message taken after it was popped", "a token that does not grow",
    "a second holder of a lock", "a second leader",
    "a post received a second time", "a job that another has on a lease",
    "an event given twice"};

/* What is added up may come to the same number in many ways. */
static bool is_sum(const struct history *h)
{
    for (uint32_t i = 0; i < h->count; i++) {
        if (h->operation[i].verb == INCR || h->operation[i].verb == INIT)
            return true;
    }
    return false;
}

static bool pops(const struct operation *o)
{
    return (o->verb == LPOP || o->verb == RPOP) && !o->cut_off &&
           o->outcome == DONE;
}

static bool reads(const struct operation *o)
{
    return o->verb == GET && !o->cut_off && o->outcome == DONE;
}

static bool sets(const struct operation *o)
{
    return o->verb == SET && !o->cut_off;
}

static bool pop_twice(struct operation *a, const struct operation *b)
{
    if (a == b || !pops(a) || !pops(b))
        return false;
    a->result = b->result;
    return true;
}

/* There is a set between the end of b and the beginning of a. */
static bool read_old(const struct history *h, struct operation *a,
                     const struct operation *b)
{
    if (!reads(a) || !sets(b))
        return false;
    for (uint32_t i = 0; i < h->count; i++) {
        const struct operation *o = &h->operation[i];

        if (sets(o) && o->began > b->ended && o->ended < a->began) {
            a->result = b->value;
            return true;
        }
    }
    return false;
}

static bool read_early(struct operation *a, const struct operation *b)
{
    if (!reads(a) || !sets(b) || b->began < a->ended)
        return false;
    a->result = b->value;
    return true;
}

static bool forget(struct history *h, const struct operation *a, uint32_t b)
{
    const struct operation *o = &h->operation[b];

    if (!reads(a) || o->value != a->result ||
        (o->verb != SET && o->verb != ADD && o->verb != REPLACE &&
         o->verb != CAS))
        return false;
    h->count--;
    for (uint32_t i = b; i < h->count; i++)
        h->operation[i] = h->operation[i + 1];
    return true;
}

/* ---- of objects ---------------- */

static bool gives(const struct operation *o, enum verb verb)
{
    return o->verb == verb && !o->cut_off &&
           (o->outcome == DONE || o->outcome == INHERITED);
}

/* b's result is a's too, though it was gone, or too small, before a began. */
static bool again(struct operation *a, const struct operation *b)
{
    if (b->ended >= a->began || a->result == b->result)
        return false;
    a->result = b->result;
    return true;
}

static bool take_popped(struct operation *a, const struct operation *b)
{
    return (gives(a, QPOP) || gives(a, LEASE)) && gives(b, QPOP) &&
           again(a, b);
}

static bool token_back(struct operation *a, const struct operation *b)
{
    return (gives(a, ACQUIRE) || gives(a, TRY)) &&
           (gives(b, ACQUIRE) || gives(b, TRY)) && again(a, b);
}

static bool receive_twice(struct operation *a, const struct operation *b)
{
    return gives(a, RECEIVE) && gives(b, RECEIVE) && again(a, b);
}

/* While b's process has it for certain: it gave it back after a had ended. */
static bool second_holder(const struct history *h, struct operation *a,
                          const struct operation *b)
{
    if (a->verb != TRY || a->cut_off || a->outcome != BUSY ||
        (!gives(b, ACQUIRE) && !gives(b, TRY)) || b->ended >= a->began)
        return false;
    for (const struct operation *o = b + 1; o < h->operation + h->count; o++) {
        if (o->slot != b->slot)
            return false;
        if (o->verb == HELD)
            continue;
        if (!gives(o, RELEASE) || o->began <= a->ended)
            return false;
        a->outcome = DONE;
        a->result = UINT32_MAX;
        return true;
    }
    return false;
}

/* While b's process leads: it says so before and after, by one token. */
static bool second_leader(const struct history *h, struct operation *a,
                          const struct operation *b)
{
    if (a->verb != LOOK || a->cut_off || a->outcome != NOTFOUND ||
        !gives(b, LOOK) || b->ended >= a->began)
        return false;
    for (const struct operation *o = b + 1; o < h->operation + h->count; o++) {
        if (o->slot != b->slot || !gives(o, LOOK) || o->result != b->result)
            return false;
        if (o->began > a->ended) {
            a->outcome = DONE;
            a->result = UINT32_MAX;
            return true;
        }
    }
    return false;
}

/* b's process has it until after a has ended, and then it is done. */
static bool take_leased(const struct history *h, struct operation *a,
                        const struct operation *b)
{
    if ((!gives(a, JPOP) && !gives(a, JLTAKE) && !gives(a, JRTAKE)) ||
        (!gives(b, JLTAKE) && !gives(b, JRTAKE)) || b->ended >= a->began)
        return false;
    for (const struct operation *o = b + 1; o < h->operation + h->count; o++) {
        if (o->slot != b->slot || o->other != b->other)
            return false;
        if (o->verb != JACK && o->verb != JNACK)
            continue;
        if (!gives(o, JACK) || o->began <= a->ended)
            return false;
        a->result = b->result;
        return true;
    }
    return false;
}

/* To one process. */
static bool given_twice(struct operation *a, const struct operation *b)
{
    if (!gives(a, NEXT) || !gives(b, NEXT) || a->other != b->other || a == b)
        return false;
    a->result = b->result;
    return true;
}

static bool mutate(struct history *h, unsigned mutation, struct operation *a,
                   uint32_t b)
{
    const struct operation *other = &h->operation[b];

    switch (mutation) {
    case 0: return pop_twice(a, other);
    case 1: return read_old(h, a, other);
    case 2: return read_early(a, other);
    case 3: return forget(h, a, b);
    case 4: return take_popped(a, other);
    case 5: return token_back(a, other);
    case 6: return second_holder(h, a, other);
    case 7: return second_leader(h, a, other);
    case 8: return receive_twice(a, other);
    case 9: return take_leased(h, a, other);
    default: return given_twice(a, other);
    }
}

bool wrong_mutate(struct history *h, unsigned mutation, uint64_t random)
{
    uint32_t n = h->count;

    if (is_sum(h))
        return false;
    for (uint64_t i = 0; i < (uint64_t)n * n; i++) {
        uint64_t at = (random + i) % ((uint64_t)n * n);
        struct operation *a = &h->operation[at / n];
        uint32_t b = (uint32_t)(at % n);

        if (mutate(h, mutation, a, b))
            return true;
    }
    return false;
}
