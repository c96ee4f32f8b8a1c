-- SPDX-License-Identifier: BSD-2-Clause
-- model.lua - what each of the two dicts holds, as far as its answers tell.
--
-- Two answers that differ are only allowed if each is the one answer that
-- side can give in its state, and the states differ for a reason that has a
-- name (rules.lua). This is that state: a naive dict for each side, that
-- follows every call. Where a side may have dropped an entry (the original
-- sweeps expired ones, either evicts where room is scarce), the entry is kept
-- until an answer shows that it is gone; an entry that is gone stays so.
--
-- An entry: kind ("value", "list"), value or list, flags, expires (ms; nil:
-- never), age (of the last write; in the original, of the last use), stored
-- and evictions (the side's counts when it was last seen to be there), maybe
-- (whether it is still there is not known).

local ffi = require "ffi"

local model = {}

-- Answers: what stands for either boolean.
local ANY_BOOLEAN = {}

-- Of ours: the last expiry that is not "never".
local EXPIRES_MAX = 2 ^ 48 - 1

-- ---- calls, normalized ----------------------------------------------------

local STORES = { set = true, safe_set = true, add = true, safe_add = true,
                 replace = true }
local BY_KEY = { get = true, get_stale = true, ttl = true, delete = true,
                 incr = true, expire = true }
local LISTS = { lpush = 2, rpush = 2, lpop = 1, rpop = 1, llen = 1 }

local function milliseconds(seconds)
    return tonumber(ffi.new("int64_t", seconds * 1000))
end

local function key_of(key)
    if key == nil then
        return nil
    end
    key = tostring(key)
    if type(key) ~= "string" or #key == 0 or #key > 65535 then
        return nil
    end
    return key
end

local VALUE_TYPES = { string = true, number = true, boolean = true }

local function normalize(c)
    local m = c.m
    local n = { m = m }
    if c.odd_self then
        return nil
    elseif STORES[m] or BY_KEY[m] then
        n.key = key_of(c[1])
    elseif LISTS[m] then
        if c.n ~= LISTS[m] or type(c[1]) ~= "string"
            and type(c[1]) ~= "number" then
            return nil
        end
        n.key = key_of(c[1])
    elseif m == "get_keys" or m == "flush_expired" then
        if c.n > 1 or c.n == 1 and (type(c[1]) == "cdata"
                                    or not tonumber(c[1])) then
            return nil
        end
        n.max = c.n == 0 and (m == "get_keys" and 1024 or 0)
            or tonumber(c[1])
        if not (n.max >= 1) then
            n.max = 0
        end
        -- An int in the original.
        n.int = n.max == 2 ^ 32 + 1 and 1 or nil
        n.max = n.max < 2 ^ 31 and math.floor(n.max) or 0
        return n
    else
        return n
    end
    if not n.key then
        return nil
    end
    if STORES[m] then
        local exptime = c[3] or 0
        if exptime < 0 then
            return nil
        end
        n.value = c[2]
        if n.value ~= nil and not VALUE_TYPES[type(n.value)] then
            return nil
        end
        n.flags = tonumber(ffi.new("int", c[4] or 0))
        n.ms = milliseconds(exptime)
    elseif m == "incr" then
        n.by = tonumber(ffi.new("double", tonumber(c[2])))
        if c[3] then
            n.init = assert(tonumber(c[3]))
        end
        n.ms = 0
        if c[4] ~= nil then
            local ttl = assert(tonumber(c[4]))
            if ttl < 0 or not n.init then
                return nil
            end
            n.ms = milliseconds(ttl)
        end
    elseif m == "expire" then
        if not c[2] then
            return nil
        end
        n.ms = milliseconds(c[2])
    elseif m == "lpush" or m == "rpush" then
        n.value = c[2]
        if type(c[2]) ~= "string" and type(c[2]) ~= "number" then
            return nil
        end
    end
    return n
end

-- The key as text and numbers as numbers, or nil if the call has arguments
-- that cannot be: that changes nothing.
function model.normalize(c)
    local ok, n = pcall(normalize, c)
    return ok and n or nil
end

-- ---- sides ----------------------------------------------------------------

local Side = {}
Side.__index = Side

-- name: "stock" or "ours". wall: what its clock is ahead of the virtual one.
function model.side(name, world, wall_ms)
    return setmetatable({
        stock = name == "stock", world = world, wall = wall_ms, entries = {},
        count = 0, stores = 0, evictions = 0, now = 0, floored = world.floored
    }, Side)
end

function Side:is_expired(e)
    if not e.expires then
        return false
    elseif self.stock then -- its last millisecond still lives
        return self.now > e.expires
    end
    return self.now >= e.expires
end

local function is_over(side, e)
    return e.expires and e.expires <= side.now
end
Side.is_over = is_over

-- May it have been dropped without our seeing?
function Side:may_be_gone(e)
    if e.maybe then
        return true
    elseif is_over(self, e) then
        return self.stock and not self.floored
            or self.world.small and e.stored ~= self.stores
    end
    return e.evictions ~= self.evictions
end

function Side:live(key)
    local e = self.entries[key]
    return e and not self:is_expired(e) and e or nil
end

local function expires_of(side, ms)
    if ms <= 0 then
        return nil
    elseif not side.stock and side.now + ms > EXPIRES_MAX then
        return nil
    end
    return side.now + ms
end

local function pack(...)
    return { n = select("#", ...), ... }
end

-- ---- answers --------------------------------------------------------------

local function stored(side)
    return pack(true, nil, side.world.small and ANY_BOOLEAN or false)
end

local NIL_VALUE = "attempt to add or replace nil values"

local answer = {}

-- Each: what the side answers if the key's entry is e (nil: not there).
function answer.get(side, _, e)
    if not e or side:is_expired(e) then
        return pack(nil)
    elseif e.kind == "list" then
        return pack(nil, "value is a list")
    elseif e.flags ~= 0 then
        return pack(e.value, e.flags)
    end
    return pack(e.value)
end

function answer.get_stale(side, _, e)
    if not e then
        return pack(nil)
    elseif e.kind == "list" then
        return pack(nil, "value is a list")
    end
    return pack(e.value, e.flags ~= 0 and e.flags or nil, side:is_expired(e))
end

function answer.ttl(side, _, e)
    if not e then
        return pack(nil, "not found")
    elseif not e.expires then
        return pack(0)
    end
    local left = e.expires - side.now
    if left == -5 and side.stock then -- which is its code for "not found"
        return pack(nil, "not found")
    elseif left == 0 and not side.stock then
        left = -1
    end
    return pack(left / 1000)
end

function answer.expire(_, _, e)
    if not e then
        return pack(nil, "not found")
    end
    return pack(true)
end

function answer.delete()
    return pack(true, nil, false)
end

function answer.set(side, n)
    if n.value == nil then
        return answer.delete()
    end
    return stored(side)
end
answer.safe_set = answer.set

function answer.add(side, n, e)
    if n.value == nil then
        return pack(false, NIL_VALUE, false)
    elseif e and not side:is_expired(e) then
        return pack(false, "exists", false)
    end
    return stored(side)
end
answer.safe_add = answer.add

function answer.replace(side, n, e)
    if n.value == nil then
        return pack(false, NIL_VALUE, false)
    elseif not e or side:is_expired(e) then
        return pack(false, "not found", false)
    end
    return stored(side)
end

function answer.incr(side, n, e)
    if e and not side:is_expired(e) then
        if e.kind == "list" or type(e.value) ~= "number" then
            return pack(nil, "not a number")
        elseif n.init then
            return pack(e.value + n.by, nil, false)
        end
        return pack(e.value + n.by)
    elseif not n.init then
        return pack(nil, "not found")
    end
    return pack(n.init + n.by, nil,
                side.world.small and ANY_BOOLEAN or false)
end

function answer.lpush(side, _, e)
    if not e or side:is_expired(e) then
        return pack(1)
    elseif e.kind ~= "list" then
        return pack(nil, "value not a list")
    end
    return pack(#e.list + 1)
end
answer.rpush = answer.lpush

local function pop(index)
    return function(side, _, e)
        if not e or side:is_expired(e) then
            return pack(nil)
        elseif e.kind ~= "list" then
            return pack(nil, "value not a list")
        end
        return pack(e.list[index or #e.list])
    end
end
answer.lpop = pop(1)
answer.rpop = pop(nil)

function answer.llen(side, _, e)
    if not e or side:is_expired(e) then
        return pack(0)
    elseif e.kind ~= "list" then
        return pack(nil, "value not a list")
    end
    return pack(#e.list)
end

local function same_value(a, b)
    if type(a) == "number" and type(b) == "number" then
        -- not a number is itself, and 0 is not -0
        return a == b and 1 / a == 1 / b or a ~= a and b ~= b
    end
    return a == b
end

local function same_table(a, b)
    for i = 1, math.max(#a, #b) do
        if not same_value(a[i], b[i]) then
            return false
        end
    end
    return true
end

-- Are two answers the same, type by type and one by one?
function model.same(a, b)
    if a.n ~= b.n or a.raised ~= b.raised then
        return false
    end
    for i = 1, a.n do
        local x, y = a[i], b[i]
        if not same_value(x, y) then
            local any = (x == ANY_BOOLEAN or y == ANY_BOOLEAN)
                and (type(x) == "boolean" or type(y) == "boolean")
            if not any and not (type(x) == "table" and type(y) == "table"
                                and same_table(x, y)) then
                return false
            end
        end
    end
    return true
end
local same = model.same

-- Would two entries answer alike?
function model.same_entry(a, b)
    return a.kind == b.kind and a.flags == b.flags
        and (a.kind == "list" and same_table(a.list, b.list)
             or a.kind == "value" and same_value(a.value, b.value))
end

-- ---- what a call leaves ---------------------------------------------------

local function drop(side, key)
    if side.entries[key] then
        side.entries[key] = nil
        side.count = side.count - 1
    end
end
Side.drop = drop

local age = 0

local function put(side, key, e)
    age = age + 1
    if not side.entries[key] then
        side.count = side.count + 1
    end
    e.age = age
    e.stored, e.evictions = side.stores, side.evictions
    side.entries[key] = e
end

local function touch(e)
    age = age + 1
    e.age = age
end

local WRITES = { set = true, safe_set = true, add = true, safe_add = true,
                 replace = true, incr = true, lpush = true, rpush = true }
-- Each looks the key up, and in the original that makes it the newest; a nil
-- value is refused before that.
local USES = { get = true, get_stale = true, set = true, safe_set = true,
               add = true, safe_add = true, replace = true, incr = true,
               lpush = true, rpush = true, lpop = true, rpop = true,
               llen = true }

local apply = {}

function apply.set(side, n)
    if n.value == nil then
        drop(side, n.key)
        return
    end
    put(side, n.key, { kind = "value", value = n.value, flags = n.flags,
                       expires = expires_of(side, n.ms) })
end
apply.safe_set = apply.set

function apply.add(side, n, _, got)
    if got[1] == true then
        apply.set(side, n)
    end
end
apply.safe_add = apply.add
apply.replace = apply.add
apply.delete = apply.set

function apply.incr(side, n, e, got)
    if got[1] == nil then
        return
    elseif e and not side:is_expired(e) then
        e.value = got[1]
        touch(e)
        return
    end
    put(side, n.key, { kind = "value", value = got[1], flags = 0,
                       expires = expires_of(side, n.ms) })
end

function apply.expire(side, n, e)
    if e then
        e.expires = expires_of(side, n.ms)
        e.flushed, e.flushed_all = nil, nil
    end
end

local function push(left)
    return function(side, n, e, got)
        if got[1] == nil then
            return
        elseif not e or side:is_expired(e) then
            put(side, n.key, { kind = "list", list = { n.value } })
            return
        end
        if left then
            table.insert(e.list, 1, n.value)
        else
            e.list[#e.list + 1] = n.value
        end
        touch(e)
    end
end
apply.lpush = push(true)
apply.rpush = push(false)

local function popped(left)
    return function(side, n, e, got)
        if got[1] == nil or not e then
            return
        end
        if left then
            table.remove(e.list, 1)
        else
            e.list[#e.list] = nil
        end
        if #e.list == 0 then
            drop(side, n.key)
        else
            touch(e)
        end
    end
end
apply.lpop = popped(true)
apply.rpop = popped(false)

-- ---- one call -------------------------------------------------------------

local function is_no_memory(got)
    return got[2] == "no memory" and (got[1] == false or got[1] == nil)
end

-- Where there is no room: who may say so, and what that leaves.
local function no_memory(side, n, got)
    local list = n.m == "lpush" or n.m == "rpush"
    if not side.world.small then
        return false
    elseif (n.m == "add" or n.m == "safe_add") and side:live(n.key) then
        if not side:may_be_gone(side.entries[n.key]) then
            return false
        end
        drop(side, n.key)
        side.was_gone = true
    end
    if side.stock then
        local shape = list and got.n == 2 or n.m == "incr" and got.n == 2
            or got.n == 3 and type(got[3]) == "boolean"
        local e = side.entries[n.key]
        if e then -- it removes the old value before it looks for room
            e.maybe = true
        end
        return shape and WRITES[n.m]
    elseif list then
        return got.n == 2 and got[1] == nil
    end
    -- What is too large for the dict is so for every store.
    local bytes = #n.key + (type(n.value) == "string" and #n.value or 8)
    if n.m == "incr" then
        return got.n == 2 and bytes > side.world.capacity / 2
    end
    return got.n == 3 and got[1] == false and got[3] == false
        and (n.m == "safe_set" or n.m == "safe_add"
             or bytes > side.world.capacity / 2)
end

-- Follows one call that names a key. False: this side cannot give that
-- answer, whatever it may have dropped.
local function by_key(side, n, got)
    local e = side.entries[n.key]
    side.was_gone, side.unsure = false, false
    if WRITES[n.m] then
        side.stores = side.stores + 1
        if e and e.stored == side.stores - 1 then
            e.stored = side.stores -- it was there when this call began
        end
        -- Nothing that lives goes without saying so, but in the original's
        -- incr that fails.
        if got[3] == true or side.stock and n.m == "incr"
            and is_no_memory(got) then
            side.evictions = side.evictions + 1
        end
    end
    if is_no_memory(got) then
        return no_memory(side, n, got)
    end
    if not same(answer[n.m](side, n, e), got) then
        -- Is it that the entry is gone?
        if not e or not side:may_be_gone(e)
            or not same(answer[n.m](side, n, nil), got) then
            return false
        end
        drop(side, n.key)
        e = nil
        side.was_gone = true
    elseif e and side:may_be_gone(e) then
        if not same(answer[n.m](side, n, nil), got) then
            e.maybe = nil -- it is there
            e.stored, e.evictions = side.stores, side.evictions
        else
            side.unsure = n.m == "incr" -- of what was there, or of init
        end
    end
    if e and side.stock and USES[n.m] and got[2] ~= NIL_VALUE then
        touch(e)
    end
    if apply[n.m] then
        apply[n.m](side, n, e, got)
    end
    return true
end

-- Live keys, oldest first. In the original an entry in its last millisecond,
-- which get still gives, is none.
local function keys_in_order(side)
    local keys = {}
    for key, e in pairs(side.entries) do
        if not is_over(side, e) then
            keys[#keys + 1] = key
        end
    end
    table.sort(keys, function(a, b)
        return side.entries[a].age < side.entries[b].age
    end)
    return keys
end

-- Is each of the keys, once, among those?
local function all_among(keys, those)
    local there = {}
    for _, key in ipairs(those) do
        there[key] = true
    end
    for _, key in ipairs(keys) do
        if not there[key] then
            return false
        end
        there[key] = nil
    end
    return true
end

local function max_of(side, n)
    return side.stock and n.int or n.max
end

local function get_keys(side, n, got)
    local keys = got[1]
    local max = max_of(side, n)
    if got.n ~= 1 or type(keys) ~= "table" then
        return false
    end
    if side.world.small then -- some may be gone, none may be new
        local seen = {}
        for _, key in ipairs(keys) do
            local e = side.entries[key]
            if not e or is_over(side, e) or seen[key] then
                return false
            end
            seen[key] = true
        end
        for key, e in pairs(side.entries) do
            if max == 0 and not seen[key] and not is_over(side, e)
                and not side:may_be_gone(e) then
                return false
            end
        end
        return max == 0 or #keys <= max
    end
    local wanted = keys_in_order(side)
    local count = max == 0 and #wanted or math.min(max, #wanted)
    if side.world.sharded and not side.stock then -- in no order as a whole
        return #keys == count and all_among(keys, wanted)
    end
    return same_table({ unpack(wanted, 1, count) }, keys)
end

local function flush_expired(side, n, got)
    local sure, maybe = 0, 0
    local over = {}
    for key, e in pairs(side.entries) do
        if is_over(side, e) then
            over[#over + 1] = key
            if side:may_be_gone(e) then
                maybe = maybe + 1
            else
                sure = sure + 1
            end
        end
    end
    local freed = got[1]
    local max = max_of(side, n)
    max = max == 0 and math.huge or max
    if got.n ~= 1 or type(freed) ~= "number"
        or freed < math.min(sure, max)
        or freed > math.min(sure + maybe, max) then
        return false
    end
    local all = freed < max or freed == sure + maybe
    side.partly_flushed = not all
    for _, key in ipairs(over) do
        if all then
            drop(side, key)
        else -- which ones is not said
            side.entries[key].maybe = true
            side.entries[key].flushed = true
        end
    end
    return true
end

-- The original marks by the time 1 ms after 1970, and frees three at once.
local function flush_all(side, _, got)
    for _, e in pairs(side.entries) do
        if side.stock then
            e.expires = 1 - side.wall
            e.maybe = true
        elseif not e.expires or e.expires > side.now then
            e.expires = side.now
        end
        e.flushed_all = true
    end
    side.floored = false
    return got.n == 0
end

local function amount(high)
    return function(side, _, got)
        return got.n == 1 and type(got[1]) == "number" and got[1] % 1 == 0
            and got[1] >= 0 and got[1] <= side.world.capacity
            and (not high or got[1] == side.world.capacity)
    end
end

local whole = { get_keys = get_keys, flush_expired = flush_expired,
                flush_all = flush_all, capacity = amount(true),
                free_space = amount(false) }

-- Follows a call and its answer; false if it could not have been given.
function Side:follow(n, got)
    if got.raised then
        return false
    elseif n.key then
        return by_key(self, n, got)
    end
    return whole[n.m](self, n, got)
end

-- The answer it should have given, for a message; nil where there are many.
function Side:expected(n)
    return n.key and answer[n.m](self, n, self.entries[n.key]) or nil
end

return model
