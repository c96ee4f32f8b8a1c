/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hook comes before the store, so a word's new value is read when the next
 * store comes, or the end.
 */
#include "tests/crash/trace.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static uintptr_t low;
static size_t size;
static uint64_t *words; /* of the segment */
static uint8_t *masked;

static uint64_t count, stop_at;
static bool counting;
static void (*last_words)(void);

static struct trace *recording;
static uint32_t settled; /* words of it whose new value is known */
static struct fingerprint fingerprint;

static struct reads *reading;
static uint32_t *touched; /* of each word: the reading that did last */
static uint32_t readings;
static const struct marks *marking; /* as trace_marks() was told */
static size_t blind_for;

void trace_segment(const void *base, size_t len)
{
    low = (uintptr_t)base;
    size = len;
    words = (uint64_t *)low;
    free(masked);
    free(touched);
    masked = calloc(1, len / 8);
    touched = calloc(len / 8, sizeof(*touched));
    if (masked == NULL || touched == NULL)
        abort();
    readings = 0;
}

/* ---- counting ------------------------------------------------------------- */

void trace_begin(uint64_t stop, void (*at_death)(void))
{
    count = 0;
    stop_at = stop;
    last_words = at_death;
    counting = true;
}

uint64_t trace_end(void)
{
    counting = false;
    return count;
}

void trace_point(void)
{
    if (!counting || ++count != stop_at)
        return;
    counting = false;
    if (last_words != NULL)
        last_words();
    (void)raise(SIGKILL);
    abort();
}

/* ---- recording ------------------------------------------------------------ */

/* The fingerprint is the sum of these, of all words. */
static XXH128_hash_t mix(uint64_t at, uint64_t v)
{
    const uint64_t both[2] = {at, v};

    return XXH3_128bits(both, sizeof(both));
}

static void replaced(uint32_t at, uint64_t old, uint64_t new)
{
    XXH128_hash_t was, is;

    if (old == new || masked[at])
        return;
    was = mix(at, old);
    is = mix(at, new);
    fingerprint.low += is.low64 - was.low64;
    fingerprint.high += is.high64 - was.high64;
}

static void settle(void)
{
    for (; settled < recording->count; settled++) {
        struct trace_word *w = &recording->word[settled];

        w->new = words[w->at];
        replaced(w->at, w->old, w->new);
    }
}

void trace_record(struct trace *t)
{
    if (recording != NULL)
        settle();
    recording = t;
    if (t == NULL)
        return;
    settled = t->count;
    if (t->count == 0)
        t->began = fingerprint;
}

bool trace_recording(void)
{
    return recording != NULL;
}

static void push(uint32_t at, uint32_t flags)
{
    struct trace *t = recording;

    if (t->count == t->room) {
        t->room = t->room == 0 ? 1024 : t->room * 2;
        t->word = realloc(t->word, t->room * sizeof(*t->word));
        if (t->word == NULL) {
            perror("realloc");
            abort();
        }
    }
    t->word[t->count++] =
        (struct trace_word){.old = words[at], .at = at, .flags = flags};
}

static void note_overwritten(uintptr_t at, size_t len);

void trace_store(const volatile void *p, size_t len, bool point,
                 uint32_t flags)
{
    size_t first = ((uintptr_t)p - low) / 8;
    size_t last = ((uintptr_t)p - low + len - 1) / 8;

    settle();
    if (reading != NULL)
        note_overwritten((uintptr_t)p - low, len);
    for (size_t i = first; i <= last; i++)
        push((uint32_t)i, i == first && point ? TRACE_POINT | TRACE_STATE
                                              : flags);
}

void trace_put(uint32_t at, uint64_t value, uint32_t flags)
{
    settle();
    push(at, flags);
    recording->word[settled++].new = value;
    replaced(at, words[at], value);
    words[at] = value;
}

void trace_apply(const struct trace *t, uint32_t i)
{
    const struct trace_word *w = &t->word[i];

    replaced(w->at, words[w->at], w->new);
    words[w->at] = w->new;
}

void trace_rewind(const struct trace *t, uint32_t n)
{
    if (n == 0)
        return;
    while (n-- > 0)
        words[t->word[n].at] = t->word[n].old;
    fingerprint = t->began;
}

/* ---- what was read ---------------------------------------------------------
 */

void trace_reads(struct reads *r)
{
    reading = r;
    if (r == NULL)
        return;
    r->count = 0;
    r->unclear = false;
    readings++;
}

void trace_marks(const struct marks *m)
{
    marking = m;
}

void trace_disturb(const struct reads *r, const struct trace *t, uint64_t seed)
{
    readings++;
    for (uint32_t i = 0; i < r->count; i++)
        touched[r->read[i].at] = readings;
    for (uint32_t i = 0; i < t->count; i++)
        touched[t->word[i].at] = readings;
    for (size_t i = 0; i < size / 8; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        if (touched[i] != readings)
            words[i] ^= seed;
    }
}

static void note_read(uint32_t at)
{
    struct reads *r = reading;

    if (touched[at] == readings)
        return;
    touched[at] = readings;
    if (marking != NULL)
        trace_mark_word(marking, at);
    if (r->count == r->room) {
        r->room = r->room == 0 ? 1024 : r->room * 2;
        r->read = realloc(r->read, r->room * sizeof(*r->read));
        if (r->read == NULL) {
            perror("realloc");
            abort();
        }
    }
    r->read[r->count++] = (struct read){.value = words[at], .at = at};
}

/* At that offset. Words at the ends keep some of what they were. */
static void note_overwritten(uintptr_t at, size_t len)
{
    size_t end = at + len;

    for (size_t i = at / 8; i <= (end - 1) / 8; i++) {
        if (i * 8 < at || i * 8 + 8 > end)
            note_read((uint32_t)i);
        else
            touched[i] = readings;
    }
}

void trace_blind(size_t bytes)
{
    blind_for = bytes;
}

void trace_load(const volatile void *p, size_t len)
{
    uintptr_t at = (uintptr_t)p - low;

    if (reading == NULL || at >= size || len == 0)
        return;
    for (size_t i = at / 8; i <= (at + len - 1) / 8; i++)
        note_read((uint32_t)i);
}

void trace_overwrite(const volatile void *p, size_t len)
{
    if (reading == NULL)
        return;
    note_overwritten((uintptr_t)p - low, len);
    reading->unclear = true;
}

/* ---- fingerprints ---------------------------------------------------------
 */

void trace_unmask_all(void)
{
    memset(masked, 0, size / 8);
    fingerprint = (struct fingerprint){0};
}

void trace_mask(const void *p, size_t len)
{
    memset(masked + ((uintptr_t)p - low) / 8, 1, len / 8);
}

struct fingerprint trace_fingerprint(void)
{
    return fingerprint;
}

bool trace_in_segment(const volatile void *p)
{
    return (uintptr_t)p - low < size;
}

void *trace_at(uint64_t offset)
{
    return (void *)(low + offset);
}

static void hook_store(const volatile void *p, size_t len)
{
    if (!trace_in_segment(p))
        return;
    if (recording != NULL)
        trace_store(p, len, true, TRACE_STATE);
    else
        trace_point();
}

static void hook_load(const volatile void *p, size_t len)
{
    if (len != blind_for)
        trace_load(p, len);
}

static void hook_update(const volatile void *p, size_t len)
{
    trace_load(p, len);
    hook_store(p, len);
}

/* One process: no other order than its own. */
#define HOOK_UPDATE hook_update
#define HOOK_STORE_ORDER __ATOMIC_RELAXED
#include "tests/hooks/hooks.h"

/* ---- calls that store many words ------------------------------------------ */

#define WRAP(type, name, ...)                                                 \
    type __real_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__)

static bool watched(const void *p)
{
    return (counting || recording != NULL) && trace_in_segment(p);
}

static size_t word(uintptr_t at, size_t left)
{
    size_t n = 8 - (at & 7);

    return n < left ? n : left;
}

WRAP(void *, memcpy, void *to, const void *from, size_t n)
{
    trace_load(from, n);
    if (!watched(to))
        return __real_memcpy(to, from, n);
    for (size_t i = 0, step; i < n; i += step) {
        step = word((uintptr_t)to + i, n - i);
        hook_store((char *)to + i, step);
        (void)__real_memcpy((char *)to + i, (const char *)from + i, step);
    }
    return to;
}

WRAP(void *, memmove, void *to, const void *from, size_t n)
{
    trace_load(from, n);
    if (watched(to))
        hook_store(to, n);
    return __real_memmove(to, from, n);
}

WRAP(void *, memset, void *to, int c, size_t n)
{
    if (!watched(to))
        return __real_memset(to, c, n);
    for (size_t i = 0, step; i < n; i += step) {
        step = word((uintptr_t)to + i, n - i);
        hook_store((char *)to + i, step);
        (void)__real_memset((char *)to + i, c, step);
    }
    return to;
}

/* ---- calls that read -------------------------------------------------------
 */

WRAP(int, memcmp, const void *a, const void *b, size_t n)
{
    trace_load(a, n);
    trace_load(b, n);
    return __real_memcmp(a, b, n);
}

WRAP(void *, memchr, const void *p, int c, size_t n)
{
    trace_load(p, n);
    return __real_memchr(p, c, n);
}

WRAP(size_t, strnlen, const char *p, size_t n)
{
    size_t len = __real_strnlen(p, n);

    trace_load(p, len < n ? len + 1 : len);
    return len;
}

WRAP(size_t, strlen, const char *p)
{
    size_t len = __real_strlen(p);

    trace_load(p, len + 1);
    return len;
}

/* As far as they are equal, at least: it may be less than all of it. */
static void load_strings(const char *a, const char *b, size_t n)
{
    size_t len = 0;

    while (len < n && a[len] == b[len] && a[len] != '\0')
        len++;
    trace_load(a, len < n ? len + 1 : len);
    trace_load(b, len < n ? len + 1 : len);
}

WRAP(int, strcmp, const char *a, const char *b)
{
    load_strings(a, b, SIZE_MAX);
    return __real_strcmp(a, b);
}

WRAP(int, strncmp, const char *a, const char *b, size_t n)
{
    load_strings(a, b, n);
    return __real_strncmp(a, b, n);
}
