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

static uintptr_t low;
static size_t size;
static uint64_t *words; /* of the segment */
static uint8_t *masked;

static uint64_t count, stop_at;
static bool counting;
static void (*last_words)(void);

static struct trace *recording;
static uint32_t settled; /* words of it whose new value is known */
static uint64_t fingerprint;

void trace_segment(const void *base, size_t len)
{
    low = (uintptr_t)base;
    size = len;
    words = (uint64_t *)low;
    free(masked);
    masked = calloc(1, len / 8);
    if (masked == NULL)
        abort();
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

static uint64_t mix(uint32_t at, uint64_t v)
{
    uint64_t h = (v ^ (at + 1) * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;

    h = (h ^ h >> 32) * 0xc4ceb9fe1a85ec53ull;
    return h ^ h >> 29;
}

static void replaced(uint32_t at, uint64_t old, uint64_t new)
{
    if (old != new && !masked[at])
        fingerprint += mix(at, new) - mix(at, old);
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
    if (t != NULL)
        settled = t->count;
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

void trace_store(const volatile void *p, size_t len, bool point,
                 uint32_t flags)
{
    size_t first = ((uintptr_t)p - low) / 8;
    size_t last = ((uintptr_t)p - low + len - 1) / 8;

    settle();
    for (size_t i = first; i <= last; i++)
        push((uint32_t)i, i == first && point ? TRACE_POINT | TRACE_STATE
                                              : flags);
}

void trace_apply(const struct trace *t, uint32_t i)
{
    const struct trace_word *w = &t->word[i];

    replaced(w->at, words[w->at], w->new);
    words[w->at] = w->new;
}

void trace_rewind(const struct trace *t, uint32_t end, uint32_t i)
{
    while (end-- > i) {
        const struct trace_word *w = &t->word[end];

        replaced(w->at, words[w->at], w->old);
        words[w->at] = w->old;
    }
}

void trace_unmask_all(void)
{
    memset(masked, 0, size / 8);
    fingerprint = 0;
}

void trace_mask(const void *p, size_t len)
{
    memset(masked + ((uintptr_t)p - low) / 8, 1, len / 8);
}

uint64_t trace_fingerprint(void)
{
    return fingerprint;
}

uint64_t trace_share(const uint64_t *p, uint64_t old)
{
    uint32_t at = (uint32_t)(((uintptr_t)p - low) / 8);

    return masked[at] ? 0 : mix(at, *p) - mix(at, old);
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
    (void)p, (void)len;
}

/* One process: no other order than its own. */
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
