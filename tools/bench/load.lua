-- SPDX-License-Identifier: BSD-2-Clause
-- load.lua - the workloads of load.c as a worker of nginx runs them, on one of
-- nginx's own zones (`ngx`) or on a dict of shdict (`shdict`). The same loop,
-- the same keys, made before; LuaJIT compiles both. Loaded once for each: LuaJIT
-- would have one trace for both, and the second to come would leave it at once.

local ffi = require "ffi"
if not pcall(ffi.typeof, "struct bench_time") then
    ffi.cdef [[
    struct bench_time { long s, ns; };
    int clock_gettime(int id, struct bench_time *t);
    ]]
end

local M = {}
local time = ffi.new("struct bench_time")

local function clock_ns(id)
    ffi.C.clock_gettime(id, time)
    return tonumber(time.s) * 1e9 + tonumber(time.ns)
end

local function now_ns()
    return clock_ns(1) -- CLOCK_MONOTONIC
end

local keys = {}
local prepared = 0

local function prepare(n)
    for i = prepared + 1, n do
        keys[i] = "key:" .. (i - 1)
    end
    prepared = math.max(prepared, n)
end

-- Numbers in a fixed order that looks like none: an LCG of full period.
local function sequence(n, seed)
    local state = seed
    return function()
        state = (state * 1103515245 + 12345) % 2147483648
        return math.floor(state / 2147483648 * n) + 1
    end
end

-- As many indices as the loop takes in turn: what picking costs is a load.
local PICKS = 65536
local picks, picked = ffi.new("int32_t[?]", PICKS), nil

local function choose(n, seed)
    local id = n .. ":" .. seed
    if picked == id then
        return
    end
    local pick = sequence(n, seed)
    for i = 0, PICKS - 1 do
        picks[i] = pick()
    end
    picked = id
end

-- A process maps a page when it first touches it, which would be what is
-- measured: all keys are read once in each worker before.
local warmed = {}

local function warm(dict, n)
    if warmed[dict] == n then
        return
    end
    for i = 1, n do
        dict:get(keys[i])
    end
    warmed[dict] = n
end

local value

local calls = {}

function calls.get(dict, i)
    return dict:get(keys[picks[i]])
end

function calls.set(dict, i)
    return dict:set(keys[picks[i]], value)
end

function calls.incr1(dict)
    return dict:incr("counter", 1, 0)
end

function calls.incr(dict, i)
    return dict:incr(keys[picks[i] % 1000 + 1] .. "s", 1, 0)
end

function calls.mix95(dict, i)
    if i % 20 == 0 then
        return dict:set(keys[picks[i]], value)
    end
    return dict:get(keys[picks[i]])
end

function calls.mix50(dict, i)
    if i % 2 == 0 then
        return dict:set(keys[picks[i]], value)
    end
    return dict:get(keys[picks[i]])
end

function M.fill(dict, n, bytes)
    value = string.rep("v", bytes)
    prepare(n)
    for i = 1, n do
        local ok, err = dict:set(keys[i], value)
        if not ok then
            return nil, err
        end
    end
    return true
end

-- A loop of its own for each operation, so that each is a trace of its own.
local loops = {}
for name in pairs(calls) do
    loops[name] = assert(loadstring([[
        local dict, call, from, now_ns, gap, into, n = ...
        for i = from, from + 30 do
            call(dict, i % 65536)
        end
        local a = now_ns()
        call(dict, (from + 31) % 65536)
        into[n] = now_ns() - a - gap
    ]], name))
end

local function percentile(sorted, n, share)
    return sorted[math.max(1, math.ceil(n * share))]
end

-- Waits until `start` (ns of the monotonic clock), works for `ms`.
function M.run(dict, op, n, bytes, start, ms, seed)
    local loop, call = loops[op], calls[op]
    if not loop then
        return nil
    end
    value = string.rep("v", bytes)
    prepare(n)
    choose(n, seed)
    warm(dict, n)
    local timed, count, gap = {}, 0, 1e9
    for _ = 1, 2000 do
        local a = now_ns()
        gap = math.min(gap, now_ns() - a)
    end
    for i = 1, 2000 do -- compiled before it counts
        loop(dict, call, i * 32, now_ns, gap, timed, 1)
    end
    repeat
        local left = start - now_ns()
    until left <= 0
    local from, cpu, at = now_ns(), clock_ns(3), 0 -- THREAD_CPUTIME_ID
    local stop = from + ms * 1e6
    repeat
        count = count + 1
        loop(dict, call, at, now_ns, gap, timed, count)
        at = at + 32
    until now_ns() >= stop
    local ns = now_ns() - from
    cpu = clock_ns(3) - cpu
    table.sort(timed)
    local text = {}
    for _, share in ipairs { 0.5, 0.9, 0.99, 0.999, 0.9999, 1 } do
        text[#text + 1] = string.format("%.0f",
                                        percentile(timed, count, share))
    end
    return string.format("%d %.0f %.1f %s", count * 32, ns,
                         cpu / (count * 32), table.concat(text, " "))
end

return M
