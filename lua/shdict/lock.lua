-- SPDX-License-Identifier: BSD-2-Clause
-- shdict/lock.lua - lua-resty-lock's methods over a dict, for locks with as
-- many names as you like, which a worker that dies does not keep.
--
--     local lock = assert(require("shdict.lock"):new("locks"))
--     local elapsed, err = lock:lock("page:17")
--     ...
--     lock:unlock()
--
-- A dict's entry is the lock; its value says who holds it. Who finds it held
-- by a worker that is proved dead takes it over at once; the original waits
-- for it to expire. unlock and expire touch it only while it is still this
-- one's: the original would free another's that came after it expired.
--
-- HOLDS  the results and errors are lua-resty-lock's.
-- WAITS  as it does: looks again after `step` s, each time `ratio` longer, up
--        to max_step; by ngx.sleep if there is one, else the thread sleeps.
--        A lock of segment:lock() is handed over without that.

local ffi = require "ffi"
local library = require "shdict_library"

local lib = library.lib

local M = {}
local Lock = {}
Lock.__index = Lock

-- By other names: a program may have declared these its own way.
if not pcall(ffi.typeof, "struct shdict_timespec") then
    ffi.cdef [[
    struct shdict_timespec { long tv_sec; long tv_nsec; };
    int shdict_nanosleep(const void *, void *) __asm__("nanosleep");
    int shdict_clock_gettime(int, void *) __asm__("clock_gettime");
    ]]
end

local timespec = ffi.typeof("struct shdict_timespec")

local function thread_sleep(seconds)
    local whole = math.floor(seconds)
    ffi.C.shdict_nanosleep(timespec(whole, (seconds - whole) * 1e9), nil)
end

local function now()
    local t = timespec()
    ffi.C.shdict_clock_gettime(1, t) -- CLOCK_MONOTONIC
    return tonumber(t.tv_sec) + tonumber(t.tv_nsec) / 1e9
end

local function sleep(seconds)
    local ngx = rawget(_G, "ngx")
    if type(ngx) == "table" and ngx.sleep then
        ngx.sleep(seconds)
    else
        thread_sleep(seconds)
    end
end

local acquired = 0 -- by this Lua state

-- "incarnation:state:number": another one each time.
local function value_of(segment)
    local incarnation, err = segment:join()
    if not incarnation then
        return nil, err
    end
    acquired = acquired + 1
    return ("%.0f:%s:%d"):format(incarnation, tostring(M):match("0x%x+"),
                                 acquired)
end

-- Is the worker that stored this gone for certain?
local function is_dead(self, value)
    local incarnation = type(value) == "string" and
                        tonumber(value:match("^(%d+):"))
    return incarnation ~= nil and incarnation ~= false and
           lib.shd_worker_is_alive(self.segment[1], incarnation) == 0
end

-- name: of a dict in ngx.shared, or a dict. opts: exptime (30), timeout (5),
-- step (0.001), ratio (2), max_step (0.5), all in seconds but ratio.
function M.new(_, name, opts)
    local dict = name
    if type(name) ~= "table" then
        local ngx = rawget(_G, "ngx")
        dict = type(ngx) == "table" and ngx.shared and ngx.shared[name]
    end
    if not dict then
        return nil, "dictionary not found"
    end
    opts = opts or {}
    local timeout = opts.timeout or 5
    local self = {
        dict = dict,
        segment = dict[2],
        exptime = opts.exptime or 30,
        timeout = timeout,
        step = opts.step or 0.001,
        ratio = opts.ratio or 2,
        max_step = opts.max_step or 0.5
    }
    self.max_step = math.min(self.max_step, timeout)
    return setmetatable(self, Lock)
end

-- true: it is ours. false, and an error unless it is held.
local function try(self, key, value)
    local dict = self.dict
    local ok, err = dict:add(key, value, self.exptime)
    if ok then
        return true
    end
    if err ~= "exists" then
        return false, err
    end
    local held = dict:get(key)
    if not is_dead(self, held) then
        return false
    end
    ok, err = dict:cas(key, held, value, self.exptime)
    if ok then
        return true
    end
    if err == "changed" or err == "not found" then
        return false
    end
    return false, err
end

-- The seconds it took, or nil, "timeout" ...
function Lock.lock(self, key)
    if not key then
        return nil, "nil key"
    end
    if self.key then
        return nil, "locked"
    end
    key = tostring(key)
    local value, err = value_of(self.segment)
    if not value then
        return nil, err
    end
    local started = now()
    local step, left = self.step, self.timeout
    while true do
        local ok
        ok, err = try(self, key, value)
        if ok then
            self.key = key
            self.value = value
            return now() - started
        end
        if err then
            return nil, err
        end
        left = self.timeout - (now() - started)
        if left <= 0 then
            return nil, "timeout"
        end
        sleep(math.min(step, left))
        step = math.min(step * self.ratio, self.max_step)
    end
end

-- 1; nil, "unlocked": it was not locked, or it is another's by now.
function Lock.unlock(self)
    local key, value = self.key, self.value
    if not key then
        return nil, "unlocked"
    end
    self.key = nil
    self.value = nil
    local ok, err = self.dict:cas(key, value, nil)
    if ok then
        return 1
    end
    if err == "changed" or err == "not found" then
        return nil, "unlocked"
    end
    return nil, err
end

-- Holds it for so many seconds from now on (nil: exptime).
function Lock.expire(self, time)
    if not self.key then
        return nil, "unlocked"
    end
    local ok, err = self.dict:cas(self.key, self.value, self.value,
                                  time or self.exptime)
    if ok then
        return true
    end
    if err == "changed" or err == "not found" then
        return nil, "unlocked"
    end
    return nil, err
end

return M
