-- SPDX-License-Identifier: BSD-2-Clause
-- events.lua - events that every worker gets, in one order, through a shared
-- dictionary that each of them polls.
--
--     events.configure { dict = "events", interval = 0.05, timeout = 5 }
--     events.register(function(data, event, source, pid) ... end)
--     events.post(source, event, data)
--     events.post_once(source, event, data, unique)  in one worker only

local M = {}

local dict, timeout, interval
local handlers = {}
local last
local LAST = "events-last"
local WAIT_MAX = 200 -- polls for an event that has a number and no data yet

local waited = 0
M.lost = 0

local function packed(...)
    local parts = { ... }
    for i, part in ipairs(parts) do
        parts[i] = #part .. ":" .. part
    end
    return table.concat(parts)
end

local function unpacked(text)
    local parts = {}
    local at = 1
    while at <= #text do
        local n, from = text:match("^(%d+):()", at)
        parts[#parts + 1] = text:sub(from, from + n - 1)
        at = from + n
    end
    return unpack(parts)
end

-- Those that are due, to the handlers. Nothing is done twice: it does not
-- yield between the reading of a number and its counting.
function M.poll()
    local newest = dict:get(LAST) or 0
    while last < newest do
        local text = dict:get("event:" .. last + 1)
        if not text and waited < WAIT_MAX then
            waited = waited + 1
            return
        end
        waited = 0
        last = last + 1
        if not text then
            M.lost = M.lost + 1
        else
            local source, event, data, unique, pid = unpacked(text)
            if unique == "" or dict:add("unique:" .. unique, 1, timeout) then
                for _, handler in ipairs(handlers) do
                    handler(data, event, source, tonumber(pid))
                end
            end
        end
    end
end

local function post(source, event, data, unique)
    local id, err = dict:incr(LAST, 1, 0)
    if not id then
        return nil, err
    end
    local ok
    ok, err = dict:add("event:" .. id,
                       packed(source, event, data, unique,
                              tostring(ngx.worker.pid())), timeout)
    if not ok then
        return nil, err
    end
    return id
end

function M.post(source, event, data)
    return post(source, event, data, "")
end

function M.post_once(source, event, data, unique)
    return post(source, event, data, unique)
end

function M.register(handler)
    handlers[#handlers + 1] = handler
end

-- In init_worker_by_lua. From the next event on.
function M.configure(options)
    dict = ngx.shared[options.dict]
    timeout = options.timeout
    interval = options.interval
    last = dict:get(LAST) or 0
    return ngx.timer.every(interval, function(premature)
        if not premature then
            M.poll()
        end
    end)
end

return M
