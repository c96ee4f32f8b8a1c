-- SPDX-License-Identifier: BSD-2-Clause
-- counter.lua - counters that a worker adds up by itself, and brings into the
-- shared dictionary from time to time.
--
--     local counter = counter.new("counters", 0.1) -- seconds; in init_worker
--     counter:incr("key", 2)
--     counter:get("key")     what has been brought in, by all workers

local M = {}

local Counter = {}
Counter.__index = Counter

function M.new(name, interval)
    local self = setmetatable({ dict = ngx.shared[name], own = {},
                                failed = 0 }, Counter)
    if interval then
        local ok, err = ngx.timer.every(interval, function()
            self:sync()
        end)
        if not ok then
            return nil, err
        end
    end
    return self
end

function Counter:incr(key, by)
    self.own[key] = (self.own[key] or 0) + (by or 1)
end

function Counter:sync()
    local own = self.own
    self.own = {}
    for key, by in pairs(own) do
        local ok = self.dict:incr(key, by, 0)
        if not ok then -- the next time
            self.failed = self.failed + 1
            self:incr(key, by)
        end
    end
end

function Counter:get(key)
    return self.dict:get(key)
end

function Counter:reset(key, by)
    return self.dict:incr(key, -by, by)
end

function Counter:keys(max)
    return self.dict:get_keys(max)
end

return M
