/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * image: a segment with filled dicts, and changes of its bytes: any bytes
 * anywhere, or (tests/wild/scribble.c) what is plausible in a field that means
 * something; logs of guards that recovery believes, which takes their tags;
 * workers that die in the middle of something. In between, every operation
 * there is (tests/wild/play.c), on the attachment that was there before, on a
 * read-only one, and on one that attaches to what the file is now. Whatever
 * the bytes: an answer or SHD_CORRUPT, and nothing outside the segment. Once
 * repair says that all is sound, it is.
 */
#include "fuzz/workers.h"
#include "tests/wild/scribble.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/base/clock.h"
#include "shm/guard/txn.h"

#define STEPS_MAX 160u
#define ATTACHES_MAX 3u

static struct play p;
static struct scribbler scribbler;
static int other_fd = -1; /* a file of its own, for fresh attachments */
static unsigned char *other;
static size_t bytes;

static void build(void)
{
    workers_build();
    play_create(&p, 10);
    workers_keep(p.segment);
    bytes = p.segment->segment.size;
    other_fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (other_fd < 0 || ftruncate(other_fd, (off_t)bytes) != 0)
        abort();
    other = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, other_fd, 0);
    if (other == MAP_FAILED)
        abort();
}

/* Up to 16 bytes as they come. */
static void overwrite(unsigned char *base)
{
    uint64_t n = 1 + play_draw(&p, 16), at = play_draw(&p, bytes - 16);

    for (uint64_t i = 0; i < n; i++)
        base[at + i] = (unsigned char)play_draw(&p, 256);
}

static uint64_t some_place(void)
{
    const struct dict *d = &scribbler.small;
    uint64_t shard = (uint64_t)((const unsigned char *)d->shard -
                                p.segment->segment.base);

    switch (play_draw(&p, 4)) {
    case 0: return d->pages.at + play_draw(&p, 1 << 15);
    case 1: return shard + play_draw(&p, 192);
    case 2:
        return (uint64_t)((const unsigned char *)d->pages.table -
                          p.segment->segment.base) +
               play_draw(&p, 16 * sizeof(struct page));
    default: return play_draw(&p, bytes);
    }
}

/* The log of a guard whose holder died, with tags that are right. */
static void forge_log(void)
{
    const struct segment *s = &p.segment->segment;
    struct guard *g = play_draw(&p, 4) == 0
                          ? guard_at(s, (uint32_t)play_draw(&p, s->locks_max))
                          : dict_guard(&scribbler.small, 0);
    uint64_t undo = play_draw(&p, 9), id = g->seq | 1;

    for (uint64_t i = 0; i < undo; i++) {
        uint64_t where = some_place() / 8;

        g->undo[i].old = play_draw(&p, 2) == 0 ? play_draw(&p, UINT64_MAX)
                                               : play_draw(&p, 1 << 16);
        g->undo[i].where =
            where | txn_tag(where, g->undo[i].old, txn_salt(id));
    }
    g->seq = id;
    g->state = txn_state((uint32_t)undo, (uint32_t)play_draw(&p, 2),
                         (uint32_t)play_draw(&p, 2));
    g->lock = 0x40000000; /* FUTEX_OWNER_DIED */
}

static void cut_off(void)
{
    uint64_t stop = 1 + play_draw(&p, play_draw(&p, 4) == 0 ? 2000 : 120);

    if (workers_try(stop)) {
        play_op(&p);
        workers_done();
    }
}

static void change_worker(void)
{
    if (play_draw(&p, 2) == 0)
        workers_kill((uint32_t)play_draw(&p, WORKERS));
    else
        workers_become((uint32_t)play_draw(&p, WORKERS));
}

/* Attaches to the bytes as they are, maybe cut off, as somebody who has just
 * come. */
static void attach(void)
{
    struct shd_segment_options o = {.struct_size = sizeof(o), .wait_ms = 10};
    struct play fresh = {.data = p.data, .left = p.left};
    uint64_t size = play_draw(&p, 4) == 0 ? play_draw(&p, bytes) : bytes;
    char name[24], report[200];

    memcpy(other, p.segment->segment.base, bytes);
    while (play_draw(&p, 3) == 0 && p.left > 0)
        overwrite(other);
    if (ftruncate(other_fd, (off_t)size) != 0)
        abort();
    o.flags = play_draw(&p, 3) == 0 ? SHD_ATTACH_READONLY : 0;
    snprintf(name, sizeof(name), "fd:%d", other_fd);
    fresh.doing = "attach";
    if (shd_segment_attach(name, &o, &fresh.segment) == SHD_OK) {
        if (shd_segment_check(fresh.segment, report, sizeof(report)) > 0)
            play_fail(&fresh, "a positive code");
        if (o.flags != 0) {
            fresh.readonly = fresh.segment;
            fresh.segment = NULL;
        }
        play_open(&fresh);
        fresh.data = p.data;
        fresh.left = p.left;
        for (int i = 0; i < 20 && fresh.left > 0; i++) {
            if (o.flags == 0)
                play_op(&fresh);
            else
                play_read(&fresh);
        }
        p.data = fresh.data;
        p.left = fresh.left;
        (void)shd_segment_close(o.flags == 0 ? fresh.segment : fresh.readonly);
    }
    if (ftruncate(other_fd, (off_t)bytes) != 0)
        abort();
}

static void repair(void)
{
    struct shd_repair done = {.struct_size = sizeof(done)};
    char report[2000] = "";
    int rc = shd_segment_repair(p.segment, &done, report, sizeof(report));

    p.doing = "repair";
    if (memchr(report, 0, sizeof(report)) == NULL)
        play_fail(&p, "a report without an end");
    if (rc != SHD_OK)
        return;
    rc = shd_segment_check(p.segment, report, sizeof(report));
    if (rc != SHD_OK && rc != SHD_BUSY)
        play_fail(&p, "check after a repair: %s", report);
}

static void step(uint32_t *attaches)
{
    switch (play_draw(&p, 16)) {
    case 0:
    case 1:
    case 2:
    case 3: scribble(&scribbler); break;
    case 4: overwrite(p.segment->segment.base); break;
    case 5: forge_log(); break;
    case 6: cut_off(); break;
    case 7: change_worker(); break;
    case 8:
        if ((*attaches)++ < ATTACHES_MAX)
            attach();
        break;
    case 9: repair(); break;
    case 10: clock_test_advance(play_draw(&p, 5000)); break;
    default: play_op(&p); break;
    }
}

/* The planted mistake: what is in the head of a shard is believed. */
static void believe(void)
{
    uint32_t word[8];
    char *buffer = malloc(bytes);

    if (buffer == NULL)
        abort();
    memcpy(word, scribbler.small.shard, sizeof(word));
    for (int i = 0; i < 8; i++)
        buffer[word[i]] = 1;
    free(buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t attaches = 0;

    if (p.segment == NULL)
        build();
    workers_begin(p.segment);
    p.unrepaired = false;
    p.data = data;
    p.left = size;
    scribble_start(&scribbler, &p, (enum scribble_where)play_draw(&p, 3),
                   (uint32_t)play_draw(&p, 4), 0);
    scribbler.source = &p;
    for (uint32_t i = 0; p.left > 0 && i < STEPS_MAX; i++)
        step(&attaches);
    if (fuzz_planted())
        believe();
    workers_end();
    return 0;
}
