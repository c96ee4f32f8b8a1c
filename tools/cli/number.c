/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers of the command line, and numbers for people. Every text is read to
 * its end or refused. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* strtoull takes signs and leading space; we do not. */
static bool read_u64(const char *text, char **end, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    *out = strtoull(text, end, 10);
    return errno == 0;
}

bool cli_size_read(const char *text, uint64_t *out)
{
    static const char units[] = "kmg";
    char *end;
    unsigned shift = 0;

    if (!read_u64(text, &end, out))
        return false;
    if (*end != '\0') {
        const char *unit = strchr(units, tolower((unsigned char)*end));
        if (unit == NULL || *unit == '\0' || end[1] != '\0')
            return false;
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (*out > UINT64_MAX >> shift)
        return false;
    *out <<= shift;
    return true;
}

uint64_t cli_size(const struct cli_args *args, const char *what,
                  const char *text)
{
    uint64_t bytes;

    if (!cli_size_read(text, &bytes))
        cli_usage(args, "%s: \"%s\" is no size (bytes, or with k, m, g)", what,
                  text);
    return bytes;
}

uint64_t cli_count(const struct cli_args *args, const char *what,
                   const char *text, uint64_t max)
{
    uint64_t n;
    char *end;

    if (!read_u64(text, &end, &n) || *end != '\0' || n > max)
        cli_usage(args, "%s: \"%s\" is no whole number up to %llu", what, text,
                  (unsigned long long)max);
    return n;
}

double cli_number(const struct cli_args *args, const char *what,
                  const char *text)
{
    char *end;
    double n = strtod(text, &end);

    if (end == text || *end != '\0' || isspace((unsigned char)text[0]))
        cli_usage(args, "%s: \"%s\" is no number", what, text);
    return n;
}

int64_t cli_seconds_ms(const struct cli_args *args, const char *what,
                       const char *text)
{
    double seconds = cli_number(args, what, text);

    if (!(seconds >= 0 && seconds <= 1e12))
        cli_usage(args, "%s: \"%s\" is not 0 to 1e12 seconds", what, text);
    /* Up, so that a short time never becomes 0, which is for ever; the
     * nearest first, so that 0.007 is 7 ms and not 8. */
    double ms = seconds * 1000;
    double near = nearbyint(ms);
    return (int64_t)(near > 0 && fabs(ms - near) < 1e-6 ? near : ceil(ms));
}

int cli_number_format(double number, char *text, size_t size)
{
    int digits = 1;

    if (!isfinite(number)) {
        snprintf(text, size, "%s",
                 isnan(number) ? "nan"
                 : number < 0  ? "-inf"
                               : "inf");
        return digits;
    }
    if (fabs(number) < 1e15 && number == trunc(number)) {
        snprintf(text, size, "%.0f", number);
        return 15;
    }
    for (; digits < 17; digits++) {
        snprintf(text, size, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            return digits;
    }
    snprintf(text, size, "%.17g", number);
    return 17;
}

const char *cli_size_format(uint64_t bytes, char *text, size_t size)
{
    static const char units[] = " KMGTPE";
    unsigned unit = 0;
    double n = (double)bytes;

    while (n >= 1024 && unit + 2 < sizeof(units)) {
        n /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(text, size, "%u", (unsigned)bytes);
    else if (n == floor(n) || n >= 100)
        snprintf(text, size, "%.0f%c", n, units[unit]);
    else
        snprintf(text, size, "%.1f%c", n, units[unit]);
    return text;
}

const char *cli_time_format(uint64_t ms, char *text, size_t size)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;

    if (gmtime_r(&seconds, &tm) == NULL ||
        strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(text, size, "?");
    return text;
}
