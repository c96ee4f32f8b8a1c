-- SPDX-License-Identifier: BSD-2-Clause
-- lock.lua - a lock among all workers, in a shared dictionary: an entry that
-- only one can add, gone by itself when its holder does not come back.
--
--     local lock = lock.new("locks", { exptime = 30, timeout = 5 })
--     local elapsed, err = lock:lock("key") -- "timeout", or of the dict
--     lock:unlock()

local Lock = {}
Lock.__index = Lock

local M = {}

function M.new(name, options)
    local dict = ngx.shared[name]
    if not dict then
        return nil, "no such dictionary"
    end
    options = options or {}
    return setmetatable({
        dict = dict,
        exptime = options.exptime or 30,
        timeout = options.timeout or 5,
        step = options.step or 0.001,
        ratio = options.ratio or 2,
        max_step = options.max_step or 0.5
    }, Lock)
end

-- The seconds it waited; or nil and "timeout", or an error of the dict.
function Lock:lock(key)
    if self.key then
        return nil, "locked already"
    end
    local waited, step = 0, self.step
    while true do
        local ok, err = self.dict:add(key, true, self.exptime)
        if ok then
            self.key = key
            return waited
        elseif err ~= "exists" then
            return nil, err
        end
        local left = self.timeout - waited
        if left <= 0 then
            return nil, "timeout"
        end
        local nap = math.min(step, left)
        ngx.sleep(nap)
        waited = waited + nap
        step = math.min(step * self.ratio, self.max_step)
    end
end

-- Another time to live from now on; nil if it is not held any more.
function Lock:expire(exptime)
    if not self.key then
        return nil, "not locked"
    end
    return self.dict:replace(self.key, true, exptime or self.exptime)
end

function Lock:unlock()
    local key = self.key
    if not key then
        return nil, "not locked"
    end
    self.key = nil
    return self.dict:delete(key)
end

return M
