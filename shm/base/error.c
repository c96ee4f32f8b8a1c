/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DETAIL_BYTES 512

static _Thread_local char detail[DETAIL_BYTES];

const char *shd_strerror(int code)
{
    switch (code) {
    case SHD_OK:
        return "success";
#define SENTENCE(name, value, text)                                           \
    case value:                                                               \
        return text;
        SHD_ERRORS(SENTENCE)
#undef SENTENCE
    default:
        return "unknown error";
    }
}

const char *shd_strerror_name(int code)
{
    switch (code) {
    case SHD_OK:
        return "SHD_OK";
#define NAME(name, value, text)                                               \
    case value:                                                               \
        return "SHD_" #name;
        SHD_ERRORS(NAME)
#undef NAME
    default:
        return "SHD_UNKNOWN";
    }
}

const char *shd_last_error(void)
{
    return detail;
}

int error_set(int code, const char *format, ...)
{
    int saved = errno;
    va_list args;

    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    errno = saved;
    return code;
}

int error_errno(const char *format, ...)
{
    int saved = errno;
    va_list args;
    int code;

    va_start(args, format);
    int n = vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    if (n < 0)
        n = 0;
    if ((size_t)n < sizeof(detail) - 1)
        snprintf(detail + n, sizeof(detail) - (size_t)n, ": %s",
                 strerror(saved));
    if (saved == EACCES || saved == EPERM)
        code = SHD_PERM;
    else if (saved == ENOSPC || saved == ENOMEM || saved == EDQUOT)
        code = SHD_NOMEM;
    else
        code = SHD_SYS;
    errno = saved;
    return code;
}
