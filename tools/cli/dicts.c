/* SPDX-License-Identifier: BSD-2-Clause */
/* --dict NAME=SIZE, as create and supervise take it, many times over. */
#include "cli.h"

#include <string.h>

#define NAME_SIZE 256

static uint64_t spec_parse(const struct cli_args *args, const char *spec,
                           char name[NAME_SIZE])
{
    const char *equals = strrchr(spec, '=');
    uint64_t bytes;

    if (equals == NULL || equals == spec ||
        !cli_size_read(equals + 1, &bytes) || bytes == 0)
        cli_usage(args, "--dict: \"%s\" is not like name=64m", spec);
    size_t len = (size_t)(equals - spec);
    if (len >= NAME_SIZE)
        cli_usage(args, "--dict: a name has at most 63 bytes");
    memcpy(name, spec, len);
    name[len] = '\0';
    return bytes;
}

void cli_dicts_parse(const struct cli_args *args)
{
    const char *spec;
    char name[NAME_SIZE];

    for (unsigned i = 0; (spec = cli_option_at(args, "dict", i)); i++)
        spec_parse(args, spec, name);
}

int cli_dicts_make(const struct cli_args *args, shd_segment *segment)
{
    const char *spec;

    for (unsigned i = 0; (spec = cli_option_at(args, "dict", i)); i++) {
        struct shd_dict_options o = {.struct_size = sizeof(o)};
        char name[NAME_SIZE];
        shd_dict *dict;
        o.capacity_bytes = spec_parse(args, spec, name);
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
