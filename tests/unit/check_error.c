/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite error: base/error.c. */
#include <errno.h>
#include <pthread.h>

#include "shm/base/error.h"
#include "tests/unit/support.h"

START_TEST(every_code_has_a_sentence_and_a_name_of_its_own)
{
    for (int code = -1; code >= SHD_ERROR_LAST_; code--) {
        const char *sentence = shd_strerror(code);
        const char *name = shd_strerror_name(code);

        ck_assert_str_ne(sentence, "unknown error");
        ck_assert_int_gt((int)strlen(sentence), 4);
        ck_assert_msg(strncmp(name, "SHD_", 4) == 0, "%s", name);
        for (int other = -1; other > code; other--) {
            ck_assert_str_ne(name, shd_strerror_name(other));
            ck_assert_str_ne(sentence, shd_strerror(other));
        }
    }
}
END_TEST

START_TEST(names_are_those_of_the_enum)
{
    ck_assert_str_eq(shd_strerror_name(SHD_OK), "SHD_OK");
    ck_assert_str_eq(shd_strerror_name(SHD_NOTFOUND), "SHD_NOTFOUND");
    ck_assert_str_eq(shd_strerror_name(SHD_NOMEM), "SHD_NOMEM");
    ck_assert_str_eq(shd_strerror_name(SHD_UNSUPPORTED), "SHD_UNSUPPORTED");
}
END_TEST

START_TEST(codes_that_do_not_exist_are_unknown)
{
    ck_assert_str_eq(shd_strerror(1), "unknown error");
    ck_assert_str_eq(shd_strerror(SHD_ERROR_LAST_ - 1), "unknown error");
    ck_assert_str_eq(shd_strerror_name(SHD_ERROR_LAST_ - 1), "SHD_UNKNOWN");
}
END_TEST

START_TEST(the_list_ends_where_the_header_says)
{
    ck_assert_int_eq(SHD_ERROR_LAST_, SHD_LOST);
}
END_TEST

START_TEST(setting_an_error_returns_its_code_and_keeps_errno)
{
    ck_assert_str_eq(shd_last_error(), "");
    errno = EBADF;
    ck_assert_int_eq(error_set(SHD_FULL, "slot %d of %s", 7, "x"), SHD_FULL);
    ck_assert_int_eq(errno, EBADF);
    ck_assert_str_eq(shd_last_error(), "slot 7 of x");
}
END_TEST

START_TEST(a_long_sentence_is_cut_not_overrun)
{
    char text[2000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    errno = EIO;
    ck_assert_int_eq(error_errno("%s", text), SHD_SYS);
    ck_assert_uint_eq(strlen(shd_last_error()), 511);
}
END_TEST

START_TEST(errno_decides_the_code)
{
    static const struct {
        int number, code;
    } cases[] = {{EACCES, SHD_PERM},  {EPERM, SHD_PERM},   {ENOSPC, SHD_NOMEM},
                 {ENOMEM, SHD_NOMEM}, {EDQUOT, SHD_NOMEM}, {EIO, SHD_SYS},
                 {EROFS, SHD_SYS},    {ENOENT, SHD_SYS}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        errno = cases[i].number;
        ck_assert_int_eq(error_errno("opening %s", "/x"), cases[i].code);
        ck_assert_int_eq(errno, cases[i].number);
        expect_said("opening /x: ");
        expect_said(strerror(cases[i].number));
    }
}
END_TEST

static void *other_thread(void *unused)
{
    (void)unused;
    bool fresh = shd_last_error()[0] == '\0';

    (void)error_set(SHD_BUSY, "other");
    return fresh && strcmp(shd_last_error(), "other") == 0 ? NULL : "bad";
}

START_TEST(each_thread_has_its_own_sentence)
{
    pthread_t thread;
    void *result;

    (void)error_set(SHD_FULL, "mine");
    ck_assert_int_eq(pthread_create(&thread, NULL, other_thread, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_null(result);
    ck_assert_str_eq(shd_last_error(), "mine");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("error");
    TCase *c = tcase_create("error");

    tcase_add_test(c, every_code_has_a_sentence_and_a_name_of_its_own);
    tcase_add_test(c, names_are_those_of_the_enum);
    tcase_add_test(c, codes_that_do_not_exist_are_unknown);
    tcase_add_test(c, the_list_ends_where_the_header_says);
    tcase_add_test(c, setting_an_error_returns_its_code_and_keeps_errno);
    tcase_add_test(c, a_long_sentence_is_cut_not_overrun);
    tcase_add_test(c, errno_decides_the_code);
    tcase_add_test(c, each_thread_has_its_own_sentence);
    suite_add_tcase(suite, c);
    return support_run(suite);
}
