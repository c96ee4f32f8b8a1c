/* SPDX-License-Identifier: BSD-2-Clause */
/* The map as a document: each strip with its sums, its sizes of cells, and its
 * cells. */
#include "map.h"

#include <string.h>

static void set(json_t *json, const char *name, uint64_t value)
{
    json_object_set_new(json, name, json_integer((json_int_t)value));
}

static json_t *count_json(const struct map_strip *s, const struct map_count *c)
{
    json_t *json = json_object();

    set(json, "pages", c->pages);
    set(json, "used", c->used);
    set(json, "used_bytes", c->bytes);
    set(json, "damaged", c->damaged);
    if (!s->pages)
        return json;
    set(json, "free", c->free);
    set(json, "untouched", c->untouched);
    set(json, "leaving", c->leaving);
    set(json, "beyond", c->beyond);
    set(json, "entries", c->entries);
    set(json, "expired", c->expired);
    set(json, "entries_bytes", c->held[MAP_ENTRIES]);
    set(json, "elements_bytes", c->held[MAP_ELEMENTS]);
    set(json, "pieces_bytes", c->held[MAP_PIECES]);
    json_object_set_new(json, "age_s",
                        c->used == 0 ? json_null()
                                     : json_integer((json_int_t)map_age(c)));
    return json;
}

static json_t *cells_json(const struct map *m, const struct map_strip *s)
{
    json_t *list = json_array();

    for (size_t i = 0; i < s->cells; i++) {
        json_t *json = count_json(s, &s->cell[i].count);
        int size = map_size(&s->cell[i]);

        set(json, "first_page", i * m->group);
        if (s->pages)
            json_object_set_new(json, "cell_bytes",
                                size < 0 ? json_null()
                                         : json_integer(m->size[size]));
        json_array_append_new(list, json);
    }
    return list;
}

static json_t *classes_json(const struct map *m, const struct map_strip *s)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < m->sizes; i++) {
        json_t *json = json_object();

        if (s->size_pages[i] == 0) {
            json_decref(json);
            continue;
        }
        set(json, "cell_bytes", m->size[i]);
        set(json, "pages", s->size_pages[i]);
        set(json, "used_cells", s->size_used[i]);
        set(json, "free_cells", s->size_cells[i] - s->size_used[i]);
        json_array_append_new(list, json);
    }
    return list;
}

static json_t *strip_json(const struct map *m, const struct map_strip *s)
{
    json_t *json = count_json(s, &s->sum);

    json_object_set_new(json, "object",
                        cli_json_bytes(s->object, strlen(s->object)));
    json_object_set_new(json, "kind",
                        s->kind == 0
                            ? json_null()
                            : json_string(shd_object_kind_name(s->kind)));
    json_object_set_new(json, "part", json_string(s->part));
    set(json, "bytes", s->bytes);
    set(json, "memory_bytes", s->memory_bytes);
    if (s->pages)
        json_object_set_new(json, "classes", classes_json(m, s));
    json_object_set_new(json, "cells", cells_json(m, s));
    return json;
}

json_t *map_json(const struct map *m)
{
    json_t *json = json_object(), *strips = json_array();

    json_object_set_new(json, "segment",
                        cli_json_bytes(m->segment, strlen(m->segment)));
    set(json, "size_bytes", m->size_bytes);
    set(json, "memory_bytes", m->memory_bytes);
    set(json, "page_bytes", MAP_PAGE);
    set(json, "pages_per_cell", m->group);
    for (size_t i = 0; i < m->strips; i++)
        json_array_append_new(strips, strip_json(m, &m->strip[i]));
    json_object_set_new(json, "strips", strips);
    return json;
}
