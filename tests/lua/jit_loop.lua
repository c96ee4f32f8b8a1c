-- SPDX-License-Identifier: BSD-2-Clause
-- jit_loop.lua NAME LOOP CALLS - for jit_spec: runs one of the loops below on
-- a dict of the segment NAME, and prints
--   the bytes of Lua memory it took, with the collector stopped,
--   the nanoseconds a call took,
--   the per cent of LuaJIT's profiler's samples that found it in compiled code
-- The first rounds, in which LuaJIT makes its traces, do not count.

jit.off() -- the traces of what happens once are not what is asked

local ffi = require "ffi"
local shdict = require "shdict"

ffi.cdef [[
struct loop_timespec { long sec; long nsec; };
int clock_gettime(int clock, struct loop_timespec *t);
]]
local time = ffi.new("struct loop_timespec")
local function now_ns()
    ffi.C.clock_gettime(1, time)
    return tonumber(time.sec) * 1e9 + tonumber(time.nsec)
end

-- Hot counters are shared by address: it may be found hot at its first call.
jit.off(now_ns)

local name, what, calls = arg[1], arg[2], tonumber(arg[3])
local segment = assert(shdict.open(name))
local d = assert(segment:dict("jit", { capacity = "4m" }))
d:set("s", ("v"):rep(100))
d:set("n", 5)
d:set("b", true, 0, 3)
d:set("r", 1)

local loops = {}

function loops.get_number(n)
    local sum = 0
    for _ = 1, n do
        sum = sum + d:get("n")
    end
    assert(sum == 5 * n)
end

function loops.get_string(n)
    local bytes = 0
    for _ = 1, n do
        bytes = bytes + #d:get("s")
    end
    assert(bytes == 100 * n)
end

function loops.get_boolean(n)
    local flags_sum = 0
    for _ = 1, n do
        local value, flags = d:get("b")
        if value then
            flags_sum = flags_sum + flags
        end
    end
    assert(flags_sum == 3 * n)
end

function loops.get_missing(n)
    local missing = 0
    for _ = 1, n do
        if d:get("nothing") == nil then
            missing = missing + 1
        end
    end
    assert(missing == n)
end

function loops.get_stale(n)
    local fresh = 0
    for _ = 1, n do
        local _, _, stale = d:get_stale("n")
        if not stale then
            fresh = fresh + 1
        end
    end
    assert(fresh == n)
end

function loops.get_number_key(n)
    local missing = 0
    for i = 1, n do
        if d:get(i) == nil then
            missing = missing + 1
        end
    end
    assert(missing == n)
end

function loops.set_number(n)
    for i = 1, n do
        d:set("x", i)
    end
    assert(d:get("x") == n)
end

function loops.set_string(n)
    for _ = 1, n do
        d:set("y", "a value", 60, 1)
    end
    assert(d:get("y") == "a value")
end

function loops.set_boolean(n)
    for i = 1, n do
        d:set("z", i % 2 == 0)
    end
end

function loops.safe_set(n)
    for i = 1, n do
        d:safe_set("x", i, 10)
    end
end

function loops.add(n)
    local refused = 0
    for _ = 1, n do
        if not d:add("n", 1) then
            refused = refused + 1
        end
    end
    assert(refused == n)
end

function loops.safe_add(n)
    local refused = 0
    for _ = 1, n do
        if not d:safe_add("n", 1) then
            refused = refused + 1
        end
    end
    assert(refused == n)
end

function loops.replace(n)
    for i = 1, n do
        d:replace("r", i)
    end
    assert(d:get("r") == n)
end

function loops.delete(n)
    for _ = 1, n do
        d:delete("x")
    end
end

function loops.incr(n)
    d:set("c", 0)
    for _ = 1, n do
        d:incr("c", 1)
    end
    assert(d:get("c") == n)
end

function loops.incr_init(n)
    d:delete("ci")
    for _ = 1, n do
        d:incr("ci", 1, 0, 60)
    end
    assert(d:get("ci") == n)
end

function loops.ttl(n)
    local sum = 0
    for _ = 1, n do
        sum = sum + d:ttl("n")
    end
    assert(sum == 0)
end

function loops.expire(n)
    for _ = 1, n do
        d:expire("r", 100)
    end
end

function loops.llen(n)
    local sum = 0
    for _ = 1, n do
        sum = sum + d:llen("nothing")
    end
    assert(sum == 0)
end

function loops.lpush_lpop(n)
    for i = 1, n do
        d:lpush("l", i)
        d:lpop("l")
    end
    assert(d:llen("l") == 0)
end

function loops.rpush_rpop(n)
    for _ = 1, n do
        d:rpush("l", "job")
        d:rpop("l")
    end
    assert(d:llen("l") == 0)
end

function loops.capacity(n)
    local sum = 0
    for _ = 1, n do
        sum = sum + d:capacity()
    end
    assert(sum == n * 4194304)
end

function loops.cas(n)
    d:set("cas", 0)
    for i = 1, n do
        d:cas("cas", i - 1, i)
    end
    assert(d:get("cas") == n)
end

function loops.cas_string(n)
    d:set("cas", "a")
    local changed = 0
    for _ = 1, n do
        if not d:cas("cas", "b", "c") then
            changed = changed + 1
        end
    end
    assert(changed == n)
end

function loops.versioned(n)
    d:set("ver", 0)
    for _ = 1, n do
        local value, _, version = d:get_versioned("ver")
        d:set_versioned("ver", value + 1, version)
    end
    assert(d:get("ver") == n)
end

function loops.set_pop(n)
    local sum = 0
    for i = 1, n do
        d:set("pop", i)
        sum = sum + d:pop("pop")
    end
    assert(sum == n * (n + 1) / 2)
end

function loops.touch(n)
    for _ = 1, n do
        d:touch("n", 60)
        d:touch("n")
    end
end

function loops.append(n)
    local length = 0
    for i = 1, n do
        if i % 100 == 1 then
            d:delete("append")
        end
        length = d:append("append", "x", "")
    end
    assert(length == 100)
end

function loops.push_expire(n)
    for i = 1, n do
        d:lpush_expire("le", i, 60)
        d:lpop("le")
    end
end

local keys = { "n", "s", "b", "nothing", "n", "n", "b", "r" }
local numbers = { "n", "b", "nothing", "n", "n", "b", "r" }
local results, flags = {}, {}

function loops.get_multi(n)
    local bytes = 0
    for _ = 1, n do
        bytes = bytes + #d:get_multi(keys, results)[2]
    end
    assert(bytes == 100 * n)
end

function loops.get_multi_numbers(n)
    local sum = 0
    for _ = 1, n do
        d:get_multi(numbers, results, flags)
        sum = sum + results[1] + flags[2]
    end
    assert(sum == 8 * n)
end

local stored = { 5, "a string", true }
local stored_keys = { "m1", "m2", "m3" }

function loops.set_multi(n)
    for _ = 1, n do
        d:set_multi(stored_keys, stored, 60)
    end
    assert(d:get("m2") == "a string")
end

local room = ffi.new("uint8_t[200]")

function loops.get_buf(n)
    local bytes = 0
    for _ = 1, n do
        bytes = bytes + d:get_buf("s", room, 200)
    end
    assert(bytes == 100 * n)
end

local has_buffer, string_buffer = pcall(require, "string.buffer")
local into = has_buffer and string_buffer.new()

function loops.get_string_buffer(n)
    local bytes = 0
    for _ = 1, n do
        into:reset()
        bytes = bytes + d:get_buf("s", into)
    end
    assert(bytes == 100 * n and #into == 100)
end

-- Types, hits and misses in turn, as a program has them.
function loops.mixed(n)
    local keys = { "n", "s", "b", "nothing", "n" }
    local kinds = { number = 0, string = 0, boolean = 0, ["nil"] = 0 }
    for i = 1, n do
        local kind = type((d:get(keys[i % 5 + 1])))
        kinds[kind] = kinds[kind] + 1
    end
    assert(kinds.number == 2 * n / 5 and kinds["nil"] == n / 5)
end

-- Controls: what the spec must see as not compiled, and as allocating.

function loops.control_not_compiled(n)
    for _ = 1, n do
        local f = function()
            return n
        end
        f()
    end
end

function loops.control_allocates(n)
    local kept
    for i = 1, n do
        kept = { i }
    end
    assert(kept[1] == n)
end

local WARM_CALLS = 20000

jit.on()
loops[what](WARM_CALLS)
loops[what](WARM_CALLS)
collectgarbage()
collectgarbage("stop")
local before = collectgarbage("count")
local start = now_ns()
loops[what](calls)
local took = now_ns() - start
local bytes = (collectgarbage("count") - before) * 1024
collectgarbage("restart")

-- From here on the rounds themselves are left to the interpreter, which is
-- where the profiler hands out its samples; -jv has told what it is asked.
require("jit.v").off()
jit.off(true)
local SAMPLES = 50
local DEADLINE_NS = 10e9
local compiled, samples = 0, 0
require("jit.profile").start("i1", function(_, taken, state)
    samples = samples + taken
    if state == "N" then
        compiled = compiled + taken
    end
end)
repeat
    loops[what](WARM_CALLS)
until samples >= SAMPLES or now_ns() - start > DEADLINE_NS
require("jit.profile").stop()

print(("%d %.1f %.0f"):format(bytes, took / calls,
                              100 * compiled / samples))
