-- SPDX-License-Identifier: BSD-2-Clause
-- items.lua - how many items fit into a dict before the first is removed to
-- make room. Uses only what ours and ngx.shared.DICT have in common.
local items = {}

items.loads = { "fixed", "mix", "even" }
items.sizes = { "1m", "16m", "64m" }
items.says = {
    fixed = "values of 32 bytes",
    mix = "values of 8 to 2000 bytes, each doubling as likely",
    even = "values of 8 to 2000 bytes, each length as likely",
}

-- Lengths of values: the same sequence each time.
local function lengths(load)
    local state = 20261121
    return function()
        state = state * 16807 % 2147483647
        local u = state / 2147483647
        if load == "fixed" then return 32 end
        if load == "mix" then return math.floor(8 * 250 ^ u + 0.5) end
        return 8 + math.floor(u * 1993)
    end
end

local bytes = string.rep("v", 2001)

-- The number of items with keys of 16 bytes, and the sum of their lengths.
function items.count(dict, load)
    local length, n, sum = lengths(load), 0, 0
    while true do
        local len = length()
        local ok, err, forcible =
            dict:set(string.format("key:%012d", n), bytes:sub(1, len))
        if not ok or forcible then return n, sum, err end
        n, sum = n + 1, sum + 16 + len
    end
end

return items
