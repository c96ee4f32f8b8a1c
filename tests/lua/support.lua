-- SPDX-License-Identifier: BSD-2-Clause
-- support.lua - what the specs share: segments of their own that are removed
-- again, sleeping, and children. The library is found by LUA_PATH; without
-- it, in build/ beside tests/.

local ffi = require "ffi"

ffi.cdef [[
int getpid(void);
int fork(void);
int waitpid(int pid, int *status, int options);
int kill(int pid, int signal);
void _exit(int status);
void *mmap(void *at, size_t size, int access, int flags, int fd, long offset);
int munmap(void *at, size_t size);
int poll(void *fds, unsigned long n, int timeout_ms);
int pipe(int fds[2]);
int close(int fd);
int dup(int fd);
long read(int fd, void *buf, size_t size);
long write(int fd, const void *buf, size_t size);
]]

local C = ffi.C
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"

if not package.searchpath("shdict", package.path) then
    package.path = here .. "../../build/lua/?.lua;" .. package.path
end

local support = { here = here, C = C }
local shdict = require "shdict"
local opened = {}
local count = 0

function support.name()
    count = count + 1
    local name = ("lua-spec-%d-%d"):format(C.getpid(), count)
    opened[#opened + 1] = name
    return name
end

-- A new segment; it is gone after support.clean().
function support.segment(options)
    local name = support.name()
    local segment = assert(shdict.open(name, options))
    return segment, name
end

function support.dict(options)
    local segment, name = support.segment()
    local dict = assert(segment:dict("d", options or { capacity = "1m" }))
    return dict, segment, name
end

function support.clean()
    for _, name in ipairs(opened) do
        shdict.destroy(name)
    end
    opened = {}
end

-- The clock counts whole milliseconds: sleep one longer than is said.
function support.sleep(seconds)
    local ms = math.ceil(seconds * 1000) + 1
    local until_ms = support.now_ms() + ms
    repeat
        -- Below 0, when the time has come meanwhile, would be for ever.
        C.poll(nil, 0, math.max(0, until_ms - support.now_ms()))
    until support.now_ms() >= until_ms
end

ffi.cdef [[
struct spec_timespec { long sec; long nsec; };
int clock_gettime(int clock, struct spec_timespec *t);
]]
local time = ffi.new("struct spec_timespec")

function support.now_ns()
    assert(C.clock_gettime(1, time) == 0)
    return tonumber(time.sec) * 1e9 + tonumber(time.nsec)
end

function support.now_ms()
    return math.floor(support.now_ns() / 1e6)
end

-- Runs f in a child; what it returns as a string, or raises, comes back. The
-- child ends by _exit, so that it runs no reporter of the parent's.
function support.in_child(f)
    local fds = ffi.new("int[2]")
    assert(C.pipe(fds) == 0)
    io.stdout:flush()
    local pid = C.fork()
    assert(pid >= 0)
    if pid == 0 then
        local ok, text = pcall(f)
        text = (ok and "" or "raised ") .. tostring(text)
        C.write(fds[1], text, #text)
        C._exit(0)
    end
    C.close(fds[1])
    local text = {}
    local buf = ffi.new("char[4096]")
    repeat
        local n = tonumber(C.read(fds[0], buf, 4096))
        if n > 0 then
            text[#text + 1] = ffi.string(buf, n)
        end
    until n <= 0
    C.close(fds[0])
    local status = ffi.new("int[1]")
    assert(C.waitpid(pid, status, 0) == pid)
    return table.concat(text), status[0]
end

-- The command that runs a script with the same LuaJIT and modules.
function support.luajit(options, script, ...)
    local words = {
        "LUA_PATH='" .. package.path .. "'",
        os.getenv("LUAJIT") or "luajit", options, here .. script
    }
    for i = 1, select("#", ...) do
        words[#words + 1] = "'" .. tostring((select(i, ...))) .. "'"
    end
    return table.concat(words, " ")
end

return support
