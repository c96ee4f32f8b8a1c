-- SPDX-License-Identifier: BSD-2-Clause
-- lua.lua - the calls that fuzz/lua.c makes: fuzz(input). Each is a method of
-- an object, or of a module, and up to five arguments.

package.path = MODULES .. ";" .. package.path

local ffi = require "ffi"

-- The library is in this program.
ffi.load = function()
    return ffi.C
end

local shdict = require "shdict"

-- ---- the input -----------------------------------------------------------

local input, at
local LISTING = os.getenv("SHDICT_FUZZ_LIST") -- go on, and find them all

local function byte()
    at = at + 1
    return input:byte(at) or 0
end

local function pick(array)
    return array[byte() % #array + 1]
end

-- ---- values --------------------------------------------------------------

local objects, found -- of this input; what calls have given

local function user_error()
    error("of the user", 0)
end

local NUMBERS = {
    0, 1, -1, 2, 3, 0.5, -0.5, 0.0001, 0.001, 100, 1000, 65535, 65536, -0.0,
    2 ^ 31 - 1, 2 ^ 31, -2 ^ 31, 2 ^ 32, 2 ^ 52 + 0.5, 2 ^ 53, 2 ^ 63, -2 ^ 63,
    2 ^ 64, 1e300, -1e300, 1e-300, 1 / 0, -1 / 0, 0 / 0, 1e16, 9e15
}
local STRINGS = {
    "", "key", "list", "n", "text", "d", "q", "t", "lock", "sem", "a\0b",
    "0", "1", "-1", "0x10", " 12 ", "1e3", "nan", "inf", "64k", "1.5m", "-1k",
    "9999999999999t", "now", "oldest", "ready", "dead", "draining", "a",
    ("k"):rep(255), ("k"):rep(256), ("v"):rep(3000), ("v"):rep(65535),
    ("v"):rep(65536), ("v"):rep(200000), "\255\254", "with/slash", "%s%n",
    "capacity", "number", "string", "true"
}
local FIELDS = { -- of options
    "capacity", "capacity_max", "shards", "entries", "message", "messages",
    "message_bytes", "messages_max", "deliveries", "deliveries_max", "lease",
    "subscribers", "subscribers_max", "lossless", "permits", "waiters",
    "waiters_max", "ttl", "timeout", "exptime", "step", "ratio", "max_step",
    "delay", "from", "name", "values", "expired", "any_capacity", "size",
    "box", "worker_id", "hold", "handover", "weight", "max", "wait", "count"
}
local PROXY = newproxy(true)
getmetatable(PROXY).__index = user_error
getmetatable(PROXY).__tostring = user_error
local THREAD = coroutine.create(function() end)

-- Who waits for longer waits for ever, and there is nobody to end it.
local WAITS = {
    queue = true, topic = true, subscription = true, mailbox = true,
    lock = true, semaphore = true, leader = true
}
local LONGEST = 86400

local value

local function some_table(depth)
    local t, how = {}, byte() % 6
    if how == 0 then
        return t
    elseif how == 1 then
        for i = 1, byte() % 8 do
            t[i] = value(depth + 1)
        end
    elseif how == 2 then
        for _ = 1, byte() % 4 do
            t[pick(FIELDS)] = value(depth + 1)
        end
    elseif how == 3 then
        for i = 1, 40 do
            t[i] = "key" .. i
        end
        t[byte() % 41] = nil
    elseif how == 4 then
        return setmetatable(t, {
            __tostring = pick({ user_error, function() return "key" end }),
            __index = pick({ user_error, function() return "1" end }),
            __len = user_error
        })
    else
        t.capacity = "16k"
        t[pick(FIELDS)] = value(depth + 1)
    end
    return t
end

local function some_cdata()
    local how = byte() % 8
    if how == 0 then
        return 1LL
    elseif how == 1 then
        return -1LL
    elseif how == 2 then
        return 0xffffffffffffffffULL
    elseif how == 3 then
        return ffi.new("uint8_t[16]")
    elseif how == 4 then
        return ffi.new("struct { int a; }")
    elseif how == 5 then
        return ffi.typeof("int")
    elseif how == 6 then
        return ffi.new("double", 3.5)
    end
    return ffi.new("void *")
end

function value(depth)
    local how = byte() % 16
    if how < 3 then
        return pick(NUMBERS)
    elseif how < 7 then
        return pick(STRINGS)
    elseif how == 7 then
        return nil
    elseif how == 8 then
        return byte() % 2 == 0
    elseif how == 9 then
        return depth < 3 and some_table(depth) or {}
    elseif how == 10 then
        return some_cdata()
    elseif how == 11 then
        return pick({ print, THREAD, PROXY, io.stdout, user_error })
    elseif how == 12 then
        return objects[pick(objects.names)]
    elseif how == 13 then
        return byte() - 128
    elseif how == 14 then
        return found[byte() % #found + 1]
    end
    return "key"
end

-- ---- calls ---------------------------------------------------------------

-- Whatever is a path, a name outside of the segment, or has no end.
local LEFT_OUT = {
    save = true,    -- writes files
    watch = true,   -- descriptors that are waited for
    signal = true,  -- of this process
    get_buf = true, -- trusts the size that it is told, as its text says
    fd = true
}

local function methods_of(object)
    local names = {}
    for name, method in pairs(getmetatable(object).__index) do
        if type(method) == "function" and not LEFT_OUT[name]
            and not name:find("^__") then
            names[#names + 1] = name
        end
    end
    table.sort(names)
    return names
end

-- As in ngx.shared.DICT, an exptime or flags of a wrong type raise whatever
-- LuaJIT says of them.
local DICT_RAISES = {
    "attempt to compare", "attempt to perform arithmetic on", "cannot convert"
}

-- Or is it one that a module did not mean: of the interpreter, or of the FFI?
local function is_meant(what, err)
    if type(err) ~= "string" then
        return false
    end
    if err:find("of the user", 1, true) or err:find('bad "', 1, true) then
        return true
    end
    for _, text in ipairs(what == "dict" and DICT_RAISES or {}) do
        if err:find(text, 1, true) then
            return true
        end
    end
    return not (err:find("attempt to", 1, true)
                or err:find("shd_", 1, true)
                or err:find("struct ", 1, true)
                or err:find("not enough memory", 1, true)
                or err:find("overflow", 1, true)
                or err:find("assertion", 1, true)
                or err:find("lua/shdict[%w_/]*%.lua:%d+:"))
end

local function show(v)
    if type(v) == "string" then
        return ("%q"):format(#v > 40 and v:sub(1, 40) .. "..." or v)
    end
    return type(v) == "table" and "{...}" or type(v) == "userdata" and "u"
        or tostring(v)
end

local function keep(ok, ...)
    if ok then
        for i = 1, math.min(select("#", ...), 4) do
            local v = select(i, ...)
            if v ~= nil and v ~= true and v ~= false then
                found[#found % 12 + 1] = v
            end
        end
    end
    return ok, (...)
end

local function call(object, what, name, method)
    local n = byte() % 6
    local a = {}
    for i = 1, n do
        a[i] = value(0)
        if WAITS[what] then
            if type(a[i]) == "number" and a[i] > LONGEST then
                a[i] = LONGEST
            elseif type(a[i]) == "table" and not getmetatable(a[i]) then
                for k, v in pairs(a[i]) do
                    if type(v) == "number" and v > LONGEST then
                        a[i][k] = LONGEST
                    end
                end
            end
        end
    end
    local self = object
    if byte() % 16 == 15 then
        self = value(0)
    end
    local ok, err = keep(pcall(method, self, unpack(a, 1, n)))
    if ok or is_meant(what, err) then
        return
    end
    local list = { what .. ":" .. name .. "(" .. show(self) }
    for i = 1, n do
        list[#list + 1] = show(a[i])
    end
    local text = table.concat(list, ", ") .. ") raises " .. tostring(err)
    if LISTING then
        io.stderr:write("lua: ", text, "\n")
    else
        error(text, 0)
    end
end

-- ---- an input ------------------------------------------------------------

local methods = {}

local function open()
    local s = assert(shdict.open(SEGMENT, { create = false }))
    local o = { segment = s }
    o.dict = assert(s:dict("d"))
    o.queue = assert(s:queue("q"))
    o.topic = assert(s:topic("t"))
    o.subscription = assert(o.topic:subscribe())
    o.mailbox = assert(s:mailbox("m"))
    o.lock = assert(s:lock("lock"))
    o.semaphore = assert(s:semaphore("sem"))
    o.leader = assert(s:leader("leader"))
    o.names = { "segment", "dict", "dict", "dict", "queue", "topic",
                "subscription", "mailbox", "lock", "semaphore", "leader" }
    return o
end

do -- what is there at the beginning of each
    local s = assert(shdict.open(SEGMENT, { create = false }))
    local d = assert(s:dict("d", { capacity = "64k", capacity_max = "128k" }))
    assert(d:set("key", "value"))
    assert(d:set("text", ("t"):rep(300), 100, 7))
    assert(d:set("n", 1.5))
    assert(d:set("true", true))
    assert(d:rpush("list", "a"))
    assert(d:rpush("list", 2))
    assert(s:queue("q", { capacity = "16k" }))
    assert(s:topic("t", { capacity = "8k" }))
    assert(s:mailbox("m", { capacity = "16k" }))
    assert(s:lock("lock", {}))
    assert(s:semaphore("sem", { permits = 2 }))
    assert(s:leader("leader", {}))
    assert(s:join())
    objects = open()
    for _, name in ipairs(objects.names) do
        methods[name] = methods_of(objects[name])
    end
    objects = nil
    collectgarbage()
end

function fuzz(bytes)
    input, at = bytes, 0
    found = { "key" }
    objects = open()
    for _ = 1, 40 do
        if at >= #input then
            break
        end
        local what = pick(objects.names)
        local name = pick(methods[what])
        call(objects[what], what, name,
             getmetatable(objects[what]).__index[name])
    end
    if PLANTED and objects.dict:get("key") ~= "value" then
        local x
        x.y = 1
    end
    objects, found = nil, nil
    collectgarbage()
end
