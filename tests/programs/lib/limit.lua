-- SPDX-License-Identifier: BSD-2-Clause
-- limit.lua - three limits kept in a shared dictionary.
--
--     count.new(dict, limit, seconds):incoming(key)   requests in a window
--     conn.new(dict, limit):incoming(key), :leaving(key)  at the same time
--     req.new(dict, rate, burst):incoming(key)        requests a second
--
-- incoming gives true, or nil and "rejected", or nil and an error of the dict.

local M = { count = {}, conn = {}, req = {} }

-- ---- so many in a window, which begins with the first of them --------------

local Count = {}
Count.__index = Count

function M.count.new(name, limit, seconds)
    return setmetatable({ dict = ngx.shared[name], limit = limit,
                          seconds = seconds }, Count)
end

function Count:incoming(key)
    local n, err = self.dict:incr(key, 1, 0, self.seconds)
    if not n then
        return nil, err
    elseif n > self.limit then
        return nil, "rejected"
    end
    return true, self.limit - n
end

-- Another window: from now on, for what has come in already.
function Count:prolong(key, seconds)
    return self.dict:expire(key, seconds)
end

-- ---- so many at the same time ---------------------------------------------

local Conn = {}
Conn.__index = Conn

function M.conn.new(name, limit)
    return setmetatable({ dict = ngx.shared[name], limit = limit }, Conn)
end

function Conn:incoming(key)
    local n, err = self.dict:incr(key, 1, 0)
    if not n then
        return nil, err
    elseif n > self.limit then
        n, err = self.dict:incr(key, -1)
        return nil, n and "rejected" or err
    end
    return true, n
end

function Conn:leaving(key)
    return self.dict:incr(key, -1)
end

-- ---- a leaking bucket -------------------------------------------------------
-- It holds `excess` requests, and leaks `rate` a second. Two workers that look
-- at the same time may both be let in, so a key is exact for one client only.

local Req = {}
Req.__index = Req

function M.req.new(name, rate, burst)
    return setmetatable({ dict = ngx.shared[name], rate = rate,
                          burst = burst }, Req)
end

function Req:incoming(key)
    local now = ngx.now()
    local state, err = self.dict:get(key)
    local excess = 0
    if state then
        local before, last = state:match("^(%S+) (%S+)$")
        excess = math.max(0, tonumber(before) + 1
                             - self.rate * math.max(0, now - tonumber(last)))
        if excess > self.burst then
            return nil, "rejected"
        end
    elseif err then
        return nil, err
    end
    local ok
    ok, err = self.dict:set(key, ("%.6f %.6f"):format(excess, now))
    if not ok then
        return nil, err
    end
    return true, excess
end

return M
