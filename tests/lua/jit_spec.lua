-- SPDX-License-Identifier: BSD-2-Clause
-- The hot methods are compiled: LuaJIT, asked to tell (-jv), makes traces of
-- a loop over each and gives up on none; and they allocate nothing but the
-- strings they return.

package.path = (debug.getinfo(1, "S").source:match("^@(.*/)") or "./")
    .. "?.lua;" .. package.path

local support = require "support"

local CALLS = 20000
local CALLS_MEMORY = 1000000

-- Runs a loop; the bytes it took, the share of its time it was in compiled
-- code, and what LuaJIT told of its traces.
local function run(loop, calls)
    local told = os.tmpname()
    local child = io.popen(support.luajit("-jv=" .. told, "jit_loop.lua",
                                          support.name(), loop, calls)
                           .. " 2>&1")
    local said = child:read("*a")
    child:close()
    local file = assert(io.open(told))
    local trace = file:read("*a")
    file:close()
    os.remove(told)
    local bytes, share = said:match("^(%-?%d+) %S+ (%d+)\n$")
    assert.is_string(bytes, said)
    return tonumber(bytes), tonumber(share), trace
end

-- Recordings that were given up for where they began: inside a function that
-- became hot before the loop that calls it. No failure of the function: the
-- next one begins at the loop, and the time spent in compiled code tells.
local BEGAN_INSIDE = {
    "leaving loop in root trace", "loop unroll limit reached",
    "inner loop in root trace"
}

local function began_inside(line)
    for _, why in ipairs(BEGAN_INSIDE) do
        if line:find("-- " .. why, 1, true) then
            return true
        end
    end
    return false
end

-- The first line by which LuaJIT gave up on something on the way through the
-- loop ("[TRACE --- where -- why]"), or left the trace to call something that
-- is not compiled ("stitch"); and the number of traces it made.
local function judge(trace)
    local made = 0
    local gave_up
    -- Of the module that tells all this, which may become hot too, nothing.
    for line in trace:gsub("[^\n]* v%.lua:[^\n]*", ""):gmatch("[^\n]+") do
        if line:find("stitch", 1, true)
            or (line:find("^%[TRACE %-%-%-") and not began_inside(line)) then
            gave_up = gave_up or line
        elseif line:find("^%[TRACE%s+%d+ ") then
            made = made + 1
        end
    end
    return made, gave_up
end

local LOOPS = {
    "get_number", "get_string", "get_boolean", "get_missing", "get_stale",
    "get_number_key", "set_number", "set_string", "set_boolean", "safe_set",
    "add", "safe_add", "replace", "delete", "incr", "incr_init", "ttl",
    "expire", "llen", "lpush_lpop", "rpush_rpop", "capacity", "mixed", "cas",
    "cas_string", "versioned", "set_pop", "touch", "append", "push_expire",
    "get_multi", "get_multi_numbers", "set_multi", "get_buf"
}
if pcall(require, "string.buffer") then
    LOOPS[#LOOPS + 1] = "get_string_buffer"
end

describe("compiled by LuaJIT:", function()
    after_each(support.clean)

    for _, loop in ipairs(LOOPS) do
        it(loop, function()
            local _, share, trace = run(loop, CALLS)
            local made, gave_up = judge(trace)
            assert.is_nil(gave_up)
            assert.is_true(made >= 1, trace)
            assert.is_nil(trace:find("NYI", 1, true))
            assert.is_true(share >= 90, share .. "%\n" .. trace)
        end)
    end

    it("a closure in a loop is not, and this is seen", function()
        local _, share, trace = run("control_not_compiled", CALLS)
        local _, gave_up = judge(trace)
        assert.matches("NYI", gave_up)
        assert.is_true(share < 50, share .. "%")
    end)
end)

describe("allocates nothing:", function()
    after_each(support.clean)

    for _, loop in ipairs { "get_number", "get_boolean", "get_missing",
                            "set_number", "incr", "incr_init", "ttl",
                            "delete", "llen", "lpush_lpop", "cas",
                            "versioned", "set_pop", "touch", "push_expire",
                            "get_multi_numbers", "set_multi", "get_buf" } do
        it(loop, function()
            local bytes = run(loop, CALLS_MEMORY)
            assert.is_true(math.abs(bytes) < 4096, bytes .. " bytes")
        end)
    end

    it("a table in a loop does, and this is seen", function()
        local bytes = run("control_allocates", CALLS_MEMORY)
        assert.is_true(bytes > CALLS_MEMORY)
    end)
end)
