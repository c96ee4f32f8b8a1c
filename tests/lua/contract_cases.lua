-- SPDX-License-Identifier: BSD-2-Clause
-- contract_cases.lua - calls whose answers ngx.shared.DICT and a dict of ours
-- must give alike. record_original runs them in nginx and keeps what it
-- answered in original.lua; contract_spec.lua runs them here and compares.
--
-- A case is a name and a function of: the dict, emptied; `r`, which records
-- the values it is given; `try`, which records what a call gives or raises;
-- and sleep(seconds). Nothing in a case may depend on the time of day, on
-- bytes of overhead, or on the order of eviction.

local cases = {}

local function case(name, run)
    assert(not cases[name], name)
    cases[#cases + 1] = { name = name, run = run }
    cases[name] = true
end

local LONGEST = ("k"):rep(65535)
local NAN = 0 / 0
local INF = 1 / 0
local SETS = { "set", "safe_set", "add", "safe_add", "replace" }
local BY_KEY = {
    "get", "get_stale", "set", "safe_set", "add", "safe_add", "replace",
    "delete", "incr", "ttl", "expire"
}

-- A call of any of them whose other arguments are in order.
local function call(d, method, key)
    if method == "incr" or method == "expire" then
        return d[method](d, key, 1)
    end
    return d[method](d, key, "v")
end

-- ---- keys ----------------------------------------------------------------

for _, method in ipairs(BY_KEY) do
    case(method .. ": keys that cannot be", function(d, r)
        r(call(d, method, nil))
        r(call(d, method, ""))
        r(call(d, method, LONGEST .. "k"))
    end)
    case(method .. ": the longest key", function(d, r)
        r(call(d, method, LONGEST))
        d:set(LONGEST, 7)
        r(call(d, method, LONGEST))
    end)
end

case("keys go through tostring", function(d, r)
    local object = setmetatable({}, { __tostring = function()
        return "shown"
    end })
    local empty = setmetatable({}, { __tostring = function()
        return ""
    end })
    r(d:set(12, "n"), d:get("12"))
    r(d:set(1.5, "f"), d:get("1.5"))
    r(d:set(1e100, "e"), d:get("1e+100"))
    r(d:set(-0.0, "z"), d:get("-0"), d:get("0"))
    r(d:set(true, "t"), d:get("true"))
    r(d:set(false, "no"), d:get("false"))
    r(d:set(object, "o"), d:get("shown"), d:get(object))
    r(d:set(empty, "o"))
    r(d:get(empty))
    r(d:incr(12.0, 1))
    r(d:ttl(12))
    r(d:expire(12, 0))
    r(d:delete(12))
    r(d:get("12"))
end)

case("keys may hold NUL bytes", function(d, r)
    r(d:set("a\0b", 1))
    r(d:set("a\0c", 2))
    r(d:set("a", 3))
    r(d:set("\0", 4))
    r(d:get("a\0b"))
    r(d:get("a\0c"))
    r(d:get("a"))
    r(d:get("\0"))
    r(d:delete("a\0b"))
    r(d:get("a\0b"))
    r(d:get("a\0c"))
end)

-- ---- self ----------------------------------------------------------------

for _, method in ipairs(BY_KEY) do
    case(method .. ": a wrong self", function(d, _, try)
        local f = d[method]
        try(f, nil, "k", 1)
        try(f, {}, "k", 1)
        try(f, "d", "k", 1)
        try(f, 1, "k", 1)
        try(f, { {} }, "k", 1)
        try(f, { 1 }, "k", 1)
    end)
end
for _, method in ipairs { "flush_all", "capacity", "free_space" } do
    case(method .. ": a wrong self", function(d, _, try)
        local f = d[method]
        try(f)
        try(f, {})
        try(f, "d")
    end)
end

case("the metatable is its own index", function(d, r)
    local mt = getmetatable(d)
    r(mt.__index == mt, type(d), type(d[1]) ~= "nil")
end)

-- ---- values --------------------------------------------------------------

case("values come back as they were", function(d, r)
    for _, v in ipairs { "s", "", "a\0b\255", "12", 0, 1, -1, 1.5, 2 ^ 53,
                         -2 ^ 53, 1e308, 5e-324, INF, -INF, true, false,
                         0.1, ("x"):rep(4095), ("y"):rep(4096),
                         ("z"):rep(4097), ("w"):rep(100000) } do
        r(d:set("k", v))
        local got = d:get("k")
        r(type(got), got == v)
        r(d:get_stale("k"))
    end
    r(d:set("k", NAN))
    local got = d:get("k")
    r(type(got), got ~= got)
end)

for _, method in ipairs(SETS) do
    case(method .. ": values of other types", function(d, r)
        d:set("there", 1)
        for _, key in ipairs { "there", "missing" } do
            r(d[method](d, key, {}))
            r(d[method](d, key, print))
            r(d[method](d, key, coroutine.create(print)))
            r(d:get(key))
        end
        r(d[method](d, nil, {}))
        r(d[method](d, "", {}))
    end)
    case(method .. ": nil values", function(d, r)
        d:set("there", 1)
        r(d[method](d, "there", nil))
        r(d:get("there"))
        r(d[method](d, "missing", nil))
        r(d:get("missing"))
        r(d[method](d, "missing"))
    end)
    case(method .. ": over each state of the key", function(d, r, _, sleep)
        d:set("expired", "old", 0.001, 3)
        sleep(0.01)
        d:set("live", "old", 100, 3)
        d:lpush("list", "x")
        for _, key in ipairs { "missing", "live", "list", "expired" } do
            r(d[method](d, key, "new"))
            r(d:get(key))
            r(d:get_stale(key))
            r(d:ttl(key) == 0)
        end
    end)
    case(method .. ": exptime", function(d, r, try, sleep)
        if method == "replace" then
            for i = 1, 9 do
                d:set("k" .. i, 0)
            end
        end
        try(d[method], d, "k1", 1, -1)
        try(d[method], d, "k1", 1, -0.0001)
        try(d[method], d, nil, 1, -1)
        try(d[method], d, "", 1, -1)
        try(d[method], d, "k1", 1, "5")
        try(d[method], d, "k1", 1, -INF)
        r(d:get("k1"))
        r(d[method](d, "k2", 1, nil), d:ttl("k2"))
        r(d[method](d, "k3", 1, false), d:ttl("k3"))
        r(d[method](d, "k4", 1, 0), d:ttl("k4"))
        r(d[method](d, "k5", 1, 0.0004), d:ttl("k5"))
        r(d[method](d, "k6", 1, 1000), d:ttl("k6") > 999)
        -- Long enough for a loaded machine to get to the next line.
        r(d[method](d, "k7", 1, 0.5))
        r(d:get("k7"))
        sleep(0.51)
        r(d:get("k7"))
        r(d:get_stale("k7"))
        r(d:ttl("k7") < 0)
    end)
    case(method .. ": flags", function(d, r, try)
        for i = 0, 9 do
            d:set("k" .. i, 0)
            if method:find("add") then
                d:delete("k" .. i)
            end
        end
        r(d[method](d, "k0", "v", 0, 1), d:get("k0"))
        r(d[method](d, "k1", "v", 0, -1), d:get("k1"))
        r(d[method](d, "k2", "v", 0, 0), d:get("k2"))
        r(d[method](d, "k3", "v", 0, false), d:get("k3"))
        r(d[method](d, "k4", "v", 0, 3.9), d:get("k4"))
        r(d[method](d, "k5", "v", 0, -3.9), d:get("k5"))
        r(d[method](d, "k6", "v", 0, 2147483647), d:get("k6"))
        r(d[method](d, "k7", "v", 0, -2147483648), d:get("k7"))
        try(d[method], d, "k8", "v", 0, "1")
        try(d[method], d, "k8", "v", 0, {})
        r(d:get("k8"))
        try(d[method], d, "k8", nil, 0, "1")
        try(d[method], d, "k8", nil, 0, print)
        r(d:get("k8"))
        r(d[method](d, "k9", 5, 0, 8), d:get("k9"))
        r(d:get_stale("k9"))
    end)
end

case("set: lists and numbers replace one another", function(d, r)
    r(d:lpush("k", 1))
    r(d:set("k", "s", 0, 4))
    r(d:get("k"))
    r(d:lpush("k", 1))
    r(d:set("k", true))
    r(d:get("k"))
    r(d:set("k", 2))
    r(d:incr("k", 1))
    r(d:llen("k"))
end)

-- ---- get, get_stale, delete ----------------------------------------------

case("get: what is not there", function(d, r, _, sleep)
    r(d:get("missing"))
    r(d:get_stale("missing"))
    d:set("expired", "v", 0.001)
    d:set("flagged", "v", 0.001, 9)
    d:set("number", 5, 0.001)
    d:set("truth", false, 0.001)
    sleep(0.01)
    for _, key in ipairs { "expired", "flagged", "number", "truth" } do
        r(d:get(key))
        r(d:get_stale(key))
        r(d:get_stale(key))
    end
end)

case("get: a list", function(d, r, _, sleep)
    d:lpush("list", "x")
    r(d:get("list"))
    r(d:get_stale("list"))
    r(d:expire("list", 0.001))
    sleep(0.01)
    r(d:get_stale("list"))
end)

case("get: more arguments are ignored", function(d, r)
    d:set("k", 1)
    r(d:get("k", 2, 3))
    r(d:get_stale("k", 2, 3))
end)

case("delete: always true", function(d, r, _, sleep)
    r(d:delete("missing"))
    d:set("k", 1)
    r(d:delete("k"))
    r(d:get_stale("k"))
    d:rpush("list", 1)
    r(d:delete("list"))
    r(d:llen("list"))
    d:set("k", 1, 0.001)
    sleep(0.01)
    r(d:delete("k"))
    r(d:get_stale("k"))
    r(d:delete("k", 1, 2, 3))
end)

-- ---- incr ----------------------------------------------------------------

case("incr: of a live number", function(d, r, try)
    d:set("k", 5, 100, 7)
    r(d:incr("k", 1))
    r(d:incr("k", -2.5))
    r(d:incr("k", "3"))
    r(d:incr("k", "0x10"))
    r(d:incr("k", 1, 100))
    r(d:incr("k", 1, 100, 50))
    r(d:get("k"))
    r(d:ttl("k") > 99)
    try(d.incr, d, "k", nil)
    try(d.incr, d, "k", "x")
    try(d.incr, d, "k", {})
    try(d.incr, d, "k", true)
    r(d:get("k"))
    r(d:incr("k", INF))
    r(d:incr("k", -INF) ~= 0)
end)

case("incr: of what is no number", function(d, r)
    d:set("digits", "12")
    d:set("truth", true)
    d:lpush("list", 1)
    for _, key in ipairs { "digits", "truth", "list" } do
        r(d:incr(key, 1))
        r(d:incr(key, 1, 0))
        r(d:incr(key, 1, 0, 5))
    end
    r(d:get("digits"))
    r(d:llen("list"))
end)

case("incr: of what is not there", function(d, r, _, sleep)
    r(d:incr("k", 1))
    r(d:incr("k", 1, false))
    r(d:incr("k", 1, 10))
    r(d:get("k"))
    r(d:ttl("k"))
    r(d:incr("s", "2", "40"))
    d:set("e", "text", 0.001, 5)
    d:set("n", 9, 0.001, 5)
    sleep(0.01)
    r(d:incr("e", 1))
    r(d:get_stale("e"))
    r(d:incr("e", 1, 1))
    r(d:get("e"))
    r(d:ttl("e"))
    r(d:incr("n", 1))
    r(d:incr("n", 1, 1))
    r(d:get("n"))
    d:lpush("l", 1)
    d:expire("l", 0.001)
    sleep(0.01)
    r(d:incr("l", 1, 1))
    r(d:get("l"))
end)

case("incr: init and init_ttl", function(d, r, try, sleep)
    try(d.incr, d, "k", 1, "x")
    try(d.incr, d, "k", 1, {})
    try(d.incr, d, "k", 1, true)
    try(d.incr, d, "k", 1, 0, "x")
    try(d.incr, d, "k", 1, 0, {})
    try(d.incr, d, "k", 1, 0, false)
    try(d.incr, d, "k", 1, 0, -1)
    try(d.incr, d, "k", 1, nil, 5)
    try(d.incr, d, "k", 1, false, 5)
    try(d.incr, d, "k", 1, nil, -5)
    try(d.incr, d, "k", nil, "x")
    try(d.incr, d, nil, nil, "x")
    try(d.incr, d, "", 1, "x", "x")
    r(d:get("k"))
    r(d:incr("k", 1, 0, "0.5"))
    r(d:get("k"))
    sleep(0.51)
    r(d:get("k"))
    r(d:get_stale("k"))
    r(d:incr("k", 1, 0, 0), d:ttl("k"))
    r(d:incr("q", 1, 0, 0.0004), d:ttl("q"))
    r(d:incr("z", 1, 0, 500), d:ttl("z") > 499)
end)

-- ---- ttl, expire ---------------------------------------------------------

case("ttl and expire", function(d, r, try, sleep)
    r(d:ttl("missing"))
    r(d:expire("missing", 1))
    try(d.expire, d, "k")
    try(d.expire, d, "k", false)
    try(d.expire, d, nil)
    try(d.expire, d, nil, 1)
    d:set("k", "v", 0, 6)
    r(d:ttl("k"))
    r(d:expire("k", 100))
    r(d:ttl("k") > 99 and d:ttl("k") <= 100)
    r(d:expire("k", "50"))
    r(d:ttl("k") > 49 and d:ttl("k") <= 50)
    r(d:get("k"))
    r(d:expire("k", 0))
    r(d:ttl("k"))
    r(d:expire("k", 0.0004))
    r(d:ttl("k"))
    try(d.expire, d, "k", "x")
    try(d.expire, d, "k", {})
    r(d:expire("k", 0.005))
    sleep(0.02)
    r(d:get("k"))
    r(d:ttl("k") < 0)
    r(d:expire("k", 100))
    r(d:get("k"))
    d:lpush("list", 1)
    r(d:ttl("list"))
    r(d:expire("list", 100))
    r(d:ttl("list") > 99)
    r(d:llen("list"))
end)

case("a long expiry", function(d, r)
    r(d:set("k", 1, 3600 * 24 * 365))
    r(d:ttl("k") > 3600 * 24 * 365 - 2)
    r(d:get("k"))
end)

-- ---- lists ---------------------------------------------------------------

for _, method in ipairs { "lpush", "rpush" } do
    case(method .. ": arguments", function(d, r, try)
        local f = d[method]
        try(f)
        try(f, d)
        try(f, d, "k")
        try(f, d, "k", 1, 2)
        try(f, d, "k", 1, nil)
        r(d[method](d, nil, 1))
        r(d[method](d, "", 1))
        r(d[method](d, LONGEST .. "k", 1))
        r(d[method](d, LONGEST, 1))
        r(d[method](d, 12, 1), d:llen("12"))
        r(d[method](d, "k", nil))
        r(d[method](d, "k", true))
        r(d[method](d, "k", {}))
        r(d:llen("k"))
        r(d[method](d, nil, {}))
        for _, key in ipairs { true, {}, print } do
            try(d[method], d, key, 1)
            try(function()
                return method == "lpush" and d:lpush(key, 1)
                    or d:rpush(key, 1)
            end)
        end
    end)
    case(method .. ": over each state of the key", function(d, r, _, sleep)
        d:set("expired", "old", 0.001, 3)
        d:set("live", "old", 100, 3)
        d:set("number", 1)
        d:lpush("list", "x")
        d:expire("list", 100)
        d:lpush("over", "x")
        d:expire("over", 0.001)
        sleep(0.01)
        for _, key in ipairs { "missing", "live", "number", "list",
                               "expired", "over" } do
            r(d[method](d, key, "new"))
            r(d:llen(key))
            r(d:ttl(key) == 0)
            r(d:get(key))
        end
        r(d:rpop("over"))
    end)
end
for _, method in ipairs { "lpop", "rpop", "llen" } do
    case(method .. ": arguments", function(d, r, try)
        local f = d[method]
        try(f)
        try(f, d)
        try(f, d, "k", 1)
        try(f, d, "k", nil)
        r(d[method](d, nil))
        r(d[method](d, ""))
        r(d[method](d, LONGEST .. "k"))
        r(d[method](d, LONGEST))
        r(d[method](d, 12))
        for _, key in ipairs { true, {}, print } do
            try(function()
                d[method](d, key)
            end)
        end
    end)
    case(method .. ": over each state of the key", function(d, r, _, sleep)
        d:set("expired", "old", 0.001, 3)
        d:set("live", "old", 100, 3)
        d:lpush("list", "x")
        d:rpush("list", "y")
        d:lpush("over", "x")
        d:expire("over", 0.001)
        sleep(0.01)
        for _, key in ipairs { "missing", "live", "list", "expired",
                               "over" } do
            r(d[method](d, key))
            r(d:llen(key))
        end
    end)
end

case("lists: order and types", function(d, r)
    r(d:lpush("l", "b"))
    r(d:lpush("l", "a"))
    r(d:rpush("l", 3))
    r(d:rpush("l", ""))
    r(d:rpush("l", "d\0e"))
    r(d:rpush("l", ("v"):rep(10000)))
    r(d:llen("l"))
    r(d:lpop("l"))
    r(#d:rpop("l"))
    r(d:lpop("l"))
    r(d:lpop("l"))
    r(d:rpop("l"))
    r(d:llen("l"))
    r(d:lpop("l"))
    r(d:llen("l"))
    r(d:lpop("l"))
    r(d:rpop("l"))
    r(d:get("l"))
    r(d:get_stale("l"))
    r(#d:get_keys())
end)

for _, method in ipairs { "lpush", "rpush", "lpop", "rpop", "llen" } do
    case(method .. ": a wrong self", function(d, _, try)
        local n = method:find("push") and 3 or 2
        for _, self in ipairs { {}, "d", 1, { {} } } do
            try(d[method], unpack({ self, "k", "v" }, 1, n))
        end
    end)
end

-- ---- the whole dict ------------------------------------------------------

case("flush_all", function(d, r, _, sleep)
    d:set("a", 1, 0, 2)
    d:set("b", "v", 100)
    d:lpush("l", 1)
    r(d:flush_all())
    sleep(0.01)
    r(d:get("a"))
    r(d:get("b"))
    r(d:llen("l"))
    r(#d:get_keys())
    d:set("a", 5)
    r(d:get("a"))
    r(d:flush_all(1, 2))
end)

case("flush_expired", function(d, r, try, sleep)
    try(d.flush_expired)
    try(d.flush_expired, d, 1, 2)
    for _, max in ipairs { "x", {}, true } do
        try(function()
            d:flush_expired(max)
        end)
    end
    try(function()
        d:flush_expired(nil)
    end)
    r(d:flush_expired())
    for i = 1, 9 do
        d:set("k" .. i, i, 0.001)
    end
    d:set("stays", 1)
    sleep(0.01)
    r(d:flush_expired(2))
    r(d:flush_expired("3"))
    r(d:get_stale("k9"))
    r(d:flush_expired(0))
    r(d:flush_expired(-1))
    r(d:flush_expired())
    for i = 1, 4 do
        d:set("k" .. i, i, 0.001)
    end
    sleep(0.01)
    r(d:flush_expired(-5))
    r(d:get("stays"))
end)

case("flush_expired: the oldest go first", function(d, r, _, sleep)
    for i = 1, 5 do
        d:set("k" .. i, i, 0.001)
    end
    sleep(0.01)
    r(d:flush_expired(2))
    for i = 1, 5 do
        r(d:get_stale("k" .. i))
    end
end)

case("get_keys", function(d, r, try, sleep)
    try(d.get_keys)
    try(d.get_keys, d, 1, 2)
    for _, max in ipairs { "x", {}, true } do
        try(function()
            d:get_keys(max)
        end)
    end
    try(function()
        d:get_keys(nil)
    end)
    r(#d:get_keys())
    d:set("gone", 1, 0.001)
    sleep(0.01)
    for i = 1, 5 do
        d:set("k" .. i, i)
    end
    d:lpush("list", 1)
    r(unpack(d:get_keys()))
    r(unpack(d:get_keys(2)))
    r(unpack(d:get_keys("3")))
    r(unpack(d:get_keys(2.9)))
    r(unpack(d:get_keys(0)))
    r(unpack(d:get_keys(-1)))
    r(unpack(d:get_keys(100)))
    d:set("k1", 1)
    r(unpack(d:get_keys()))
end)

case("get_keys, flush_expired: a count is no cdata", function(d, _, try)
    try(function()
        d:get_keys(5LL)
    end)
    try(function()
        d:flush_expired(5LL)
    end)
end)

case("get_keys: 1024 unless told", function(d, r)
    for i = 1, 1100 do
        d:set(i, i)
    end
    r(#d:get_keys())
    r(#d:get_keys(1050))
    r(#d:get_keys(0))
    r(d:get_keys()[1], d:get_keys()[1024])
end)

case("capacity", function(d, r)
    r(d:capacity())
    r(d:capacity(1, 2))
    r(type(d:free_space()), d:free_space() > 0)
end)

-- ---- no room -------------------------------------------------------------

case("what can never fit", function(d, r)
    local huge = ("h"):rep(d:capacity())
    -- The original evicts others before it gives up; ours does not begin.
    r((d:set("k", huge)), (select(2, d:set("k", huge))))
    r((d:add("k", huge)), (select(2, d:add("k", huge))))
    r(d:safe_set("k", huge))
    r(d:safe_add("k", huge))
    d:set("k", 1)
    r(d:lpush("l", huge))
    r(d:llen("l"))
end)

case("what can never fit: what the key holds is said first", function(d, r)
    local huge = ("h"):rep(d:capacity())
    d:set("k", 1)
    d:lpush("l", 1)
    r(d:add("k", huge))
    r(d:safe_add("l", huge))
    r(d:replace("missing", huge))
    r(d:lpush("k", huge))
    r(d:rpush("k", huge))
    r(d:get("k"))
    r(d:llen("l"))
end)

case("safe_set evicts nothing", function(d, r)
    local value = ("v"):rep(2000)
    local i = 0
    local ok, err, forcible
    repeat
        i = i + 1
        ok, err, forcible = d:safe_set("k" .. i, value)
    until not ok or i > 100000
    r(ok, err, forcible)
    local kept = true
    for j = 1, i - 1 do
        kept = kept and d:get("k" .. j) == value
    end
    r(kept)
    r(d:safe_add("another", value))
    r(d:get("another"))
    r(d:lpush("list", value))
    r(d:llen("list"))
    r(d:set("another", value))
    r(d:get("another") == value)
end)

-- ---- running them --------------------------------------------------------

local function shown(v)
    if type(v) == "string" then
        if #v > 60 then
            return ("%q.. (%d bytes)"):format(v:sub(1, 20), #v)
        end
        return (("%q"):format(v):gsub("\n", "n"):gsub("%z", "\\0"))
    elseif type(v) == "number" then
        return ("%.17g"):format(v)
    end
    return tostring(v)
end

local function tuple(...)
    local t = {}
    for i = 1, select("#", ...) do
        t[i] = shown((select(i, ...)))
    end
    return "(" .. table.concat(t, ", ") .. ")"
end

-- Without what names files, lines and C functions of either side.
local function plain(err)
    err = tostring(err):gsub("^[^%s:]+:%d+: ", "")
    err = err:gsub("^bad argument #%d+ to '[%w_]+' %((cannot convert .*)%)$",
                   "%1")
    return err
end

-- One line for each recorded step.
local function run(case_, d, sleep)
    local lines = {}
    local function r(...)
        lines[#lines + 1] = tuple(...)
    end
    local function finish(ok, ...)
        if ok then
            lines[#lines + 1] = tuple(...)
        else
            lines[#lines + 1] = "raised " .. plain((...))
        end
    end
    local function try(f, ...)
        finish(pcall(f, ...))
    end
    for _, key in ipairs(d:get_keys(0)) do
        d:delete(key)
    end
    d:flush_expired()
    -- The original's get and stores free up to two expired entries at the
    -- cold end; ours keep them while there is room. A live one there makes
    -- both keep what a case lets expire.
    d:set("floor", 0)
    local ok, err = pcall(case_.run, d, r, try, sleep)
    if not ok then
        lines[#lines + 1] = "failed: " .. tostring(err)
    end
    return lines
end

return { cases = cases, run = run }
