/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite layout: the parts of a segment's file, and what pages are used for,
 * on sound segments and on damaged ones. */
#include "tests/unit/fixture.h"

#include "shm/dict/account.h"
#include "shm/dict/picture.h"
#include "shm/ipc/object.h"

#define PAGES 4096u

static struct shd_page page[PAGES];
static uint32_t pages_seen;

static void make_objects(void)
{
    struct shd_queue_options qo = {.struct_size = sizeof(qo)};
    struct shd_topic_options to = {.struct_size = sizeof(to),
                                   .flags = SHD_TOPIC_CREATE};
    struct shd_lock_options lo = {.struct_size = sizeof(lo),
                                  .flags = SHD_LOCK_CREATE};
    shd_queue *q;
    shd_topic *t;
    shd_lock *l;

    start(1u << 20);
    expect(shd_queue_open(segment, "q", &qo, &q), SHD_OK);
    expect(shd_queue_push(q, "x", 1, 0, 0, NULL), SHD_OK);
    expect(shd_topic_open(segment, "t", &to, &t), SHD_OK);
    expect(shd_topic_publish(t, "x", 1, 0, NULL), SHD_OK);
    expect(shd_lock_open(segment, "l", SHD_OBJECT_LOCK, &lo, &l), SHD_OK);
    lo.permits = 5;
    expect(shd_lock_open(segment, "s", SHD_OBJECT_SEMAPHORE, &lo, &l), SHD_OK);
}

/* The parts are the file; *found, if not NULL, gets the one of that name and
 * object. */
static bool whole(int code, const char *part, const char *object,
                  struct shd_region *found)
{
    struct shd_segment_info i = {.struct_size = sizeof(i)};
    struct shd_region r = {.struct_size = sizeof(r)};
    shd_layout *layout;
    uint64_t at = 0, memory = 0, n = 0;
    bool seen = false;

    expect(shd_layout_get(segment, &layout), code);
    expect(shd_segment_info(segment, &i), SHD_OK);
    for (; shd_layout_at(layout, n, &r) == SHD_OK; n++) {
        ck_assert_uint_eq(r.at, at);
        ck_assert_uint_gt(r.bytes, 0);
        ck_assert_uint_le(r.used_bytes, r.bytes);
        ck_assert_uint_le(r.memory_bytes, r.bytes);
        ck_assert_int_eq(r.kind != 0, r.object[0] != '\0');
        at += r.bytes;
        memory += r.memory_bytes;
        if (part != NULL && strcmp(r.part, part) == 0 &&
            strcmp(r.object, object) == 0) {
            seen = true;
            if (found != NULL)
                *found = r;
        }
    }
    ck_assert_uint_eq(n, shd_layout_count(layout));
    ck_assert_uint_eq(at, i.size_bytes);
    ck_assert_uint_le(memory, i.committed_bytes);
    shd_layout_free(layout);
    return seen;
}

START_TEST(the_parts_are_the_file_without_gaps)
{
    static const struct {
        const char *object, *part;
    } parts[] = {{"", "header"},    {"", "locks"},       {"", "catalogue"},
                 {"", "workers"},   {"", "counters"},    {"", "room"},
                 {"d", "header"},   {"d", "shards"},     {"d", "roots"},
                 {"d", "page map"}, {"d", "page table"}, {"d", "pages"},
                 {"q", "header"},   {"q", "messages"},   {"q", "bells"},
                 {"t", "ring"},     {"t", "cursors"},    {"t", "bells"},
                 {"l", "permits"},  {"l", "waiters"},    {"s", "permits"}};

    make_objects();
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        ck_assert_msg(whole(SHD_OK, parts[i].part, parts[i].object, NULL),
                      "no %s of '%s'", parts[i].part, parts[i].object);
    expect(shd_object_destroy(segment, "q"), SHD_OK);
    ck_assert(!whole(SHD_OK, "messages", "q", NULL));
}
END_TEST

START_TEST(what_is_used_and_in_memory_is_told)
{
    struct shd_region r;

    make_objects();
    ck_assert(whole(SHD_OK, "pages", "d", &r));
    ck_assert_uint_eq(r.used_bytes, 0);
    ck_assert_uint_eq(r.memory_bytes, 0);
    expect(set("k", 3 * 4096, 1), SHD_OK);
    ck_assert(whole(SHD_OK, "pages", "d", &r));
    ck_assert_uint_ge(r.used_bytes, 3 * 4096);
    ck_assert_uint_ge(r.memory_bytes, r.used_bytes);
    ck_assert(whole(SHD_OK, "messages", "q", &r));
    ck_assert_uint_eq(r.used_bytes, 256);
    ck_assert(whole(SHD_OK, "workers", "", &r));
    ck_assert_uint_eq(r.used_bytes, SEGMENT_WORKER_BYTES);
    ck_assert(whole(SHD_OK, "catalogue", "", &r));
    ck_assert_uint_eq(r.used_bytes, 5 * SEGMENT_OBJECT_BYTES);
}
END_TEST

static struct catalogue_object *slot(uint32_t index)
{
    const struct segment *s = &segment->segment;

    return segment_at(s, s->catalogue_at + index * SEGMENT_OBJECT_BYTES,
                      SEGMENT_OBJECT_BYTES);
}

START_TEST(what_is_damaged_is_said_to_be_and_the_rest_is_shown)
{
    struct catalogue_object *o;
    struct shd_region r;
    uint64_t was;

    make_objects();
    was = inner->header->shards_at;
    inner->header->shards_at = UINT64_MAX;
    ck_assert(whole(SHD_OK, "damaged", "d", &r));
    ck_assert(!whole(SHD_OK, "pages", "d", NULL));
    inner->header->shards_at = was;
    o = slot(1);
    was = o->extent_at;
    o->extent_at = UINT64_MAX & ~4095ull;
    ck_assert(whole(SHD_CORRUPT, "ring", "t", NULL));
    expect_said("1 slots of the catalogue");
    ck_assert(!whole(SHD_CORRUPT, "messages", "q", NULL));
    /* Over the dict. */
    o->extent_at = slot(0)->extent_at + 4096;
    ck_assert(whole(SHD_CORRUPT, "ring", "t", NULL));
    o->extent_at = was;
    ck_assert(whole(SHD_OK, "messages", "q", NULL));
}
END_TEST

START_TEST(asked_wrongly_it_says_so)
{
    struct shd_region r = {.struct_size = 1};
    shd_layout *layout;

    start(1u << 20);
    expect(shd_layout_get(NULL, &layout), SHD_INVAL);
    expect(shd_layout_get(segment, NULL), SHD_INVAL);
    expect(shd_layout_get(segment, &layout), SHD_OK);
    expect(shd_layout_at(layout, 0, &r), SHD_INVAL);
    expect(shd_layout_at(layout, 0, NULL), SHD_INVAL);
    r.struct_size = sizeof(r);
    expect(shd_layout_at(layout, 0, &r), SHD_OK);
    expect(shd_layout_at(layout, UINT64_MAX, &r), SHD_NOTFOUND);
    shd_layout_free(layout);
    shd_layout_free(NULL);
    ck_assert_uint_eq(shd_layout_count(NULL), 0);
    expect(shd_dict_pages(dict, 0, NULL, 1, &pages_seen), SHD_INVAL);
    expect(shd_dict_pages(dict, 0, page, 1, NULL), SHD_INVAL);
    expect(shd_dict_destroy(segment, "d"), SHD_OK);
    expect(shd_dict_pages(dict, 0, page, 1, &pages_seen), SHD_GONE);
    expect(shd_segment_close(segment), SHD_OK);
    expect(shd_layout_get(segment, &layout), SHD_CLOSED);
}
END_TEST

/* ---- pages ------------------------------------------------------------- */

/* All of them, in calls of odd sizes. */
static void look(void)
{
    uint32_t n;

    pages_seen = 0;
    do {
        expect(shd_dict_pages(dict, pages_seen, page + pages_seen, 7, &n),
               SHD_OK);
        pages_seen += n;
        ck_assert_uint_lt(pages_seen, PAGES - 7);
    } while (n > 0);
}

static void fill(void)
{
    char key[16];

    for (unsigned i = 0; i < 300; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        expect(store(SHD_SET, key, i * 5, i, i % 3 == 0 ? 1000 : 0, 0, NULL),
               SHD_OK);
        expect(shd_push(dict, 0, "list", 4, SHD_STRING, key, strlen(key), 0,
                        NULL),
               SHD_OK);
    }
    expect(set("long", 30000, 1), SHD_OK);
    for (unsigned i = 0; i < 300; i += 2) {
        snprintf(key, sizeof(key), "k%u", i);
        expect(del(key), SHD_OK);
    }
}

START_TEST(pages_agree_with_the_account)
{
    struct shd_dict_account a = {.struct_size = sizeof(a)};
    uint64_t used[32] = {0}, cells[32] = {0}, entries = 0, expired = 0;
    uint64_t free_pages = 0, elements = 0, pieces = 0;

    start_named(NULL, 1u << 20, _i == 0 ? 1 : 4, 0);
    fill();
    clock_test_advance(5000);
    expect(shd_dict_account(dict, &a), SHD_OK);
    look();
    ck_assert_uint_eq(pages_seen, a.pages);
    for (uint32_t i = 0; i < pages_seen; i++) {
        const struct shd_page *p = &page[i];
        uint32_t class = slab_class(p->cell_bytes);

        ck_assert_uint_eq(p->beyond, 0);
        if (p->state == SHD_PAGE_FREE || p->state == SHD_PAGE_UNTOUCHED) {
            free_pages++;
            continue;
        }
        ck_assert_uint_eq(p->state, SHD_PAGE_USED);
        ck_assert_uint_lt(p->shard, inner->shards);
        ck_assert_uint_ge(p->age_s, 5);
        used[class]++;
        cells[class] += p->entries + p->elements + p->pieces;
        entries += p->entries;
        expired += p->expired;
        elements += p->elements;
        pieces += p->pieces;
    }
    ck_assert_uint_eq(free_pages * 4096, a.free_pages_bytes);
    for (uint32_t c = 0; c < a.classes; c++) {
        ck_assert_uint_eq(used[c], a.class_pages[c]);
        ck_assert_uint_eq(cells[c], a.class_used_cells[c]);
    }
    ck_assert_uint_eq(entries, a.entries_live + a.entries_expired);
    ck_assert_uint_eq(expired, a.entries_expired);
    ck_assert_uint_eq(expired, 50);
    ck_assert_uint_eq(elements, 300);
    ck_assert_uint_ge(pieces, 8);
}
END_TEST

START_TEST(pages_are_seen_while_locks_are_held_and_a_change_is_open)
{
    struct guard *g;
    uint32_t before;

    start(1u << 20);
    fill();
    look();
    before = pages_seen;
    g = dict_guard(inner, 0);
    expect(guard_lock(inner->env, g), SHD_OK);
    atomic_store64(&g->seq, atomic_load64(&g->seq) + 1);
    look();
    ck_assert_uint_eq(pages_seen, before);
    ck_assert_uint_eq(page[0].state, SHD_PAGE_USED);
}
END_TEST

static uint64_t touched(void)
{
    return pages_committed(&inner->pages);
}

START_TEST(damaged_pages_are_said_to_be)
{
    struct page *p;
    uint64_t count;

    start(1u << 20);
    fill();
    p = &inner->pages.table[3];
    ck_assert_uint_ne(p->owner, 0);
    p->owner = 77;
    look();
    ck_assert_uint_eq(page[3].state, SHD_PAGE_DAMAGED);
    p->owner = 1;
    p->info |= 0xff;
    look();
    ck_assert_uint_eq(page[3].state, SHD_PAGE_DAMAGED);
    ck_assert_uint_eq(page[3].cell_bytes, 0);
    /* Everything: nothing is followed outside. */
    count = pages_described(&inner->pages);
    memset(inner->pages.table, 0xa5, count * sizeof(*p));
    look();
    ck_assert_uint_eq(pages_seen, count);
    for (uint64_t i = 0; i < touched(); i++)
        ck_assert_uint_eq(page[i].state, SHD_PAGE_DAMAGED);
    for (uint64_t i = 0; i < touched(); i++) {
        p = &inner->pages.table[i];
        p->owner = 1;
        p->info = (uint32_t)(i % SLAB_CLASSES) | PAGE_LEAVING;
        p->free_map[0] = p->free_map[1] = i * 0x9e3779b97f4a7c15ull;
    }
    look();
    ck_assert_uint_eq(page[100].state, SHD_PAGE_LEAVING);
    ck_assert_uint_eq(page[100].age_s, page[101].age_s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("layout");
    TCase *c = tcase_create("layout");

    tcase_add_test(c, the_parts_are_the_file_without_gaps);
    tcase_add_test(c, what_is_used_and_in_memory_is_told);
    tcase_add_test(c, what_is_damaged_is_said_to_be_and_the_rest_is_shown);
    tcase_add_test(c, asked_wrongly_it_says_so);
    tcase_add_loop_test(c, pages_agree_with_the_account, 0, 2);
    tcase_add_test(c,
                   pages_are_seen_while_locks_are_held_and_a_change_is_open);
    tcase_add_test(c, damaged_pages_are_said_to_be);
    suite_add_tcase(s, c);
    return run_suite(s);
}
