/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Wing and Gong's search, with Lowe's memory: from what has been ordered so
 * far - the first so many operations of each slot - the next may be any slot's
 * next one that began before every other slot's next one ended. What has been
 * ordered and what is stored then is remembered: the search does not go on
 * from there twice. A cut-off operation may also be left out when its turn
 * comes.
 */
#include "tests/histories/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHOICES (2 * SLOTS) /* do the slot's next one, or leave it out */

struct frame {
    uint32_t done[SLOTS];
    uint32_t choice; /* the next to try */
    struct state state;
};

struct search {
    const struct operation *of[SLOTS][HISTORY_MAX];
    uint32_t count[SLOTS];
    uint64_t *seen; /* fingerprints; 0 is none */
    uint64_t seen_count, seen_room;
    struct frame *frame;
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0xff51afd7ed558ccdull;
    return h ^ h >> 32;
}

/* From a word that no small number undoes: begun with the count itself, some
 * states had the fingerprint of others one operation on, and possible histories
 * were called impossible. */
static uint64_t fingerprint(const struct frame *f)
{
    uint64_t h = mix(0x9e3779b97f4a7c15ull, f->state.count);

    for (uint32_t i = 0; i < SLOTS; i++)
        h = mix(h, f->done[i]);
    for (uint32_t i = 0; i < f->state.count; i++)
        h = mix(h, f->state.item[i]);
    return h | 1;
}

static uint64_t *place(uint64_t *table, uint64_t room, uint64_t h)
{
    uint64_t i = h >> 1 & (room - 1);

    while (table[i] != 0 && table[i] != h)
        i = (i + 1) & (room - 1);
    return &table[i];
}

static void *must_have(void *p)
{
    if (p == NULL) {
        perror("malloc");
        abort();
    }
    return p;
}

/* False: it was known. */
static bool remember(struct search *s, uint64_t h)
{
    uint64_t *p;

    if (s->seen_count * 2 >= s->seen_room) {
        uint64_t room = s->seen_room == 0 ? 4096 : s->seen_room * 2;
        uint64_t *larger = must_have(calloc(room, sizeof(*larger)));

        for (uint64_t i = 0; i < s->seen_room; i++) {
            if (s->seen[i] != 0)
                *place(larger, room, s->seen[i]) = s->seen[i];
        }
        free(s->seen);
        s->seen = larger;
        s->seen_room = room;
    }
    p = place(s->seen, s->seen_room, h);
    if (*p == h)
        return false;
    *p = h;
    s->seen_count++;
    return true;
}

static const struct operation *next_of(const struct search *s,
                                       const struct frame *f, uint32_t slot)
{
    return f->done[slot] < s->count[slot] ? s->of[slot][f->done[slot]] : NULL;
}

/* When the first of all slots' next operations ended. */
static uint64_t first_end(const struct search *s, const struct frame *f)
{
    uint64_t first = UINT64_MAX;

    for (uint32_t i = 0; i < SLOTS; i++) {
        const struct operation *o = next_of(s, f, i);

        if (o != NULL && o->ended < first)
            first = o->ended;
    }
    return first;
}

/* Tries one choice from f; true: *to is what comes of it, and is new. */
static bool choose(struct search *s, const struct frame *f, uint32_t choice,
                   uint64_t end, struct frame *to)
{
    uint32_t slot = choice % SLOTS;
    const struct operation *o = next_of(s, f, slot);
    bool leave_out = choice >= SLOTS;

    if (o == NULL || o->began > end || (leave_out && !o->cut_off))
        return false;
    memcpy(to->done, f->done, sizeof(to->done));
    to->done[slot]++;
    to->choice = 0;
    to->state.count = f->state.count;
    memcpy(to->state.item, f->state.item,
           f->state.count * sizeof(f->state.item[0]));
    return (leave_out || specification_apply(o, &to->state)) &&
           remember(s, fingerprint(to));
}

static enum verdict search(struct search *s, uint32_t all, uint64_t most,
                           uint32_t *longest)
{
    uint32_t depth = 0;

    memset(&s->frame[0], 0, sizeof(s->frame[0]));
    *longest = 0;
    while (depth < all) {
        struct frame *f = &s->frame[depth];
        uint64_t end = first_end(s, f);
        bool deeper = false;

        while (f->choice < CHOICES && !deeper)
            deeper = choose(s, f, f->choice++, end, f + 1);
        if (s->seen_count > most)
            return UNDECIDED;
        if (deeper)
            depth++;
        else if (depth-- == 0)
            return IMPOSSIBLE;
        if (depth > *longest)
            *longest = depth;
    }
    return POSSIBLE;
}

enum verdict history_check(const struct history *h, uint64_t most,
                           uint32_t *stuck, uint64_t *looked)
{
    struct search *s = must_have(calloc(1, sizeof(*s)));
    uint32_t longest;
    enum verdict verdict;

    s->frame = must_have(malloc((h->count + 1) * sizeof(*s->frame)));
    for (uint32_t i = 0; i < h->count; i++) {
        const struct operation *o = &h->operation[i];

        s->of[o->slot][s->count[o->slot]++] = o;
    }
    verdict = search(s, h->count, most, &longest);
    if (stuck != NULL)
        *stuck = longest;
    if (looked != NULL)
        *looked += s->seen_count;
    free(s->frame);
    free(s->seen);
    free(s);
    return verdict;
}

/* ---- as text ---------------- */

void history_print(const struct history *h)
{
    for (uint32_t i = 0; i < h->count; i++) {
        const struct operation *o = &h->operation[i];

        printf("%u %" PRIu64 " %" PRIu64 " %s %u %u %s %u\n", o->slot,
               o->began, o->ended, VERB_NAMES[o->verb], o->value, o->other,
               o->cut_off ? "killed" : OUTCOME_NAMES[o->outcome], o->result);
    }
}

static bool name_of(const char *word, const char *const *names, uint32_t n,
                    uint8_t *which)
{
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(word, names[i]) == 0) {
            *which = (uint8_t)i;
            return true;
        }
    }
    return false;
}

static bool parse_line(const char *line, struct operation *o)
{
    char verb[16], outcome[16];
    unsigned slot;

    memset(o, 0, sizeof(*o));
    if (sscanf(line,
               "%u %" SCNu64 " %" SCNu64 " %15s %" SCNu32 " %" SCNu32
               " %15s %" SCNu32,
               &slot, &o->began, &o->ended, verb, &o->value, &o->other,
               outcome, &o->result) != 8 ||
        slot >= SLOTS || !name_of(verb, VERB_NAMES, VERBS, &o->verb))
        return false;
    o->slot = (uint8_t)slot;
    o->cut_off = strcmp(outcome, "killed") == 0;
    return o->cut_off ||
           name_of(outcome, OUTCOME_NAMES, OUTCOMES, &o->outcome);
}

bool history_parse(const char *text, struct history *h)
{
    for (h->count = 0; *text != '\0' && h->count < HISTORY_MAX; h->count++) {
        if (!parse_line(text, &h->operation[h->count]))
            return false;
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    return *text == '\0';
}
