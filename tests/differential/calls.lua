-- SPDX-License-Identifier: BSD-2-Clause
-- calls.lua - the calls of one world, made from its seed alone: none depends
-- on what another call answered, so that any part of them can be run again.
--
-- A call is { m = method, style = 1..3, n = arguments, [1..n] = arguments,
-- self = what stands for the dict, nil for the dict itself }, or
-- { m = "advance", ms }, or { m = "refloor" } (see differential.lua).

local ffi = require "ffi"

local calls = {}

-- A small generator of our own: the same numbers in every LuaJIT.
local Random = {}
Random.__index = Random

function Random.new(seed)
    local r = setmetatable({ x = (seed * 2654435 + 12345) % 2147483647 },
                           Random)
    if r.x == 0 then
        r.x = 1
    end
    for _ = 1, 8 do
        r:below(2)
    end
    return r
end

-- Park and Miller's; all products are below 2^53.
function Random:below(n)
    self.x = self.x * 48271 % 2147483647
    return math.floor(self.x / 2147483647 * n)
end

function Random:one_in(n)
    return self:below(n) == 0
end

function Random:of(list)
    return list[1 + self:below(list.n or #list)]
end

local function shown_as(text)
    return setmetatable({}, { __tostring = function()
        return text
    end, __name = "table with a __tostring" })
end

local LONGEST = ("k"):rep(65535)
local NAN, INF = 0 / 0, 1 / 0

local KEYS = { "", "a\0b", "a\0c", "\0", ("x"):rep(200), 12, "12", 1.5, -0.0,
               1e100, INF, NAN, true, false, shown_as("shown"), 12LL, "12LL",
               ngx and ngx.null or print, ("l"):rep(3000) }
local BAD_KEYS = { n = 7, nil, "", LONGEST .. "k", shown_as(""), shown_as(5),
                   shown_as({}),
                   setmetatable({}, { __tostring = function()
                       error("no name", 0)
                   end }) }
local ODD = { n = 21, nil, true, false, {}, print, "5", "x", "", "0x10", 0, -1,
              -0.0001, NAN, INF, -INF, 5LL, -5LL, 7ULL, 1e300,
              ffi.cast("void *", 8), shown_as("3") }
local VALUES = { n = 16, nil, true, false, 0, 1, -1, 1.5, 2 ^ 53, -0.0, NAN,
                 INF, "", "12", "a\0b\255", 5e-324, -1e308 }
local BAD_VALUES = { {}, print, 5LL, shown_as("v"),
                     coroutine.create(function() end),
                     ngx and ngx.null or print }
local TTLS = { n = 18, nil, nil, nil, nil, false, 0, 0.0004, 0.001, 0.001,
               0.002, 0.003, 0.005, 0.010, 0.030, 0.1, 1, 100, 31536000 }
local ODD_TTLS = { n = 14, -1, -0.0001, -INF, NAN, INF, 1e17, "5", true, {},
                   5LL, 3e11, 1e12, 8e12, ffi.cast("void *", 8) }
local FLAGS = { n = 9, nil, nil, nil, false, 0, 1, 7, -3, 2147483647 }
local ODD_FLAGS = { 3.9, -3.9, -2147483648, 2 ^ 31, 2 ^ 40 + 5, NAN, INF, 1e300,
                    true, "1", {}, 6LL, print }
local MAXES = { 0, 1, 2, 3, 5, 100, -1, 2.9, "3", 0.5, 1024 }
local ODD_MAXES = { n = 12, nil, "x", true, {}, NAN, INF, 1e300, 2 ^ 31,
                    2 ^ 32 + 1, -2 ^ 31, 5LL, "" }
local STEPS = { 1, 1, 1, 2, 3, 5, 9, 10, 11, 30, 100, 1000, 100000 }
local SELVES = { n = 9, nil, {}, "d", 1, true, { {} }, { 1 }, { "z" }, "other" }

local WEIGHTS = {
    get = 140, get_stale = 80, set = 140, safe_set = 50, add = 60,
    safe_add = 40, replace = 50, delete = 40, incr = 90, lpush = 40,
    rpush = 40, lpop = 40, rpop = 40, llen = 30, ttl = 60, expire = 50,
    flush_all = 1, flush_expired = 5, get_keys = 7, capacity = 3,
    free_space = 3, advance = 45
}
local BY_WEIGHT = {}
local METHODS = {}
for m in pairs(WEIGHTS) do
    METHODS[#METHODS + 1] = m
end
table.sort(METHODS)
for _, m in ipairs(METHODS) do
    for _ = 1, WEIGHTS[m] do
        BY_WEIGHT[#BY_WEIGHT + 1] = m
    end
end
calls.methods = {}
for _, m in ipairs(METHODS) do
    if m ~= "advance" then
        calls.methods[#calls.methods + 1] = m
    end
end

local STORES = { set = true, safe_set = true, add = true, safe_add = true,
                 replace = true }
local LISTS = { lpush = 3, rpush = 3, lpop = 2, rpop = 2, llen = 2 }

local function key_of(r, world)
    if r:one_in(40) then
        return r:of(BAD_KEYS)
    elseif r:one_in(200) then
        return LONGEST
    elseif r:one_in(12) then
        local key = r:of(KEYS)
        return key
    end
    return "key" .. r:below(world.keys)
end

local function text_of(r, world)
    local longest = world.value_max
    if world.small and r:one_in(300) then
        return ("h"):rep(world.capacity)
    end
    if not world.small then
        longest = r:one_in(300) and 100000 or r:one_in(10) and 5000 or 100
    end
    return string.char(97 + r:below(26)):rep(r:below(longest + 1))
end

local function value_of(r, world)
    if r:one_in(40) then
        return r:of(BAD_VALUES)
    elseif r:one_in(3) then
        return r:of(VALUES)
    elseif r:one_in(3) then
        return r:below(1000)
    end
    return text_of(r, world)
end

local function ttl_of(r)
    if r:one_in(40) then
        return r:of(ODD_TTLS)
    end
    return r:of(TTLS)
end

local function number_of(r)
    if r:one_in(20) then
        return r:of(ODD)
    end
    return r:below(20) - 10
end

local function arguments(r, world, m)
    if STORES[m] then
        local flags = r:one_in(30) and r:of(ODD_FLAGS) or r:of(FLAGS)
        local n = 1 + r:below(4)
        return n < 2 and r:below(4) > 0 and 2 or n, key_of(r, world),
               value_of(r, world), ttl_of(r), flags
    elseif m == "incr" then
        local init = r:one_in(2) and number_of(r) or nil
        local init_ttl
        if init ~= nil and r:one_in(2) or r:one_in(40) then
            init_ttl = ttl_of(r)
        end
        return 4, key_of(r, world), number_of(r), init, init_ttl
    elseif m == "expire" then
        local ttl = r:one_in(30) and r:of(ODD) or ttl_of(r)
        return 2, key_of(r, world),
               ttl == nil and not r:one_in(10) and 0 or ttl
    elseif m == "lpush" or m == "rpush" then
        local value = r:one_in(4) and value_of(r, world)
            or r:one_in(2) and r:below(100)
            or text_of(r, world)
        return 2, key_of(r, world), value
    elseif m == "flush_expired" or m == "get_keys" then
        if r:one_in(3) then
            return 0
        end
        return 1, r:one_in(3) and r:of(ODD_MAXES) or r:of(MAXES)
    elseif m == "flush_all" or m == "capacity" or m == "free_space" then
        return 0
    end
    return 1, key_of(r, world)
end

local function packed(n, ...)
    return { n = n, ... }
end

local function one(r, world)
    local m = BY_WEIGHT[1 + r:below(#BY_WEIGHT)]
    if m == "advance" then
        return { m = m, n = 1, r:of(STEPS) }
    end
    local c = packed(arguments(r, world, m))
    c.m = m
    -- Trailing ones that are not counted would be seen by a replay.
    for i = c.n + 1, 4 do
        c[i] = nil
    end
    c.style = 1 + r:below(3)
    if r:one_in(60) then -- missing or more arguments
        c.n = r:below(6)
        for i = c.n + 1, 4 do
            c[i] = nil
        end
    end
    if r:one_in(150) then
        c.odd_self = true
        c.self = r:of(SELVES)
        if c.style == 2 then -- of what can have no methods
            c.style = 3
        end
    end
    return c
end

-- Bytes of the zones in run's nginx.conf.
calls.capacity = { large = 16777216, small32 = 32768, small128 = 131072,
                   small512 = 524288 }

-- What kind of world a seed makes: three of four have room for all, and there
-- every answer has to be the same; in the fourth there is eviction.
function calls.world(seed)
    local kind = seed % 4
    local interpreted = math.floor(seed / 12) % 4 == 1
    local r = Random.new(seed)
    local world = {
        seed = seed, interpreted = interpreted,
        kind = ({ [0] = "exact", "exact", "sweeping", "evicting" })[kind]
    }
    if kind == 3 then
        local size = 1 + math.floor(seed / 4) % 3
        world.small = true
        world.zone = ({ "small32", "small128", "small512" })[size]
        world.keys = ({ 60, 150, 400 })[size]
        world.value_max = ({ 300, 1500, 4096 })[size]
    else
        world.zone = "large"
        world.keys = 6 + r:below(24)
        world.sharded = math.floor(seed / 4) % 4 == 0
        world.floored = kind < 2
    end
    world.capacity = calls.capacity[world.zone]
    return world
end

function calls.make(world, count)
    local r = Random.new(world.seed * 7 + 1)
    local list = {}
    local refloor_at
    for i = 1, count do
        list[i] = one(r, world)
        -- What follows a flush_all is looked at for some calls.
        if world.floored and list[i].m == "flush_all" then
            refloor_at = i + 1 + r:below(40)
        elseif i == refloor_at then
            list[i] = { m = "refloor", n = 0 }
        end
    end
    return list
end

-- ---- calls as text, for a replay that people read -------------------------

local function literal(v)
    local t = type(v)
    if t == "string" then
        if #v > 80 and v == v:sub(1, 1):rep(#v) then
            return ("(%q):rep(%d)"):format(v:sub(1, 1), #v)
        elseif #v > 80 then
            return ("%q..(%d bytes)"):format(v:sub(1, 20), #v)
        end
        return (("%q"):format(v):gsub("\n", "n"):gsub("%z", "\\0"))
    elseif t == "number" then
        return ("%.17g"):format(v)
    elseif t == "table" then
        local mt = getmetatable(v)
        return mt and mt.__name and "(a " .. mt.__name .. ")" or "{...}"
    end
    return tostring(v)
end
calls.literal = literal

function calls.text(c)
    if c.m == "advance" then
        return ("advance %d ms"):format(c[1])
    elseif c.m == "refloor" then
        return "delete every key; flush_expired; d:set(\"floor\", 0)"
    end
    local words = {}
    for i = 1, c.n do
        words[i] = literal(c[i])
    end
    local list = table.concat(words, ", ")
    local comma = c.n > 0 and ", " or ""
    if c.odd_self then
        local self = c.self == "other" and "the other dict" or literal(c.self)
        if c.style == 1 then
            return ("pcall(d.%s, %s%s%s)"):format(c.m, self, comma, list)
        end
        return ("d.%s(%s%s%s)"):format(c.m, self, comma, list)
    elseif c.style == 1 then
        return ("pcall(d.%s, d%s%s)"):format(c.m, comma, list)
    elseif c.style == 2 then
        return ("d:%s(%s)"):format(c.m, list)
    end
    return ("d.%s(d%s%s)"):format(c.m, comma, list)
end

-- ---- making them ----------------------------------------------------------

local function pack(...)
    return { n = select("#", ...), ... }
end

local function finish(ok, result, ...)
    if ok then
        return result
    end
    return { n = 1, raised = true, tostring(result), ... }
end

-- Where the position of an error names one of the two libraries, and not the
-- program that called it, it says so alike for both.
local function plain(result)
    if result.raised then
        result[1] = result[1]
            :gsub("^[^%s:]*resty/core/shdict%.lua:%d+: ", "<library>: ")
            :gsub("^[^%s:]*shdict_dict%.lua:%d+: ", "<library>: ")
    end
    return result
end

-- A function for each method, number of arguments and style: what an error
-- says depends on how a method was called.
local compiled = {}
local PARAMETERS = { [0] = "", "a", "a, b", "a, b, c", "a, b, c, e",
                     "a, b, c, e, f", "a, b, c, e, f, g" }

local function caller(m, style, n)
    local name = m .. style .. n
    if not compiled[name] then
        local names = PARAMETERS[n]
        local comma = n > 0 and ", " or ""
        local call = style == 2 and ("d:%s(%s)"):format(m, names)
            or ("d.%s(self%s%s)"):format(m, comma, names)
        compiled[name] = assert(loadstring((
            "local pack = ...\n" ..
            "return function(d, self%s%s) return pack(%s) end")
            :format(comma, names, call), "=program"))(pack)
    end
    return compiled[name]
end

-- Makes the call on dict; `other` is the one of the other kind.
function calls.make_call(c, dict, other)
    local self = dict
    if c.odd_self then
        self = c.self
        if self == "other" then
            self = other
        end
    end
    if c.style == 1 then
        local n = c.n
        local function all(ok, ...)
            if ok then
                return pack(...)
            end
            return { n = 1, raised = true, tostring((...)) }
        end
        return plain(all(pcall(dict[c.m], self, unpack(c, 1, n))))
    end
    return plain(finish(pcall(caller(c.m, c.style, c.n), dict, self,
                              unpack(c, 1, c.n))))
end

return calls
