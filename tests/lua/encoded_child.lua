-- SPDX-License-Identifier: BSD-2-Clause
-- encoded_child.lua NAME MISSING... - for beyond_spec: stores and reads tables
-- as in a LuaJIT that has none of those modules, and prints what it gets.

for i = 2, #arg do
    package.loaded[arg[i]] = nil
    package.preload[arg[i]] = function()
        error("no module '" .. arg[i] .. "'")
    end
end

local shdict = require "shdict"
local d = assert(assert(shdict.open(arg[1])):dict("d"))

local function show(...)
    local words = {}
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        if type(value) == "table" then
            value = "{" .. tostring(value.a) .. "," .. tostring(value[1]) .. "}"
        end
        words[i] = tostring(value)
    end
    print(table.concat(words, " "))
end

show(d:set_encoded("mine", { a = 5 }))
show(d:get_decoded("mine"))
show(d:get_decoded("theirs"))
