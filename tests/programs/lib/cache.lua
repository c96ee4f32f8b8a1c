-- SPDX-License-Identifier: BSD-2-Clause
-- cache.lua - a cache of two levels: each worker's own Lua values (an LRU of
-- lua-resty-lrucache), and text in a shared dictionary. What is in neither is
-- made by a callback, by one worker at a time.
--
--     local cache = cache.new("name", "cache", { ttl = 10, neg_ttl = 1 })
--     local value, err, level = cache:get(key, options, callback, ...)
--
-- level: 1 this worker's, 2 the dictionary's, 3 the callback's, 4 an old value
-- because the callback failed. A nil of the callback is kept too.

local lrucache = require "resty.lrucache"
local lock = require "lock"

local NOTHING = {}
local NIL_TEXT = "n"

local Cache = {}
Cache.__index = Cache

local M = {}

function M.new(name, dict_name, options)
    local own, err = lrucache.new(options.own_items or 100)
    if not own then
        return nil, err
    end
    return setmetatable({
        name = name,
        own = own,
        dict = ngx.shared[dict_name],
        locks = options.locks or dict_name,
        ttl = options.ttl or 30,
        neg_ttl = options.neg_ttl or 5,
        stale_ttl = options.stale_ttl,
        purges = 0
    }, Cache)
end

local function to_text(value)
    if value == nil then
        return NIL_TEXT
    elseif type(value) == "number" then
        return "d" .. ("%.17g"):format(value)
    elseif type(value) == "boolean" then
        return value and "t" or "f"
    end
    return "s" .. value
end

local function from_text(text)
    local kind = text:sub(1, 1)
    if kind == "s" then
        return text:sub(2)
    elseif kind == "d" then
        return tonumber(text:sub(2))
    elseif kind == NIL_TEXT then
        return nil
    end
    return kind == "t"
end

function Cache:in_dict(key)
    return self.name .. ":" .. key
end

-- What other workers have changed: a version for each change of a key, and
-- one for all keys.
function Cache:follow(key)
    local purges = self.dict:get(self:in_dict("\0purges")) or 0
    if purges ~= self.purges then
        self.own:flush_all()
        self.purges = purges
    end
    return self.dict:get(self:in_dict("\0version\0" .. key)) or 0
end

function Cache:keep_own(key, value, ttl, version)
    self.own:set(key, { value = value == nil and NOTHING or value,
                        version = version }, ttl > 0 and ttl or nil)
    return value
end

-- From the dictionary: found, value, seconds left.
function Cache:from_dict(key)
    local text, err = self.dict:get(self:in_dict(key))
    if err and text == nil then
        return nil, err
    elseif text == nil then
        return false
    end
    local left = self.dict:ttl(self:in_dict(key))
    if left and left < 0 then -- it ended in between
        return false
    end
    return true, from_text(text), left or 0.001
end

function Cache:make(key, options, callback, ...)
    local ok, value, err = pcall(callback, ...)
    if ok and not err then
        local ttl = value == nil and (options.neg_ttl or self.neg_ttl)
            or options.ttl or self.ttl
        local stored
        stored, err = self.dict:set(self:in_dict(key), to_text(value), ttl)
        if not stored then
            return nil, err
        end
        return value, nil, 3, ttl
    end
    err = ok and err or value
    local text, _, stale = self.dict:get_stale(self:in_dict(key))
    if text == nil or not self.stale_ttl then
        return nil, err
    end
    -- It serves for a while longer, unless somebody has made another.
    if stale then
        self.dict:set(self:in_dict(key), text, self.stale_ttl)
    end
    return from_text(text), nil, 4, self.stale_ttl
end

function Cache:get(key, options, callback, ...)
    options = options or {}
    local version = self:follow(key)
    local own = self.own:get(key)
    if own and own.version == version then
        local value = own.value
        if value == NOTHING then
            value = nil
        end
        return value, nil, 1
    end
    local found, value, left = self:from_dict(key)
    if found == nil then
        return nil, value
    elseif found then
        return self:keep_own(key, value, left, version), nil, 2
    end

    local guard = assert(lock.new(self.locks, { exptime = 30, timeout = 20,
                                                max_step = 0.05 }))
    local waited, err = guard:lock(self:in_dict("\0lock\0" .. key))
    if not waited then
        return nil, "no lock: " .. err
    end
    found, value, left = self:from_dict(key)
    local level, ttl = 2, left
    if not found then
        value, err, level, ttl = self:make(key, options, callback, ...)
    end
    guard:unlock()
    if err then
        return nil, err
    end
    return self:keep_own(key, value, ttl, version), nil, level
end

-- Seconds left and value, without making it; nil if it is not there.
function Cache:peek(key)
    local left = self.dict:ttl(self:in_dict(key))
    if not left or left < 0 then
        return nil
    end
    return left, (select(2, self:from_dict(key)))
end

function Cache:changed(key)
    return self.dict:incr(self:in_dict("\0version\0" .. key), 1, 0)
end

function Cache:set(key, value, ttl)
    local ok, err = self.dict:set(self:in_dict(key), to_text(value),
                                  ttl or self.ttl)
    if not ok then
        return nil, err
    end
    return self:changed(key)
end

function Cache:delete(key)
    local ok, err = self.dict:delete(self:in_dict(key))
    if not ok then
        return nil, err
    end
    return self:changed(key)
end

-- Everything, in all workers. Only if nothing else is in the dictionary.
function Cache:purge()
    self.dict:flush_all()
    local freed = self.dict:flush_expired()
    self.dict:set(self:in_dict("\0purges"), ngx.now() + freed / 1e6)
    return freed
end

return M
