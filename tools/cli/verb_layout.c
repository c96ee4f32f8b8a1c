/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict layout: what each byte of a segment's file is for, and what of it is
 * used and lies in memory. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

struct sums {
    uint64_t bytes, used, memory;
};

static void print_row(FILE *out, const struct shd_region *r)
{
    char bytes[24], used[24], memory[24];

    fprintf(out, "0x%llx\t%s\t%s\t%s\t%s\t", (unsigned long long)r->at,
            cli_size_format(r->bytes, bytes, sizeof(bytes)),
            cli_size_format(r->used_bytes, used, sizeof(used)),
            cli_size_format(r->memory_bytes, memory, sizeof(memory)), r->part);
    if (r->kind != 0) {
        fprintf(out, "%s ", shd_object_kind_name(r->kind));
        cli_escape(out, r->object, strnlen(r->object, sizeof(r->object)));
    } else {
        putc('-', out);
    }
    putc('\n', out);
}

static json_t *region_json(const struct shd_region *r)
{
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:s, s:o, s:o}", "at", (json_int_t)r->at,
        "bytes", (json_int_t)r->bytes, "used_bytes", (json_int_t)r->used_bytes,
        "memory_bytes", (json_int_t)r->memory_bytes, "part", r->part, "kind",
        r->kind == 0 ? json_null()
                     : json_string(shd_object_kind_name(r->kind)),
        "object",
        r->kind == 0 ? json_null()
                     : cli_json_bytes(r->object,
                                      strnlen(r->object, sizeof(r->object))));
}

/* The words of the header. */
static json_t *header_json(const struct shd_segment_info *i)
{
    char id[32], seed[32];

    /* All 64 bits: JSON's integers have a sign. */
    snprintf(id, sizeof(id), "%016llx",
             (unsigned long long)i->layout_fingerprint);
    snprintf(seed, sizeof(seed), "%016llx", (unsigned long long)i->hash_seed);
    return json_pack(
        "{s:I, s:s, s:o, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
        "s:I, s:I}",
        "layout_version", (json_int_t)i->layout_version, "fingerprint", id,
        "boot_id",
        cli_json_bytes(i->boot_id, strnlen(i->boot_id, sizeof(i->boot_id))),
        "size_bytes", (json_int_t)i->size_bytes, "hash_seed", seed,
        "pid_namespace", (json_int_t)i->creator_pid_namespace, "created_ms",
        (json_int_t)i->created_ms, "workers_max", (json_int_t)i->workers_max,
        "objects_max", (json_int_t)i->objects_max, "locks_max",
        (json_int_t)i->locks_max, "incarnations", (json_int_t)i->incarnations,
        "deaths", (json_int_t)i->deaths, "supervisor",
        (json_int_t)i->supervisor, "generation",
        (json_int_t)i->worker_generation, "object_generations",
        (json_int_t)i->object_generations);
}

static void print_header(const json_t *header)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)header, name, value)
    {
        printf("%-20s ", name);
        if (json_is_integer(value)) {
            long long n = json_integer_value(value);
            printf("%llu\n", (unsigned long long)n);
        } else {
            const char *text = json_string_value(value);
            if (text != NULL)
                cli_escape(stdout, text, strlen(text));
            putchar('\n');
        }
    }
    putchar('\n');
}

static void print_sums(FILE *out, const struct sums *sum,
                       const struct shd_segment_info *i)
{
    char bytes[24], used[24], memory[24], taken[24];

    fprintf(out, "\t%s\t%s\t%s\tall\t%s taken from the system\n",
            cli_size_format(sum->bytes, bytes, sizeof(bytes)),
            cli_size_format(sum->used, used, sizeof(used)),
            cli_size_format(sum->memory, memory, sizeof(memory)),
            cli_size_format(i->committed_bytes, taken, sizeof(taken)));
}

static void add(struct sums *sum, const struct shd_region *r)
{
    sum->bytes += r->bytes;
    sum->used += r->used_bytes;
    sum->memory += r->memory_bytes;
}

static int as_json(const struct cli_args *args, const shd_layout *layout,
                   const struct shd_segment_info *i)
{
    struct shd_region r = {.struct_size = sizeof(r)};
    json_t *parts = json_array();
    struct sums sum = {0};

    for (uint64_t n = 0; shd_layout_at(layout, n, &r) == SHD_OK; n++) {
        add(&sum, &r);
        json_array_append_new(parts, region_json(&r));
    }
    cli_json_print(
        args, json_pack("{s:o, s:I, s:I, s:I, s:I, s:o}", "header",
                        header_json(i), "bytes", (json_int_t)sum.bytes,
                        "used_bytes", (json_int_t)sum.used, "memory_bytes",
                        (json_int_t)sum.memory, "committed_bytes",
                        (json_int_t)i->committed_bytes, "parts", parts));
    return CLI_YES;
}

static int as_text(const struct cli_args *args, const shd_layout *layout,
                   const struct shd_segment_info *i)
{
    struct shd_region r = {.struct_size = sizeof(r)};
    json_t *header = header_json(i);
    struct cli_table table;
    struct sums sum = {0};

    if (header == NULL || !cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    print_header(header);
    json_decref(header);
    fputs("AT\tRESERVED\tUSED\tMEMORY\tPART\tOF\n", table.out);
    for (uint64_t n = 0; shd_layout_at(layout, n, &r) == SHD_OK; n++) {
        add(&sum, &r);
        print_row(table.out, &r);
    }
    print_sums(table.out, &sum, i);
    return cli_table_end(&table) ? CLI_YES : CLI_FAILED;
}

static int run(struct cli_args *args)
{
    struct shd_segment_info i = {.struct_size = sizeof(i)};
    shd_segment *segment;
    shd_layout *layout;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    int code = shd_segment_info(segment, &i);
    if (code == SHD_OK)
        code = shd_layout_get(segment, &layout);
    /* What is damaged is shown all the same. */
    if (code == SHD_OK || code == SHD_CORRUPT) {
        status =
            args->json ? as_json(args, layout, &i) : as_text(args, layout, &i);
        shd_layout_free(layout);
    }
    if (code != SHD_OK)
        status = cli_answer(args, args->words[0], code);
    shd_segment_close(segment);
    return status;
}

const struct cli_verb verb_layout = {
    .name = "layout",
    .words = "SEGMENT",
    .summary = "Show what a segment's file consists of, byte by byte",
    .words_min = 1,
    .words_max = 1,
    .run = run};
