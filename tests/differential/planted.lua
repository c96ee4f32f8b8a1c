-- SPDX-License-Identifier: BSD-2-Clause
-- planted.lua - our dict with one subtle difference each: the test has to
-- find every one of them. The first has none, and must not be found: what is
-- wrapped around a method is not what gives the others away.

local planted = {}

local function pack(...)
    return { n = select("#", ...), ... }
end

-- A dict with other methods. `around` is a table of method -> function(method,
-- original, self, ...); a call that raises an error is left as it is.
local function wrapped(dict, around)
    local class = getmetatable(dict).__index
    local methods = {}
    for name, original in pairs(class) do
        methods[name] = original
    end
    for name, change in pairs(around) do
        local original = class[name]
        methods[name] = function(...)
            local self = ...
            if type(self) ~= "table" or self[1] ~= dict[1] then
                return original(...)
            end
            local before = pack(pcall(tostring, (select(2, ...))))
            local got = pack(pcall(change, original, ...))
            if not got[1] or not before[1] then
                return original(...) -- raises it in the caller
            end
            return unpack(got, 2, got.n)
        end
    end
    return setmetatable({ dict[1], dict[2], release = dict.release },
                        { __index = methods })
end

local function plant(name, around)
    planted[#planted + 1] = {
        name = name,
        plant = function(dict)
            return wrapped(dict, around)
        end
    }
end

local function same(original, ...)
    return original(...)
end

plant("nothing", { get = same, get_stale = same, set = same, safe_set = same,
                   add = same, safe_add = same, replace = same, delete = same,
                   incr = same, ttl = same, expire = same, lpush = same,
                   rpush = same, lpop = same, rpop = same, llen = same,
                   flush_all = same, flush_expired = same, get_keys = same,
                   capacity = same, free_space = same })
planted[1].harmless = true

-- ---- results --------------------------------------------------------------

plant("get forgets the flags", { get = function(f, ...)
    local v, flags = f(...)
    if type(flags) == "number" then
        return v
    end
    return f(...)
end })
plant("get gives flags of 0", { get = function(f, ...)
    local got = pack(f(...))
    if got.n == 1 and got[1] ~= nil then
        return got[1], 0
    end
    return unpack(got, 1, got.n)
end })
plant("get gives two nils", { get = function(f, ...)
    local got = pack(f(...))
    if got.n == 1 and got[1] == nil then
        return nil, nil
    end
    return unpack(got, 1, got.n)
end })
plant("get gives false for nil", { get = function(f, ...)
    local got = pack(f(...))
    return got[1] ~= nil and got[1] or false, unpack(got, 2, got.n)
end })
plant("get_stale gives stale as a number", { get_stale = function(f, ...)
    local v, flags, stale = f(...)
    if stale == nil then
        return f(...)
    end
    return v, flags, stale and 1 or 0
end })
plant("get_stale says all is fresh", { get_stale = function(f, ...)
    local v, flags, stale = f(...)
    if stale then
        return v, flags, false
    end
    return f(...)
end })
plant("delete of nothing is false", { delete = function(f, self, key)
    if self:ttl(key) == nil then
        return false, nil, false
    end
    return f(self, key)
end })
plant("delete gives true alone", { delete = function(f, ...)
    local ok, err = f(...)
    if ok then
        return true
    end
    return ok, err
end })
plant("set gives true alone", { set = function(f, ...)
    local ok, err, forcible = f(...)
    if ok and not forcible then
        return ok
    end
    return f(...)
end })
plant("another error string of safe_add", { safe_add = function(f, ...)
    local ok, err, forcible = f(...)
    if err == "exists" then
        return ok, "exist", forcible
    end
    return f(...)
end })
plant("another error string of lists", { lpop = function(f, ...)
    local got = pack(f(...))
    if got[2] == "value not a list" then
        return nil, "value is not a list"
    end
    return unpack(got, 1, got.n)
end })
plant("incr without init gives three", { incr = function(f, ...)
    local got = pack(f(...))
    if got.n == 1 then
        return got[1], nil, false
    end
    return unpack(got, 1, got.n)
end })
plant("llen of nothing is nil", { llen = function(f, ...)
    local got = pack(f(...))
    if got[1] == 0 then
        return nil
    end
    return unpack(got, 1, got.n)
end })
plant("ttl in whole milliseconds", { ttl = function(f, ...)
    local left, err = f(...)
    if left and left > 0 then
        return left * 1000
    end
    return f(...)
end })
plant("ttl of an expired entry is 0", { ttl = function(f, ...)
    local left = f(...)
    if left and left < 0 then
        return 0
    end
    return f(...)
end })
plant("flush_all gives true", { flush_all = function(f, ...)
    f(...)
    return true
end })
plant("capacity is one less", { capacity = function(f, ...)
    return f(...) - 1
end })
plant("get_keys leaves out the last", { get_keys = function(f, ...)
    local keys = f(...)
    keys[#keys] = nil
    return keys
end })
plant("get_keys the other way round", { get_keys = function(f, ...)
    local keys = f(...)
    for i = 1, math.floor(#keys / 2) do
        keys[i], keys[#keys + 1 - i] = keys[#keys + 1 - i], keys[i]
    end
    return keys
end })
plant("get_keys with expired ones", { get_keys = function(f, self, ...)
    local keys = f(self, ...)
    if select("#", ...) == 0 and self:get_stale("key1") ~= nil
        and not self:get("key1") then
        keys[#keys + 1] = "key1"
    end
    return keys
end })
plant("flush_expired counts one more", { flush_expired = function(f, ...)
    local freed = f(...)
    return freed > 0 and freed + 1 or freed
end })

-- ---- what is stored -------------------------------------------------------

local function stores(change)
    local around = {}
    for _, m in ipairs { "set", "safe_set", "add", "safe_add", "replace" } do
        around[m] = change
    end
    return around
end

plant("an expiry 1 ms late", { set = function(f, self, key, value, ttl, ...)
    if type(ttl) == "number" and ttl > 0.0005 and ttl < 1e10 then
        ttl = ttl + 0.001
    end
    return f(self, key, value, ttl, ...)
end })
plant("an expiry 1 ms early", { add = function(f, self, key, value, ttl, ...)
    if type(ttl) == "number" and ttl > 0.001 and ttl < 1e10 then
        ttl = ttl - 0.001
    end
    return f(self, key, value, ttl, ...)
end })
plant("an expiry under 1 ms is 1 ms", { set = function(f, self, key, value, ttl,
                                                       ...)
    return f(self, key, value, ttl == 0.0004 and 0.001 or ttl, ...)
end })
plant("replace keeps the old expiry", {
    replace = function(f, self, key, value, ttl, ...)
        local left = self:ttl(key)
        if not ttl and value ~= nil and left and left > 0 then
            ttl = left
        end
        return f(self, key, value, ttl, ...)
    end
})
plant("flags of 16 bits", stores(function(f, self, key, value, ttl, flags)
    if type(flags) == "number" and flags > 32767 and flags < 2 ^ 31 then
        flags = flags % 32768
    end
    return f(self, key, value, ttl, flags)
end))
plant("numbers as text of 14 digits", stores(function(f, self, key, value, ...)
    if type(value) == "number" and value == value then
        value = tonumber(("%.14g"):format(value)) or value
    end
    return f(self, key, value, ...)
end))
plant("minus zero is zero", stores(function(f, self, key, value, ...)
    if value == 0 then
        value = 0
    end
    return f(self, key, value, ...)
end))
plant("strings end at a NUL", stores(function(f, self, key, value, ...)
    if type(value) == "string" then
        value = value:match("^%Z*")
    end
    return f(self, key, value, ...)
end))
plant("long strings lose a byte", stores(function(f, self, key, value, ...)
    if type(value) == "string" and #value > 4096 then
        value = value:sub(1, -2)
    end
    return f(self, key, value, ...)
end))
plant("false is stored as nil", { set = function(f, self, key, value, ...)
    if value == false then
        value = nil
    end
    return f(self, key, value, ...)
end })
plant("keys end at a NUL", { set = function(f, self, key, ...)
    if type(key) == "string" and #key < 100 then
        key = key:match("^%Z+") or key
    end
    return f(self, key, ...)
end })
plant("the longest key is too long", { get = function(f, self, key)
    if type(key) == "string" and #key == 65535 then
        return nil, "key too long"
    end
    return f(self, key)
end })
plant("a nil value is refused", { safe_set = function(f, self, key, value, ...)
    if value == nil and type(key) == "string" and #key > 0 then
        return nil, "bad value type"
    end
    return f(self, key, value, ...)
end })

-- ---- counters, times, lists -----------------------------------------------

plant("incr makes it never expire", { incr = function(f, self, key, ...)
    local got = pack(f(self, key, ...))
    if got[1] then
        self:expire(key, 0)
    end
    return unpack(got, 1, got.n)
end })
plant("incr forgets init_ttl", { incr = function(f, self, key, by, init, ttl)
    if type(ttl) == "number" and ttl > 0 and init then
        ttl = 0
    end
    return f(self, key, by, init, ttl)
end })
plant("incr of text that is a number", { incr = function(f, self, key, ...)
    local v = self:get(key)
    if type(v) == "string" and tonumber(v) then
        self:set(key, tonumber(v))
    end
    return f(self, key, ...)
end })
plant("init goes without n", { incr = function(f, self, key, by, init, ...)
    if type(init) == "number" and type(by) == "number"
        and self:get(key) == nil and self:llen(tostring(key)) == 0 then
        return f(self, key, 0, init, ...)
    end
    return f(self, key, by, init, ...)
end })
plant("expire(0) deletes", { expire = function(f, self, key, ttl)
    if ttl == 0 and self:ttl(key) then
        self:delete(key)
        return true
    end
    return f(self, key, ttl)
end })
plant("expire leaves the dead dead", { expire = function(f, self, key, ttl)
    local left = self:ttl(key)
    if left and left < 0 and ttl then
        return nil, "not found"
    end
    return f(self, key, ttl)
end })
plant("lpush pushes right", { lpush = function(_, ...)
    local self = ...
    return self.rpush(...)
end })
plant("a push ends the expiry", { rpush = function(f, self, key, ...)
    local n, err = f(self, key, ...)
    if n then
        self:expire(key, 0)
        return n
    end
    return nil, err
end })
plant("a pop gives text for numbers", { rpop = function(f, ...)
    local got = pack(f(...))
    if type(got[1]) == "number" then
        return tostring(got[1])
    end
    return unpack(got, 1, got.n)
end })

-- ---- errors ---------------------------------------------------------------

plant("a push takes more arguments", { lpush = function(f, self, key, value)
    return f(self, key, value)
end })
plant("a push takes any key", { rpush = function(f, self, key, ...)
    if type(key) == "boolean" then
        key = tostring(key)
    end
    return f(self, key, ...)
end })
plant("get_keys takes nil", { get_keys = function(f, self, max, ...)
    if max == nil then
        return f(self)
    end
    return f(self, max, ...)
end })
plant("a negative expiry is none", { set = function(f, self, key, value, ttl,
                                                    ...)
    if type(ttl) == "number" and ttl < 0 then
        ttl = 0
    end
    return f(self, key, value, ttl, ...)
end })
plant("text for an expiry", { set = function(f, self, key, value, ttl, ...)
    return f(self, key, value, type(ttl) == "string" and tonumber(ttl) or ttl,
             ...)
end })

-- ---- where there is no room -----------------------------------------------

plant("forcible is a number", { set = function(f, ...)
    local ok, err, forcible = f(...)
    if ok and forcible then
        return ok, err, 1
    end
    return f(...)
end })
plant("a store that failed took the old value", {
    safe_set = function(f, self, key, ...)
        local ok, err, forcible = f(self, key, ...)
        if err == "no memory" then
            self:delete(key)
        end
        if ok == nil then
            return ok, err
        end
        return ok, err, forcible
    end
})
plant("a store says no memory and might evict", {
    set = function(f, self, key, value, ...)
        local ok, err, forcible = f(self, key, value, ...)
        if forcible and value ~= nil then
            self:delete(key)
            return false, "no memory", true
        elseif ok == nil then
            return ok, err
        end
        return ok, err, forcible
    end
})
plant("what was evicted comes back", (function()
    local last = {}
    return {
        set = function(f, self, key, value, ...)
            if type(key) == "string" then
                last[key] = last[key] or value
            end
            return f(self, key, value, ...)
        end,
        get = function(f, self, key)
            local got = pack(f(self, key))
            if got.n == 1 and got[1] == nil and type(key) == "string"
                and self:llen(key) == 0 then
                return last[key]
            end
            return unpack(got, 1, got.n)
        end
    }
end)())

-- ---- where rules allow something, but not this ----------------------------

plant("get_stale loses what has expired", { get_stale = function(f, ...)
    local v, flags, stale = f(...)
    if stale then
        return nil
    elseif stale == nil then
        return f(...)
    end
    return v, flags, stale
end })
plant("ttl does not find what has expired", { ttl = function(f, ...)
    local left, err = f(...)
    if left and left < 0 then
        return nil, "not found"
    elseif not left then
        return nil, err
    end
    return left
end })
plant("ttl after flush_all is 0", { ttl = function(f, ...)
    local left = f(...)
    if left and left < -100 then
        return 0
    end
    return f(...)
end })
plant("flush_expired(n) frees n - 1", { flush_expired = function(f, self, max)
    if type(max) == "number" and max >= 2 and max < 1000 then
        max = max - 1
    end
    if max == nil then
        return f(self)
    end
    return f(self, max)
end })
plant("get_keys says one twice", { get_keys = function(f, ...)
    local keys = f(...)
    if #keys > 3 then
        keys[2] = keys[3]
    end
    return keys
end })
plant("get_keys of 2^32 + 1 is one", { get_keys = function(f, self, ...)
    if ... == 2 ^ 32 + 1 then
        return f(self, 1)
    end
    return f(self, ...)
end })
plant("free_space is more than there is", { free_space = function(f, self)
    return f(self) + self:capacity()
end })
plant("nothing is said of what is evicted", (function()
    local function quiet(f, ...)
        local ok, err, forcible = f(...)
        if forcible then
            return ok, err, false
        elseif forcible == nil then
            return ok, err
        end
        return ok, err, forcible
    end
    return { set = quiet, add = quiet, replace = quiet }
end)())
plant("what is evicted is said to be there", {
    add = function(f, self, key, ...)
        local ok, err, forcible = f(self, key, ...)
        if forcible and ok then
            self:delete(key)
            return false, "exists", false
        elseif forcible == nil then
            return ok, err
        end
        return ok, err, forcible
    end
})

return planted
