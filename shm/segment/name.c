/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/segment/name.h"
#include "shm/base/error.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define PLAIN_MAX 200

static bool is_path(const char *name)
{
    return name[0] == '/' || strncmp(name, "./", 2) == 0 ||
           strncmp(name, "../", 3) == 0;
}

static bool is_plain_byte(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

static int parse_plain(const char *name, struct segment_name *out)
{
    size_t len = strlen(name);

    if (strchr(name, '/') != NULL)
        return error_set(SHD_NAME,
                         "segment name '%.200s' has a slash: a path starts "
                         "with '/', './' or '../', a plain name has none",
                         name);
    if (len > PLAIN_MAX)
        return error_set(SHD_NAME,
                         "segment name has %zu bytes, at most %d are allowed",
                         len, PLAIN_MAX);
    if (name[0] == '.')
        return error_set(SHD_NAME, "segment name '%s' starts with a dot",
                         name);
    for (size_t i = 0; i < len; i++)
        if (!is_plain_byte(name[i]))
            return error_set(SHD_NAME,
                             "segment name has byte 0x%02x: only A-Z a-z 0-9 "
                             ". _ - are allowed",
                             (unsigned char)name[i]);
    out->in_tmpfs = true;
    snprintf(out->path, sizeof(out->path), "%s/%s%s", NAME_TMPFS_DIRECTORY,
             NAME_PREFIX, name);
    snprintf(out->directory, sizeof(out->directory), "%s",
             NAME_TMPFS_DIRECTORY);
    return SHD_OK;
}

static int parse_path(const char *name, struct segment_name *out)
{
    const char *last = strrchr(name, '/') + 1;
    size_t len = strlen(name);
    size_t directory_len = (size_t)(last - name);

    if (len >= sizeof(out->path))
        return error_set(SHD_NAME,
                         "path has %zu bytes, at most %d are allowed", len,
                         NAME_PATH_BYTES - 1);
    if (last[0] == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
        return error_set(SHD_NAME, "path '%s' names a directory, not a file",
                         name);
    memcpy(out->path, name, len + 1);
    /* "/x" lies in "/", not in "". */
    if (directory_len > 1)
        directory_len--;
    memcpy(out->directory, name, directory_len);
    out->directory[directory_len] = '\0';
    return SHD_OK;
}

static int parse_descriptor(const char *digits, struct segment_name *out)
{
    long n = 0;

    for (const char *p = digits; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || n > INT_MAX / 10)
            n = LONG_MAX / 16;
        else
            n = n * 10 + (*p - '0');
    }
    if (digits[0] == '\0' || n > INT_MAX)
        return error_set(SHD_NAME,
                         "'fd:%.40s' is not 'fd:' and a descriptor's number",
                         digits);
    out->fd = (int)n;
    return SHD_OK;
}

int name_parse(const char *name, struct segment_name *out)
{
    memset(out, 0, sizeof(*out));
    out->fd = -1;
    if (name == NULL || name[0] == '\0')
        return error_set(SHD_NAME, "the segment's name is empty");
    if (strncmp(name, "fd:", 3) == 0)
        return parse_descriptor(name + 3, out);
    if (is_path(name))
        return parse_path(name, out);
    return parse_plain(name, out);
}
