-- SPDX-License-Identifier: BSD-2-Clause
-- readonly_child.lua NAME - for segment_spec: attaches to NAME read-only and
-- finds that every read works and every change is refused.

local shdict = require "shdict"
local segment = assert(shdict.open(arg[1], { readonly = true }))
local d = assert(segment:dict("d"))
local REFUSED = "the segment is attached read-only"

local function same(what, expected, ...)
    for i = 1, math.max(#expected, select("#", ...)) do
        local got = (select(i, ...))
        if got ~= expected[i] then
            error(("%s: result %d is %s, expected %s")
                  :format(what, i, tostring(got), tostring(expected[i])))
        end
    end
end

same("get", { "v", 5 }, d:get("s"))
same("get_stale", { "v", 5, false }, d:get_stale("s"))
same("get of a number", { 5 }, d:get("n"))
same("ttl", { 0 }, d:ttl("s"))
same("llen", { 1 }, d:llen("l"))
assert(#d:get_keys() == 4)
local cursor, page = d:scan(nil, 10)
assert(cursor == nil and #page == 4)
assert(segment:info().readonly == 1)
assert(#segment:workers() == 1)
assert(#segment:objects() == 1)
assert(segment:check())

for _, method in ipairs { "set", "safe_set", "add", "safe_add", "replace",
                          "delete" } do
    same(method, { false, REFUSED, false }, d[method](d, "s", "w"))
end
same("set to nil", { false, REFUSED, false }, d:set("s", nil))
same("incr", { nil, REFUSED }, d:incr("n", 1))
same("incr with init", { nil, REFUSED }, d:incr("new", 1, 0))
same("expire", { nil, REFUSED }, d:expire("s", 1))
same("lpush", { nil, REFUSED }, d:lpush("l", 1))
same("rpush", { nil, REFUSED }, d:rpush("l", 1))
same("lpop", { nil, REFUSED }, d:lpop("l"))
same("rpop", { nil, REFUSED }, d:rpop("l"))
same("get_multi", { "v", 5, nil },
     unpack(d:get_multi({ "s", "n", "none" }), 1, 3))
same("get_buf", { 1, 5 }, d:get_buf("s", require("ffi").new("char[9]"), 9))
same("get_versioned", { 7 }, (d:get_versioned("v")))
same("a first version", { nil, REFUSED }, d:get_versioned("s"))
same("cas", { false, REFUSED, false }, d:cas("s", "v", "w"))
same("set_versioned", { false, REFUSED, false }, d:set_versioned("new", 1))
same("delete_versioned", { false, REFUSED, false },
     d:delete_versioned("v", 1))
same("set_multi", { false, REFUSED, false },
     unpack({ d:set_multi({ "s" }, { 1 }) }, 1, 3))
same("pop", { nil, REFUSED }, d:pop("s"))
same("touch", { nil, REFUSED }, d:touch("s"))
same("append", { nil, REFUSED, false }, d:append("s", "more"))
same("lpush_expire", { nil, REFUSED }, d:lpush_expire("l", 1, 1))
same("set_encoded", { false, REFUSED, false }, d:set_encoded("s", {}))
same("flush_all", { nil, REFUSED }, d:flush_all())
same("flush_expired", { nil, REFUSED }, d:flush_expired())
for _, method in ipairs { "join", "reap" } do
    local value, err, code = segment[method](segment)
    assert(value == nil and code == "SHD_READONLY", method .. ": "
           .. tostring(err))
end
local new, _, code = segment:dict("other", { capacity = "64k" })
assert(new == nil and code == "SHD_READONLY", "dict: " .. tostring(code))
assert(not segment:destroy_dict("d"))
same("still there", { "v", 5 }, d:get("s"))
print("ok")
