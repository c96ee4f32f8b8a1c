/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lua: calls of the Lua modules with arguments of every kind. The first byte
 * chooses how: compiled; or interpreted, and then each line of the modules
 * counts as reached to libFuzzer. What the other bytes are is decided in
 * lua.lua. Whatever the arguments: results, or an error that is documented; and
 * the segment is sound afterwards.
 */
#include "fuzz/workers.h"

#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/base/clock.h"

#define LINES 8192u
#define WAITS_MAX 8u

/* libFuzzer reads it as further counters. */
__attribute__((section("__libFuzzer_extra_counters"))) static uint8_t
    lines[LINES];

static lua_State *lua;
static shd_segment *segment;
static unsigned waits;

static _Noreturn void fail(const char *what, const char *more)
{
    fprintf(stderr, "lua: %s: %s\n", what, more);
    abort();
}

static void on_line(lua_State *l, lua_Debug *a)
{
    uint32_t hash = 2166136261u;

    if (lua_getinfo(l, "S", a) == 0)
        return;
    for (const char *c = a->short_src; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    hash = (hash ^ (uint32_t)a->currentline) * 16777619u;
    lines[hash % LINES] |= 1;
}

static void run_file(const char *path)
{
    if (luaL_dofile(lua, path) != 0)
        fail(path, lua_tostring(lua, -1));
}

static void build(void)
{
    const struct shd_segment_options o = {.struct_size = sizeof(o),
                                          .size_bytes = 1 << 20,
                                          .workers_max = 8,
                                          .objects_max = 16,
                                          .locks_max = 32,
                                          .wait_ms = 10};
    char name[24];

    workers_build();
    if (shd_segment_create(NULL, &o, &segment) != SHD_OK)
        fail("create", shd_last_error());
    segment->segment.hash_seed = 7;
    segment_header(&segment->segment)->hash_seed = 7;
    lua = luaL_newstate();
    if (lua == NULL)
        fail("luaL_newstate", "no memory");
    luaL_openlibs(lua);
    snprintf(name, sizeof(name), "fd:%d", segment->segment.fd);
    lua_pushstring(lua, name);
    lua_setglobal(lua, "SEGMENT");
    lua_pushboolean(lua, fuzz_planted());
    lua_setglobal(lua, "PLANTED");
    lua_pushstring(lua, FUZZ_LUA_MODULES "/?.lua;" FUZZ_LUA_CDEF "/?.lua");
    lua_setglobal(lua, "MODULES");
    run_file(FUZZ_LUA_FILE);
    workers_keep(segment);
}

/* Who waits for ever is told that it is over, sooner or later. */
void fuzz_waits(void)
{
    if (++waits > WAITS_MAX)
        clock_test_advance(1ull << (waits < 60 ? waits / 2 + 10 : 40));
    if (waits > 1000)
        fail("a wait", "has no end");
}

/* ---- what it may not do ------------------------------------------------------ */

#define REFUSED(name, ...)                                                    \
    int __wrap_##name(__VA_ARGS__);                                           \
    int __wrap_##name(__VA_ARGS__)                                            \
    {                                                                         \
        errno = EACCES;                                                       \
        return -1;                                                            \
    }
REFUSED(pidfd_send_signal, int fd __attribute__((unused)),
        int n __attribute__((unused)), void *i __attribute__((unused)),
        unsigned f __attribute__((unused)))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char report[300] = "";

    if (size < 2)
        return 0;
    if (lua == NULL)
        build();
    workers_begin(segment);
    waits = 0;
    if ((data[0] & 1) == 0) {
        (void)luaJIT_setmode(lua, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_ON);
        (void)lua_sethook(lua, NULL, 0, 0);
    } else {
        (void)luaJIT_setmode(lua, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
        (void)lua_sethook(lua, on_line, LUA_MASKLINE, 0);
    }
    lua_getglobal(lua, "fuzz");
    lua_pushlstring(lua, (const char *)data + 1, size - 1);
    if (lua_pcall(lua, 1, 0, 0) != 0)
        fail("fuzz", lua_tostring(lua, -1));
    if (shd_segment_check(segment, report, sizeof(report)) != SHD_OK)
        fail("check", report);
    workers_end();
    return 0;
}
