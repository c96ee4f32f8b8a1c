-- SPDX-License-Identifier: BSD-2-Clause
-- shdict/events.lua - events between workers, with the methods of
-- lua-resty-worker-events: post to all, to one, or to whoever is first.
--
--     local events = require "shdict.events"
--     assert(events.configure { segment = segment, topic = "events" })
--     events.register(function(data, event, source, worker) ... end, "cache")
--     events.post("cache", "purge", { key = 17 })
--     ...
--     events.poll()        -- from a timer, or when the worker's bell rings
--
-- It stands on a topic, so who polls too seldom is told how many it missed
-- (the source "worker-events", the event "missed"), and nobody is held up.
-- What is for one worker goes the same way: all that a worker is told comes in one
-- order, poll() waits at one place, and a name may be any. Who wants to know whether
-- that worker is there, and has got it, sends by segment:mailbox.
--
-- OWNS   one subscription for each Lua state.
-- HOLDS  handlers run in poll() and post_local() only, each in a pcall; every
--        event runs in its worker once. With `unique`, in one worker alone, as
--        long as unique_timeout.

local encoder_ok, cjson = pcall(require, "cjson.safe")

local M = {}

local handlers = {} -- [source or "*"][event or "*"] = array of functions
local state         -- of configure()
local polling = false

local UNIQUE_BYTES = 65536

-- Either a cjson-like pair of functions, or LuaJIT's string.buffer.
local function default_codec()
    if encoder_ok then
        return cjson.encode, cjson.decode
    end
    local ok, buffer = pcall(require, "string.buffer")
    if ok then
        return buffer.encode, buffer.decode
    end
end

-- options: segment; topic ("worker-events"), capacity of it (1m);
-- worker (this worker's name for post_to, as a number or a string; default:
-- SHDICT_WORKER), unique_timeout (5 s), encode and decode (cjson's).
function M.configure(options)
    if type(options) ~= "table" or type(options.segment) ~= "table" then
        return nil, "options with a segment expected"
    end
    local segment = options.segment
    local name = options.topic or "worker-events"
    local encode, decode = options.encode, options.decode
    if not encode then
        encode, decode = default_codec()
    end
    if not encode then
        return nil, "neither cjson nor string.buffer is there: give encode "
                    .. "and decode"
    end
    local topic, err, code = segment:topic(name, {
        capacity = options.capacity or "1m"
    })
    if not topic then
        return nil, err, code
    end
    local unique
    unique, err, code = segment:dict(name .. ".unique", {
        capacity = UNIQUE_BYTES
    })
    if not unique then
        return nil, err, code
    end
    local subscription
    subscription, err, code = topic:subscribe()
    if not subscription then
        return nil, err, code
    end
    state = {
        topic = topic,
        unique = unique,
        subscription = subscription,
        encode = encode,
        decode = decode,
        worker = tostring(options.worker or os.getenv("SHDICT_WORKER") or ""),
        unique_timeout = options.unique_timeout or 5,
        log = options.log or function(text)
            io.stderr:write("shdict.events: ", text, "\n")
        end
    }
    return true
end

-- ---- handlers ------------------------------------------------------------

local function list_of(source, event)
    source = source or "*"
    event = event or "*"
    handlers[source] = handlers[source] or {}
    handlers[source][event] = handlers[source][event] or {}
    return handlers[source][event]
end

-- callback(data, event, source, worker) for these events of a source, or all
-- of them; without a source for everything.
function M.register(callback, source, ...)
    local count = select("#", ...)
    if count == 0 then
        table.insert(list_of(source), callback)
    end
    for i = 1, count do
        table.insert(list_of(source, (select(i, ...))), callback)
    end
    return true
end

local function remove(list, callback)
    local removed = false
    for i = #list, 1, -1 do
        if list[i] == callback then
            table.remove(list, i)
            removed = true
        end
    end
    return removed
end

-- Was it registered?
function M.unregister(callback, source, ...)
    local count = select("#", ...)
    local removed = false
    if count == 0 then
        removed = remove(list_of(source), callback)
    end
    for i = 1, count do
        removed = remove(list_of(source, (select(i, ...))), callback)
                  or removed
    end
    return removed
end

-- A table of the event names given, that raises an error for any other.
function M.event_list(source, ...)
    local list = { _source = source }
    for i = 1, select("#", ...) do
        local event = select(i, ...)
        list[event] = event
    end
    return setmetatable(list, {
        __index = function(_, key)
            error(("event '%s' is an unknown event of '%s'")
                  :format(tostring(key), tostring(source)), 2)
        end
    })
end

local function run_list(list, data, event, source, worker)
    -- A copy: a handler may unregister itself.
    local now = { unpack(list or {}) }
    for i = 1, #now do
        local ok, err = pcall(now[i], data, event, source, worker)
        if not ok then
            state.log(("a handler of %s, %s failed: %s")
                      :format(tostring(source), tostring(event),
                              tostring(err)))
        end
    end
end

local function run(source, event, data, worker)
    local of_source = handlers[source]
    if of_source then
        run_list(of_source[event], data, event, source, worker)
        run_list(of_source["*"], data, event, source, worker)
    end
    local of_all = handlers["*"]
    if of_all then
        run_list(of_all["*"], data, event, source, worker)
    end
end

-- ---- posting -------------------------------------------------------------

local function post(source, event, data, unique, to)
    if not state then
        return nil, "not initialized, call configure first"
    end
    if type(source) ~= "string" or source == "" then
        return nil, "source is required"
    end
    if type(event) ~= "string" or event == "" then
        return nil, "event is required"
    end
    local text, err = state.encode {
        source = source, event = event, data = data, unique = unique,
        to = to, worker = state.worker
    }
    if not text then
        return nil, "cannot encode: " .. tostring(err)
    end
    local seq
    seq, err = state.topic:publish(text)
    if not seq then
        return nil, err
    end
    return "done"
end

-- To all workers, this one too; with `unique` (a string) only the first one
-- that comes to it runs it.
function M.post(source, event, data, unique)
    return post(source, event, data, unique and tostring(unique))
end

-- To the worker of that name alone.
function M.post_to(worker, source, event, data)
    if worker == nil or worker == "" then
        return nil, "worker is required"
    end
    return post(source, event, data, nil, tostring(worker))
end

-- To this worker alone, at once.
function M.post_local(source, event, data)
    if not state then
        return nil, "not initialized, call configure first"
    end
    if type(source) ~= "string" or type(event) ~= "string" then
        return nil, "source and event are required"
    end
    run(source, event, data, nil)
    return "done"
end

-- ---- polling -------------------------------------------------------------

local function is_ours(message)
    if message.to and message.to ~= state.worker then
        return false
    end
    if not message.unique then
        return true
    end
    local key = message.source .. "\n" .. message.event .. "\n"
                .. message.unique
    local ok, err = state.unique:add(key, state.worker, state.unique_timeout)
    if not ok and err ~= "exists" then
        state.log("unique event: " .. tostring(err))
    end
    return ok
end

local function handle(text)
    local ok, message, err = pcall(state.decode, text)
    if not ok or type(message) ~= "table" then
        state.log("an event cannot be decoded: "
                  .. tostring(ok and err or message))
        return
    end
    if is_ours(message) then
        run(message.source, message.event, message.data, message.worker)
    end
end

-- Runs the handlers of what has come: "done". "recursive": called by one of
-- them. timeout: seconds to wait for the first event (0).
function M.poll(timeout)
    if not state then
        return nil, "not initialized, call configure first"
    end
    if polling then
        return "recursive"
    end
    polling = true
    local failure
    repeat
        local batch, missed, code = state.subscription:batch(256, timeout)
        timeout = 0
        if not batch and code ~= "SHD_NOTFOUND" then
            failure = missed
        end
        if batch and missed > 0 then
            run("worker-events", "missed", missed, nil)
        end
        for i = 1, batch and #batch or 0 do
            handle(batch[i].data)
        end
    until not batch
    polling = false
    if failure then
        return nil, failure
    end
    return "done"
end

-- The subscription, for its arm(): the worker's bell rings when there is
-- something to poll for.
function M.subscription()
    return state and state.subscription
end

return M
