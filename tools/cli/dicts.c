/* SPDX-License-Identifier: BSD-2-Clause */
/* --dict NAME=SIZE[,MAX], as create and supervise take it, many times over. */
#include "cli.h"

#include <string.h>

#define NAME_SIZE 256

/* "64m", or "64m,1g": the capacity and what it may grow to (else 0). */
static bool sizes_read(const char *text, uint64_t *bytes, uint64_t *max)
{
    const char *comma = strchr(text, ',');
    char first[32];

    *max = 0;
    if (comma == NULL)
        return cli_size_read(text, bytes) && *bytes != 0;
    if ((size_t)(comma - text) >= sizeof(first))
        return false;
    memcpy(first, text, (size_t)(comma - text));
    first[comma - text] = '\0';
    return cli_size_read(first, bytes) && *bytes != 0 &&
           cli_size_read(comma + 1, max) && *max >= *bytes;
}

static void spec_parse(const struct cli_args *args, const char *spec,
                       char name[NAME_SIZE], uint64_t *bytes, uint64_t *max)
{
    const char *equals = strrchr(spec, '=');

    if (equals == NULL || equals == spec ||
        !sizes_read(equals + 1, bytes, max))
        cli_usage(args,
                  "--dict: \"%s\" is not like name=64m, or name=64m,1g "
                  "for one that can grow to 1g",
                  spec);
    size_t len = (size_t)(equals - spec);
    if (len >= NAME_SIZE)
        cli_usage(args, "--dict: a name has at most 63 bytes");
    memcpy(name, spec, len);
    name[len] = '\0';
}

void cli_dicts_parse(const struct cli_args *args)
{
    const char *spec;
    char name[NAME_SIZE];
    uint64_t bytes, max;

    for (unsigned i = 0; (spec = cli_option_at(args, "dict", i)); i++)
        spec_parse(args, spec, name, &bytes, &max);
}

int cli_dicts_make(const struct cli_args *args, shd_segment *segment)
{
    const char *spec;

    for (unsigned i = 0; (spec = cli_option_at(args, "dict", i)); i++) {
        struct shd_dict_options o = {.struct_size = sizeof(o)};
        char name[NAME_SIZE];
        shd_dict *dict;
        spec_parse(args, spec, name, &o.capacity_bytes, &o.capacity_max_bytes);
        int code = shd_dict_open(segment, name, &o, &dict);
        if (code != SHD_OK) {
            const char *detail = shd_last_error();
            cli_message(args, "dict \"%s\": %s", name,
                        detail[0] ? detail : shd_strerror(code));
            return cli_exit_code(code);
        }
        shd_dict_close(dict);
    }
    return CLI_YES;
}
