/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/storm/storm.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STORM_NAME_(name, text) text,
const char *const KIND_NAMES[] = {STORM_KINDS(STORM_NAME_)};


struct audit_totals audit_totals;
static unsigned char found[VALUE_MAX + 64], wanted[VALUE_MAX + 64];

int storm_open_dicts(struct storm *s, bool make)
{
    struct shd_dict_options big = {.struct_size = sizeof(big), .shards = 4};
    struct shd_dict_options small = {.struct_size = sizeof(small)};
    int rc;

    big.capacity_bytes = make ? BIG_BYTES : 0;
    big.capacity_max_bytes = make ? BIG_MOST : 0;
    small.capacity_bytes = make ? SMALL_BYTES : 0;
    small.capacity_max_bytes = make ? SMALL_MOST : 0;
    rc = shd_dict_open(s->segment, "big", make ? &big : NULL, &s->big);
    if (rc == SHD_OK)
        rc = shd_dict_open(s->segment, "small", make ? &small : NULL,
                           &s->small);
    return rc;
}

unsigned name_own(char *key, uint32_t slot, uint32_t n)
{
    return (unsigned)snprintf(key, NAME_BYTES, "w%u:%u", slot, n);
}

unsigned name_queue(char *key, uint32_t slot)
{
    return (unsigned)snprintf(key, NAME_BYTES, "queue:%u", slot);
}

unsigned name_counter(char *key, uint32_t n)
{
    return (unsigned)snprintf(key, NAME_BYTES, "counter:%u", n);
}

unsigned name_list(char *key, uint32_t n)
{
    return (unsigned)snprintf(key, NAME_BYTES, "list:%u", n);
}

uint32_t value_make(uint32_t slot, uint32_t key, uint64_t version,
                    unsigned char *bytes, uint64_t *len, double *number)
{
    uint64_t head[3] = {slot, key, version};
    uint64_t r = (version * 1000003 + key) * 1000003 + slot;
    uint64_t n;

    *number = 0;
    *len = 0;
    if (version % 5 == 0) {
        *number = (double)(version << 18 | (uint64_t)slot << 12 | key);
        return SHD_NUMBER;
    }
    r *= 0x9e3779b97f4a7c15ull;
    n = (r >> 40) % (version % 16 == 1 ? VALUE_MAX - 32 : 400);
    memcpy(bytes, head, sizeof(head));
    for (uint64_t i = 0; i < n; i += 8) {
        uint64_t word = r + i * 0xd1342543de82ef95ull;

        memcpy(bytes + sizeof(head) + i, &word, 8);
    }
    *len = sizeof(head) + n;
    return SHD_STRING;
}

int64_t value_version(const struct storm *s, uint32_t slot, uint32_t key,
                      char *why, size_t why_size)
{
    char name[NAME_BYTES];
    unsigned name_len = name_own(name, slot, key);
    struct shd_value v;
    uint64_t version = 0, len;
    double number;
    int rc = shd_get(slot == SLOTS_MAX ? s->small : s->big, name, name_len,
                     found, sizeof(found), &v);

    if (rc == SHD_NOTFOUND)
        return 0;
    if (rc != SHD_OK) {
        snprintf(why, why_size, "get gave %s: %s", shd_strerror_name(rc),
                 shd_last_error());
        return -1;
    }
    if (v.type == SHD_NUMBER && v.number >= 0 && v.number < 9e15)
        version = (uint64_t)v.number >> 18;
    else if (v.type == SHD_STRING && v.len >= 24)
        memcpy(&version, found + 16, 8);
    if (version == 0 || version >> 62 != 0 ||
        value_make(slot, key, version, wanted, &len, &number) != v.type ||
        (v.type == SHD_NUMBER && number != v.number) ||
        (v.type == SHD_STRING &&
         (len != v.len || memcmp(found, wanted, len) != 0))) {
        snprintf(why, why_size,
                 "a value that never was (type %u, %" PRIu64
                 " bytes, version %" PRIu64 ")", v.type, v.len, version);
        return -1;
    }
    return (int64_t)version;
}

int element_parse(const struct storm *s, const struct shd_value *v,
                  const unsigned char *bytes, uint32_t *slot,
                  uint32_t *number)
{
    uint64_t id;

    if (v->type == SHD_NUMBER && v->number >= 0 && v->number < 9e15) {
        id = (uint64_t)v->number;
    } else if (v->type == SHD_STRING && v->len >= sizeof(id)) {
        memcpy(&id, bytes, sizeof(id));
        for (uint64_t i = sizeof(id); i < v->len; i++) {
            if (bytes[i] != (id & 255))
                return -1;
        }
    } else {
        return -1;
    }
    *slot = (uint32_t)(id >> 32);
    *number = (uint32_t)id;
    return *slot < s->workers && *number < ELEMENTS &&
                   *number < __atomic_load_n(
                                 &s->journal->slot[*slot].elements,
                                 __ATOMIC_RELAXED)
               ? 0
               : -1;
}

static int settle_key(const struct storm *s, uint32_t number, char *why,
                      size_t why_size)
{
    struct slot *slot = &s->journal->slot[number];
    char detail[200] = "";
    int64_t version = value_version(s, number, slot->target, detail,
                                    sizeof(detail));

    if (version < 0) {
        snprintf(why, why_size, "key %u: %s", slot->target, detail);
        return -1;
    }
    if ((uint64_t)version != slot->own[slot->target] &&
        (uint64_t)version != slot->version) {
        snprintf(why, why_size,
                 "key %u has version %" PRId64 ", acknowledged was %" PRIu64
                 ", in flight %" PRIu64, slot->target, version,
                 slot->own[slot->target], slot->version);
        return -1;
    }
    slot->own[slot->target] = (uint64_t)version;
    return 0;
}

static int settle_queue(const struct storm *s, uint32_t number, char *why,
                        size_t why_size)
{
    struct slot *slot = &s->journal->slot[number];
    char key[NAME_BYTES];
    unsigned key_len = name_queue(key, number);
    uint64_t length, before = slot->queue_tail - slot->queue_head;
    int rc = shd_llen(s->big, key, key_len, &length);
    /* Either counter may have been moved before its worker died. */
    bool push = slot->kind == KIND_OWN_PUSH;

    if (rc != SHD_OK) {
        snprintf(why, why_size, "llen gave %s", shd_strerror_name(rc));
        return -1;
    }
    if (length == before)
        return 0;
    if (push && length == before + 1 && slot->version == slot->queue_tail) {
        slot->queue_tail++;
        return 0;
    }
    if (!push && length + 1 == before &&
        slot->version == slot->queue_head) {
        slot->queue_head++;
        return 0;
    }
    snprintf(why, why_size, "its queue has %" PRIu64 " elements, before it "
             "had %" PRIu64, length, before);
    return -1;
}

int slot_settle(const struct storm *s, uint32_t number, char *why,
                size_t why_size)
{
    struct slot *slot = &s->journal->slot[number];
    int rc = 0;

    if (slot->kind >= KIND_SET && slot->kind <= KIND_EXPIRE)
        rc = settle_key(s, number, why, why_size);
    else if (slot->kind == KIND_OWN_PUSH || slot->kind == KIND_OWN_POP)
        rc = settle_queue(s, number, why, why_size);
    if (rc == 0)
        __atomic_store_n(&slot->kind, KIND_NONE, __ATOMIC_RELEASE);
    return rc;
}

void audit_death(struct slot *slot)
{
    if (slot->meter.busy_since_ns != 0 && slot->kind < KINDS)
        slot->cut_kinds[slot->kind]++;
    slot->meter.busy_since_ns = 0;
    switch (slot->kind) {
    case KIND_INCR:
        slot->counts_open[slot->target]++;
        break;
    case KIND_PUSH:
        /* Dead after the note and before the end of it: acknowledged. */
        if (slot->pushed[slot->version] == 0)
            slot->push_open[slot->version] = (uint8_t)(slot->target + 1);
        break;
    case KIND_POP:
        slot->pops_open[slot->target]++;
        break;
    default:
        return; /* slot_settle() finds out */
    }
    slot->kind = KIND_NONE;
}

static int audit_keys(const struct storm *s, uint32_t number)
{
    const struct slot *slot = &s->journal->slot[number];

    for (uint32_t n = 0; n < OWN_KEYS; n++) {
        char why[200] = "";
        int64_t version = value_version(s, number, n, why, sizeof(why));

        if (version < 0 || (uint64_t)version != slot->own[n]) {
            printf("    worker %u's key %u has version %" PRId64
                   ", acknowledged was %" PRIu64 " %s\n", number, n, version,
                   slot->own[n], why);
            return -1;
        }
        audit_totals.keys += version != 0;
    }
    return 0;
}

static int audit_queue(const struct storm *s, uint32_t number)
{
    struct slot *slot = &s->journal->slot[number];
    char key[NAME_BYTES];
    unsigned key_len = name_queue(key, number);
    struct shd_value v;

    while (slot->queue_head < slot->queue_tail) {
        int rc = shd_pop(s->big, 1, key, key_len, found, sizeof(found), &v);

        if (rc != SHD_OK || v.number != (double)slot->queue_head) {
            printf("    worker %u's queue gave %s %g, should be %" PRIu64
                   "\n", number, shd_strerror_name(rc), v.number,
                   slot->queue_head);
            return -1;
        }
        slot->queue_head++;
        audit_totals.elements++;
    }
    if (shd_pop(s->big, 1, key, key_len, found, sizeof(found), &v) !=
        SHD_NOTFOUND) {
        printf("    worker %u's queue gave an element too many\n", number);
        return -1;
    }
    return 0;
}

static int audit_counter(const struct storm *s, uint32_t n)
{
    char key[NAME_BYTES];
    unsigned key_len = name_counter(key, n);
    uint64_t counted = 0, open = 0;
    struct shd_value v = {0};
    int rc = shd_get(s->big, key, key_len, found, sizeof(found), &v);

    if (rc != SHD_OK && rc != SHD_NOTFOUND) {
        printf("    counter %u: %s\n", n, shd_strerror_name(rc));
        return -1;
    }
    for (uint32_t i = 0; i < s->workers; i++) {
        counted += s->journal->slot[i].counted[n];
        open += s->journal->slot[i].counts_open[n];
    }
    uint64_t value = rc == SHD_OK ? (uint64_t)v.number : 0;
    if (value < counted || value > counted + open) {
        printf("    counter %u is %" PRIu64 ", acknowledged %" PRIu64
               ", in flight at deaths %" PRIu64 "\n", n, value, counted,
               open);
        return -1;
    }
    audit_totals.counts += counted;
    audit_totals.counts_open += open;
    audit_totals.counts_extra += value - counted;
    return 0;
}

static int drain_list(const struct storm *s, uint32_t n)
{
    char key[NAME_BYTES];
    unsigned key_len = name_list(key, n);
    struct shd_value v;
    uint32_t slot, element;
    int rc;

    while ((rc = shd_pop(s->big, 1, key, key_len, found, sizeof(found),
                         &v)) == SHD_OK) {
        if (element_parse(s, &v, found, &slot, &element) != 0) {
            printf("    list %u holds an element that never was\n", n);
            return -1;
        }
        s->journal->popped[slot][element]++;
    }
    if (rc != SHD_NOTFOUND) {
        printf("    list %u: %s\n", n, shd_strerror_name(rc));
        return -1;
    }
    return 0;
}

static int audit_elements(const struct storm *s)
{
    uint64_t lost[LISTS] = {0}, open[LISTS] = {0};

    for (uint32_t i = 0; i < s->workers; i++) {
        struct slot *slot = &s->journal->slot[i];

        for (uint32_t n = 0; n < LISTS; n++)
            open[n] += slot->pops_open[n];
        /* No other has been begun with (element_parse). */
        for (uint32_t e = 0; e < slot->elements; e++) {
            unsigned popped = s->journal->popped[i][e];
            uint8_t pushed = slot->pushed[e];

            if (popped > (pushed != 0 || slot->push_open[e] != 0)) {
                printf("    element %u of worker %u was popped %u times%s\n",
                       e, i, popped, pushed ? "" : ", and not pushed");
                return -1;
            }
            audit_totals.elements += pushed != 0;
            if (pushed != 0 && popped == 0)
                lost[pushed - 1]++;
        }
        memset(slot->pushed, 0, slot->elements);
        memset(slot->push_open, 0, slot->elements);
        memset(slot->pops_open, 0, sizeof(slot->pops_open));
        memset(s->journal->popped[i], 0, slot->elements);
        slot->elements = 0;
    }
    for (uint32_t n = 0; n < LISTS; n++) {
        if (lost[n] > open[n]) {
            printf("    list %u lost %" PRIu64 " elements, and %" PRIu64
                   " workers died in a pop\n", n, lost[n], open[n]);
            return -1;
        }
        audit_totals.elements_lost += lost[n];
        audit_totals.pops_open += open[n];
    }
    return 0;
}

int audit_all(const struct storm *s)
{
    audit_totals.counts = 0;
    audit_totals.counts_open = 0;
    audit_totals.counts_extra = 0;
    for (uint32_t i = 0; i < s->workers; i++) {
        char why[400] = "";

        if (slot_settle(s, i, why, sizeof(why)) != 0) {
            printf("    worker %u: %s\n", i, why);
            return -1;
        }
        if (audit_keys(s, i) != 0 || audit_queue(s, i) != 0)
            return -1;
    }
    for (uint32_t n = 0; n < COUNTERS; n++) {
        if (audit_counter(s, n) != 0)
            return -1;
    }
    for (uint32_t n = 0; n < LISTS; n++) {
        if (drain_list(s, n) != 0)
            return -1;
    }
    return audit_elements(s);
}
