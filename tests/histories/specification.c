/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/histories/history.h"

#include <string.h>

const char *const VERB_NAMES[VERBS] = {
    "get",  "set",  "add",   "replace", "delete", "take", "cas",
    "incr", "init", "lpush", "rpush",   "lpop",   "rpop", "llen"};
const char *const OUTCOME_NAMES[OUTCOMES] = {"done", "notfound", "exists",
                                             "changed"};

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

/* The outcome; *result is 0 where an operation gives none. */
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

bool specification_apply(const struct operation *o, struct state *s)
{
    uint32_t result;
    enum outcome outcome = run(o, s, &result);

    return o->cut_off || (outcome == o->outcome && result == o->result);
}
