-- SPDX-License-Identifier: BSD-2-Clause
-- The hot methods are compiled: LuaJIT, asked to tell (-jv), makes traces of
-- a loop over each and gives up on none; and they allocate nothing but the
-- strings they return.

package.path = (debug.getinfo(1, "S").source:match("^@(.*/)") or "./")
    .. "?.lua;" .. package.path

local support = require "support"

local CALLS = 20000
local CALLS_MEMORY = 1000000

-- Runs a loop; the bytes it took, and what LuaJIT told of its traces.
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
    local bytes = tonumber(said:match("^(%-?%d+) %S+\n$"))
    assert.is_number(bytes, said)
    return bytes, trace
end

-- The first line by which LuaJIT gave up on something on the way through the
-- loop ("[TRACE --- where -- why]"), or left the trace to call something that
-- is not compiled ("stitch"); and whether it compiled the loop itself. That a
-- recording began inside a function and ran out into the loop around it is no
-- failure of the function: the loop's own recording follows, and has to be
-- seen.
local BEGAN_INSIDE = "leaving loop in root trace at jit_loop.lua"

local function judge(trace)
    local compiled = false
    local gave_up
    for line in trace:gmatch("[^\n]+") do
        if line:find("stitch", 1, true)
            or (line:find("^%[TRACE %-%-%-")
                and not line:find(BEGAN_INSIDE, 1, true)) then
            gave_up = gave_up or line
        elseif line:find("^%[TRACE%s+%d+ jit_loop.lua:%d+ loop%]") then
            compiled = true
        end
    end
    return compiled, gave_up
end

local LOOPS = {
    "get_number", "get_string", "get_boolean", "get_missing", "get_stale",
    "get_number_key", "set_number", "set_string", "set_boolean", "safe_set",
    "add", "safe_add", "replace", "delete", "incr", "incr_init", "ttl",
    "expire", "llen", "lpush_lpop", "rpush_rpop", "capacity", "mixed"
}

describe("compiled by LuaJIT:", function()
    after_each(support.clean)

    for _, loop in ipairs(LOOPS) do
        it(loop, function()
            local _, trace = run(loop, CALLS)
            local compiled, gave_up = judge(trace)
            assert.is_nil(gave_up)
            assert.is_true(compiled, trace)
            assert.is_nil(trace:find("NYI", 1, true))
        end)
    end

    it("a closure in a loop is not, and this is seen", function()
        local _, trace = run("control_not_compiled", CALLS)
        local compiled, gave_up = judge(trace)
        assert.is_false(compiled)
        assert.matches("NYI", gave_up)
    end)
end)

describe("allocates nothing:", function()
    after_each(support.clean)

    for _, loop in ipairs { "get_number", "get_boolean", "get_missing",
                            "set_number", "incr", "incr_init", "ttl",
                            "delete", "llen", "lpush_lpop" } do
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
