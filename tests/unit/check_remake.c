/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite remake: a repair makes anew what is damaged and is no dict, tells so,
 * and lets nobody's numbers go back. */
#include "tests/unit/ipc.h"

static struct shd_repair done;
static char text[8192];

static shd_queue *queue;
static shd_topic *topic;
static shd_lock *lock;
static shd_leader *leader;
static shd_mailbox *mailbox;

static const char *const NAMES[] = {"queue", "topic", "lock", "semaphore",
                                    "leader", "mailbox"};
#define KINDS (sizeof(NAMES) / sizeof(NAMES[0]))

static uint32_t deliveries_max = 3;

static void open_queue(void)
{
    struct shd_queue_options o = {.struct_size = sizeof(o),
                                  .capacity_bytes = 100000,
                                  .deliveries_max = deliveries_max};

    expect(shd_queue_open(segment, "queue", &o, &queue), SHD_OK);
}

static void open_topic(void)
{
    struct shd_topic_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_TOPIC_CREATE,
                                  .capacity_bytes = 50000};

    expect(shd_topic_open(segment, "topic", &o, &topic), SHD_OK);
}

static void open_lock(uint32_t kind)
{
    struct shd_lock_options o = {
        .struct_size = sizeof(o),
        .flags = SHD_LOCK_CREATE,
        .permits = kind == SHD_OBJECT_SEMAPHORE ? 5 : 1};

    expect(shd_lock_open(segment,
                         kind == SHD_OBJECT_SEMAPHORE ? "semaphore" : "lock",
                         kind, &o, &lock),
           SHD_OK);
}

static void open_leader(void)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE};

    expect(shd_leader_open(segment, "leader", &o, &leader), SHD_OK);
}

static void open_mailbox(void)
{
    struct shd_mailbox_options o = {.struct_size = sizeof(o)};

    expect(shd_mailbox_open(segment, "mailbox", &o, &mailbox), SHD_OK);
}

/* Opens it, and does something with it; gives the last number it gave. */
static uint64_t use(int kind)
{
    struct shd_grant g;
    uint64_t number = 0;

    switch (kind) {
    case 0:
        open_queue();
        expect(shd_queue_push(queue, "job", 3, 0, 0, &number), SHD_OK);
        break;
    case 1:
        open_topic();
        expect(shd_topic_publish(topic, "news", 4, 0, &number), SHD_OK);
        break;
    case 2:
    case 3:
        open_lock(kind == 2 ? SHD_OBJECT_LOCK : SHD_OBJECT_SEMAPHORE);
        expect(shd_lock_acquire(lock, 0, 0, &g), SHD_OK);
        number = g.token;
        expect(shd_lock_release(lock, number), SHD_OK);
        break;
    case 4:
        open_leader();
        expect(shd_leader_look(leader, 0, &g), SHD_OK);
        number = g.token;
        expect(shd_leader_resign(leader), SHD_OK);
        break;
    default:
        open_mailbox();
        expect(shd_mailbox_listen(mailbox), SHD_OK);
        expect(shd_mailbox_post(mailbox, me(), "mail", 4, 0, &number),
               SHD_OK);
    }
    return number;
}

static struct object view(int kind)
{
    struct catalogue_object c;
    struct object o;

    expect(catalogue_find(&segment->env, NAMES[kind], &c), SHD_OK);
    expect(object_view(&segment->env, &c, &o), SHD_OK);
    return o;
}

static void repaired(const char *what)
{
    char why[256] = "";

    expect(shd_segment_check(segment, why, sizeof(why)), SHD_CORRUPT);
    memset(&done, 0, sizeof(done));
    done.struct_size = sizeof(done);
    expect(shd_segment_repair(segment, &done, text, sizeof(text)), SHD_OK);
    ck_assert_msg(strstr(text, what) != NULL, "'%s' does not tell '%s'", text,
                  what);
    sound();
}

/* The first bytes of a kind's header are its properties. */
#define PROPERTIES 64u

START_TEST(noise_in_an_object_makes_it_anew)
{
    struct object o;
    unsigned char *own;

    start_segment();
    for (int i = 0; i < 10; i++)
        (void)use(_i);
    o = view(_i);
    own = object_own(&o, 0, 320);
    ck_assert_ptr_nonnull(own);
    memset(own + PROPERTIES, 0x5a, 320 - PROPERTIES);
    repaired("made anew, empty");
    ck_assert_ptr_nonnull(strstr(text, NAMES[_i]));
    ck_assert_uint_eq(done.remade, 1);
    (void)use(_i);
    sound();
}
END_TEST

START_TEST(properties_that_cannot_be_give_way_to_plain_ones)
{
    struct object o;

    start_segment();
    (void)use(_i);
    o = view(_i);
    memset(object_own(&o, 0, 320), 0xff, 320);
    repaired("made anew, empty");
    /* As large as it was; what else was asked for is not known any more. */
    deliveries_max = 0;
    (void)use(_i);
    sound();
}
END_TEST

START_TEST(an_object_without_a_head_is_made_anew)
{
    struct object o;

    start_segment();
    (void)use(_i);
    o = view(_i);
    memset(o.header, 0xa5, sizeof(*o.header));
    repaired("made anew, empty");
    deliveries_max = 0;
    (void)use(_i);
    sound();
}
END_TEST

/* How many are ready, subscribe, wait; bytes of messages. */
static const uint32_t AT[KINDS] = {160, 88, 48, 48, 48, 128};

START_TEST(numbers_go_on_where_they_can_be_believed)
{
    struct object o;
    uint64_t last = 0;

    start_segment();
    for (int i = 0; i < 10; i++)
        last = use(_i);
    o = view(_i);
    *(uint32_t *)object_own(&o, AT[_i], sizeof(uint32_t)) += 77;
    repaired("made anew, empty");
    /* A mailbox's numbers are asked of nobody later on. */
    if (_i != 5)
        ck_assert_uint_gt(use(_i), last);
}
END_TEST

/* Every slot of the catalogue is taken. */
static void fill_catalogue(void)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE};
    shd_lock *other;
    char name[32];
    int rc = SHD_OK;

    for (int i = 0; rc == SHD_OK; i++) {
        snprintf(name, sizeof(name), "other %d", i);
        rc = shd_lock_open(segment, name, SHD_OBJECT_LOCK, &o, &other);
    }
    expect(rc, SHD_FULL);
}

START_TEST(where_there_is_no_room_for_both_the_old_one_goes_first)
{
    struct object o;
    uint64_t last = 0;

    start_segment();
    for (int i = 0; i < 10; i++)
        last = use(_i);
    o = view(_i);
    fill_catalogue();
    *(uint32_t *)object_own(&o, AT[_i], sizeof(uint32_t)) += 77;
    repaired("made anew, empty");
    ck_assert_uint_eq(done.remade, 1);
    if (_i != 5)
        ck_assert_uint_gt(use(_i), last);
    sound();
}
END_TEST

START_TEST(who_has_it_open_is_told)
{
    struct object o;
    uint64_t id;

    start_segment();
    (void)use(0);
    o = view(0);
    memset((unsigned char *)object_own(&o, 0, 320) + 64, 0x33, 200);
    repaired("queue 'queue'");
    expect(shd_queue_push(queue, "x", 1, 0, 0, &id), SHD_GONE);
    open_queue();
    expect(shd_queue_push(queue, "x", 1, 0, 0, &id), SHD_OK);
}
END_TEST

START_TEST(a_log_that_cannot_be_believed_is_emptied_and_no_more)
{
    struct object o;
    struct guard *g;

    start_segment();
    (void)use(2);
    o = view(2);
    g = object_guard(&o, 0);
    g->state = 0xff0000ff;
    memset(&done, 0, sizeof(done));
    done.struct_size = sizeof(done);
    expect(shd_segment_repair(segment, &done, text, sizeof(text)), SHD_OK);
    ck_assert_uint_eq(done.remade, 0);
    sound();
    (void)use(2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("remake");
    TCase *c = tcase_create("remake");

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, noise_in_an_object_makes_it_anew, 0, KINDS);
    tcase_add_loop_test(c, properties_that_cannot_be_give_way_to_plain_ones,
                        0, KINDS);
    tcase_add_loop_test(c, an_object_without_a_head_is_made_anew, 0, KINDS);
    tcase_add_loop_test(c, numbers_go_on_where_they_can_be_believed, 0, KINDS);
    tcase_add_loop_test(
        c, where_there_is_no_room_for_both_the_old_one_goes_first, 0, KINDS);
    tcase_add_test(c, who_has_it_open_is_told);
    tcase_add_test(c, a_log_that_cannot_be_believed_is_emptied_and_no_more);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
