/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * image: a segment with filled dicts, and changes of its bytes: any bytes
 * anywhere, or (tests/wild/scribble.c) what is plausible in a field that means
 * something; just before the library reads it, or anywhere; logs of guards that
 * recovery believes, which takes their tags; workers that die in the middle of
 * something; another one that does something in the middle of something. In
 * between, every operation there is (tests/wild/play.c), on the attachment that
 * was there before, on a read-only one, and on one that attaches to what the
 * file is now. Whatever the bytes: an answer or SHD_CORRUPT, and nothing outside
 * the segment. Once repair says that all is sound, it is; and as long as nothing
 * was overwritten, it is, and nobody says otherwise.
 */
#include "fuzz/aim.h"
#include "fuzz/fields.h"
#include "fuzz/locks.h"
#include "fuzz/modules.h"
#include "fuzz/more.h"
#include "fuzz/workers.h"
#include "tests/wild/scribble.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/base/clock.h"
#include "shm/guard/txn.h"

#define STEPS_MAX 160u
#define ATTACHES_MAX 3u
#define STEPS_OF_FIRST 160u
#define STEPS_OF_SECOND 232u
#define STEPS_OF_THIRD 246u
#define STEPS_OF_LOCKS 250u
#define BYTES_OF_FIRST 224u /* what those inputs mean that were there first */

static struct play p, other_play; /* the second one's: who works beside */
static bool damaged;
static struct scribbler scribbler;
static int other_fd = -1; /* a file of its own, for fresh attachments */
static unsigned char *other;
static size_t bytes;

static void build(void)
{
    workers_build();
    play_create(&p, 10);
    aim_create(&p);
    other_play.segment = workers_beside(p.segment);
    play_open(&other_play);
    if (shd_worker_join(other_play.segment, NULL) != SHD_OK)
        abort();
    workers_view(p.readonly);
    workers_keep(p.segment);
    bytes = p.segment->segment.size;
    other_fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (other_fd < 0 || ftruncate(other_fd, (off_t)bytes) != 0)
        abort();
    other = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, other_fd, 0);
    if (other == MAP_FAILED)
        abort();
}

/* SHDICT_FUZZ_TRACE: says what it does. */
static void tell(const char *what, uint64_t number)
{
    static int tracing = -1;

    if (tracing < 0)
        tracing = getenv("SHDICT_FUZZ_TRACE") != NULL;
    if (tracing != 0)
        fprintf(stderr, "%" PRIu32 ": %s %" PRIu64 "\n", workers_current(),
                what, number);
}

/* ---- in the middle of something ----------------------------------------- */

static void work_beside(void)
{
    uint32_t before = workers_enter_beside();

    other_play.data = p.data;
    other_play.left = p.left;
    for (uint64_t n = 1 + play_draw(&other_play, 3); n > 0; n--)
        play_op(&other_play);
    p.data = other_play.data;
    p.left = other_play.left;
    workers_leave_beside(before);
}

static void repair(void);

/* By another thread of this process, or by a worker who goes about it by the
 * whole, or the end of one. */
static void happen_beside(uint64_t what)
{
    struct shd_repair done = {.struct_size = sizeof(done)};
    char report[100];
    uint32_t before;

    tell("  beside", what);
    switch (what % 4) {
    case 0:
    case 1: play_read(&p); break;
    case 2:
        before = workers_enter_beside();
        (void)play_answer(&other_play,
                          shd_segment_repair(other_play.segment, &done, report,
                                             sizeof(report)));
        workers_leave_beside(before);
        break;
    default:
        before = (uint32_t)play_draw(&p, WORKERS);
        if (before != workers_current())
            workers_kill(before);
        break;
    }
}

static void interrupted(const void *at, size_t len)
{
    uint64_t byte = play_draw(&p, 256), what = byte % (damaged ? 12 : 3);
    uint64_t offset = (uint64_t)((const unsigned char *)at -
                                 p.segment->segment.base);

    tell("  interrupted", byte);
    if (byte >= BYTES_OF_FIRST)
        happen_beside(byte);
    else if (what < 2)
        work_beside();
    else if (what == 2)
        clock_test_advance(play_draw(&p, 3000));
    else
        scribble_at(&scribbler, offset + play_draw(&p, 4) / 3 * len);
    if (play_draw(&p, 2) == 0 && p.left > 0)
        workers_interrupt(1 + play_draw(&p, 256), interrupted);
}

static void do_something(uint64_t byte)
{
    char report[100];

    tell("do", byte);
    if (byte >= BYTES_OF_FIRST) {
        switch (byte % 4) {
        case 0: repair(); break;
        case 1:
            (void)play_answer(&p, shd_segment_check(p.segment, report,
                                                    sizeof(report)));
            break;
        default: more_op(&p); break;
        }
        return;
    }
    switch (byte % 8) {
    case 0: play_read(&p); break;
    case 1: play_ipc_op(&p); break;
    default: play_op(&p); break;
    }
}

static void interrupt(void)
{
    static const uint64_t REACH[] = {16, 64, 256, 256, 2000, 30000};

    workers_interrupt(1 + play_draw(&p, REACH[play_draw(&p, 6)]),
                      interrupted);
    do_something(play_draw(&p, 256));
    workers_interrupt(0, NULL);
}

/* ---- anywhere ------------------------------------------------------------- */

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
    uint64_t how = play_draw(&p, 256);
    uint64_t stop = 1 + play_draw(&p, how % 4 == 0 ? 2000 : 120);

    tell("cut off at store", stop);
    if (workers_try(stop)) {
        if (how < BYTES_OF_FIRST)
            play_op(&p);
        else
            do_something(play_draw(&p, 256));
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
static void attach(uint32_t flags)
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
    o.flags = play_draw(&p, 3) == 0 ? SHD_ATTACH_READONLY : flags;
    snprintf(name, sizeof(name), "fd:%d", other_fd);
    fresh.doing = "attach";
    if (shd_segment_attach(name, &o, &fresh.segment) == SHD_OK) {
        if (shd_segment_check(fresh.segment, report, sizeof(report)) > 0)
            play_fail(&fresh, "a positive code");
        if (o.flags == SHD_ATTACH_READONLY) {
            fresh.readonly = fresh.segment;
            fresh.segment = NULL;
        }
        play_open(&fresh);
        fresh.data = p.data;
        fresh.left = p.left;
        for (int i = 0; i < 20 && fresh.left > 0; i++) {
            if (o.flags != SHD_ATTACH_READONLY)
                play_op(&fresh);
            else
                play_read(&fresh);
        }
        p.data = fresh.data;
        p.left = fresh.left;
        play_ipc_forget(&fresh);
        (void)shd_segment_close(o.flags == SHD_ATTACH_READONLY ? fresh.readonly
                                                               : fresh.segment);
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
    if (rc != SHD_OK && rc != SHD_BUSY && rc != SHD_NOMEM)
        play_fail(&p, "check after a repair: %s", report);
}

/* Something for which there is no memory, here or in the file. */
static void refused(void)
{
    uint32_t n = 1 + (uint32_t)play_draw(&p, play_draw(&p, 4) == 0 ? 40 : 6);

    if (play_draw(&p, 2) == 0)
        workers_refuse(n, 0);
    else
        workers_refuse(0, n);
    switch (play_draw(&p, 8)) {
    case 0: repair(); break;
    case 1:
    case 2: more_op(&p); break;
    case 3: play_read(&p); break;
    default: play_op(&p); break;
    }
    workers_refuse(0, 0);
}

/* What nobody has damaged is sound. */
static void be_sound(void)
{
    char report[300] = "";
    int rc;

    p.doing = "sound";
    if (p.codes[-SHD_CORRUPT] != 0 || other_play.codes[-SHD_CORRUPT] != 0)
        play_fail(&p, "SHD_CORRUPT of what is sound: %s", shd_last_error());
    rc = shd_reap(p.segment, NULL);
    if (rc == SHD_OK)
        rc = shd_segment_check(p.segment, report, sizeof(report));
    if (rc != SHD_OK)
        play_fail(&p, "%s: %s (%s)", shd_strerror_name(rc), report,
                  shd_last_error());
}

static void forget(struct play *play)
{
    memset(play->codes, 0, sizeof(play->codes));
    memset(play->name, 0, sizeof(play->name));
    play->unrepaired = false;
}

static void end(void)
{
    play_ipc_forget(&p);
    (void)workers_enter_beside();
    play_ipc_forget(&other_play);
    workers_end();
}

static void begin(void)
{
    workers_begin(p.segment);
    forget(&p);
    forget(&other_play);
}

/* What comes now finds all as it was at the beginning. */
static void start_over(void)
{
    if (!damaged)
        be_sound();
    end();
    begin();
}

/* The higher bytes, which the lower ones know nothing of. */
static void step_more(uint64_t what, uint32_t *attaches)
{
    switch (what % 5) {
    case 0:
        if (damaged)
            fields_damage(&p);
        else
            more_op(&p);
        break;
    case 1:
        if (damaged && play_draw(&p, 4) == 0)
            fields_forge_claims(&p);
        else if (damaged)
            fields_damage(&p);
        else
            more_op(&p);
        break;
    case 2: refused(); break;
    case 3:
        if (play_draw(&p, 4) == 0 && (*attaches)++ < ATTACHES_MAX)
            attach(SHD_PREFAULT);
        else
            more_op(&p);
        break;
    default: more_op(&p); break;
    }
}

static void step(uint32_t *attaches)
{
    uint64_t what = play_draw(&p, 256);

    tell("step", what);
    if (what >= STEPS_OF_THIRD) {
        if (what >= STEPS_OF_LOCKS)
            locks_op(&p);
        else if (what % 2 == 0)
            modules_tree(&p);
        else
            modules_catalogue(&p, &other_play, damaged);
        return;
    }
    if (what >= STEPS_OF_SECOND) {
        aim_op(&p, damaged);
        if (what % 2 != 0)
            start_over();
        return;
    }
    if (what >= STEPS_OF_FIRST) {
        step_more(what, attaches);
        return;
    }
    what %= 20;
    if (!damaged && what < 4)
        what = 16;
    switch (what) {
    case 0:
    case 1: scribble(&scribbler); break;
    case 2: overwrite(p.segment->segment.base); break;
    case 3: forge_log(); break;
    case 4:
    case 5:
    case 6: cut_off(); break;
    case 16:
    case 17:
    case 18:
    case 19: interrupt(); break;
    case 7: change_worker(); break;
    case 8:
        if ((*attaches)++ < ATTACHES_MAX)
            attach(0);
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
    begin();
    p.data = data;
    p.left = size;
    damaged = play_draw(&p, 4) != 0;
    scribble_start(&scribbler, &p, (enum scribble_where)play_draw(&p, 3),
                   (uint32_t)play_draw(&p, 4), 0);
    scribbler.source = &p;
    for (uint32_t i = 0; p.left > 0 && i < STEPS_MAX; i++)
        step(&attaches);
    if (!damaged)
        be_sound();
    if (fuzz_planted())
        believe();
    end();
    return 0;
}
