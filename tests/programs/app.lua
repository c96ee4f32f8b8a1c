-- SPDX-License-Identifier: BSD-2-Clause
-- app.lua - an application of the programs in lib/: one location each, for
-- run's load. None of this knows whose dictionaries ngx.shared holds.

local cache = require "cache"
local counter = require "counter"
local events = require "events"
local limit = require "limit"
local lock = require "lock"
local metrics = require "metrics"

local app = {}
local shared = ngx.shared

local pages, fragile, old, requests, seconds, busy, counted

-- In init_worker: what each worker has of its own.
function app.start()
    pages = assert(cache.new("pages", "cache", { ttl = 60, neg_ttl = 60,
                                                 locks = "locks" }))
    fragile = assert(cache.new("fragile", "tiny", { ttl = 60,
                                                    locks = "locks" }))
    -- The original frees expired entries at its cold end as it goes: an entry
    -- there that does not expire keeps the old values.
    shared.stale:add("floor", true)
    old = assert(cache.new("old", "stale", { ttl = 0.2, stale_ttl = 60,
                                             locks = "locks" }))
    local m = metrics.new("metrics")
    requests = m:counter("app_requests", { "host", "status" })
    busy = m:gauge("app_busy")
    seconds = m:histogram("app_seconds", { "host" }, { 0.1, 1, 10 })
    app.metrics = m
    counted = assert(counter.new("counters", 0.05))

    local log = "seen:" .. ngx.worker.id()
    events.register(function(data, event, source)
        assert(shared.report:rpush(log, source .. "/" .. event .. "/"
                                   .. data))
        if event == "once" then
            assert(shared.report:incr("once:" .. data, 1, 0))
        end
    end)
    -- What nobody has read by then is lost: more than any machine needs.
    assert(events.configure { dict = "events", interval = 0.02,
                              timeout = 600 })
end

-- Reads a number, waits, and writes one more: right only if nobody else is
-- between the two.
function app.lock(args)
    local guard = assert(lock.new("locks", { exptime = 60, timeout = 60,
                                             max_step = 0.02 }))
    local waited, err = guard:lock(args.key)
    if not waited then
        return { error = err }
    end
    local plain = shared.report
    local inside = plain:incr("inside:" .. args.key, 1, 0)
    local n = plain:get("n:" .. args.key) or 0
    ngx.sleep(0.001 * math.random(0, 2))
    plain:set("n:" .. args.key, n + 1)
    plain:incr("inside:" .. args.key, -1)
    assert(guard:unlock())
    return { inside = inside, waited = waited }
end

-- Takes it, and does not come back.
function app.lock_left(args)
    local guard = assert(lock.new("locks", { exptime = tonumber(args.exptime),
                                             timeout = 0 }))
    local waited, err = guard:lock(args.key)
    return { waited = waited, error = err }
end

function app.lock_timeout(args)
    local guard = assert(lock.new("locks", { exptime = 60, max_step = 0.02,
                                             timeout = tonumber(args.timeout)
                                           }))
    local waited, err = guard:lock(args.key)
    return { waited = waited, error = err }
end

function app.count(args)
    local l = limit.count.new("limits", tonumber(args.limit),
                              tonumber(args.seconds))
    local ok, err = l:incoming("count:" .. args.key)
    return { admitted = ok and 1 or 0, error = err }
end

function app.conn(args)
    local l = limit.conn.new("limits", tonumber(args.limit))
    local key = "conn:" .. args.key
    local ok, err = l:incoming(key)
    if not ok then
        return { admitted = 0, error = err }
    end
    local now = shared.report:incr("now:" .. args.key, 1, 0)
    ngx.sleep(0.002)
    shared.report:incr("now:" .. args.key, -1)
    assert(l:leaving(key))
    return { admitted = 1, now = now }
end

function app.req(args)
    local l = limit.req.new("limits", tonumber(args.rate),
                            tonumber(args.burst))
    ngx.update_time()
    local ok, err = l:incoming("req:" .. args.key)
    return { admitted = ok and 1 or 0, error = err, at = ngx.now() }
end

local function make(key)
    shared.report:incr("made:" .. key, 1, 0)
    ngx.sleep(0.01)
    if key:find("^nothing") then
        return nil
    end
    return "page of " .. key
end

function app.cache(args)
    local value, err, level = pages:get(args.key, nil, make, args.key)
    return { value = value, error = err, level = level }
end

function app.cache_set(args)
    return { version = assert(pages:set(args.key, args.value)) }
end

function app.cache_delete(args)
    return { version = assert(pages:delete(args.key)) }
end

function app.cache_purge()
    return { freed = assert(pages:purge()) }
end

function app.cache_peek(args)
    local left, value = pages:peek(args.key)
    return { left = left, value = value }
end

-- In a zone where not everything has room.
function app.fragile(args)
    local wanted = args.key .. ("x"):rep(tonumber(args.bytes))
    local value, err, level = fragile:get(args.key, nil, function()
        shared.report:incr("made:fragile", 1, 0)
        return wanted
    end)
    return { right = value == wanted and "yes" or "no", error = err,
             level = level }
end

-- Of a source that can be down.
function app.old(args)
    local value, err, level = old:get(args.key, nil, function()
        if shared.report:get("down") then
            return nil, "down"
        end
        return "of " .. args.key
    end)
    return { value = value, error = err, level = level }
end

function app.metric(args)
    assert(busy:inc(1, {}))
    assert(requests:inc(1, { args.host, args.status }))
    assert(seconds:observe(tonumber(args.seconds), { args.host }))
    ngx.sleep(0)
    assert(busy:inc(-1, {}))
    return {}
end

function app.metric_del(args)
    return { ok = requests:del({ args.host, args.status }) }
end

function app.event(args)
    local id
    if args.unique then
        id = assert(events.post_once("app", "once", args.data, args.unique))
    else
        id = assert(events.post("app", "each", args.data))
    end
    return { id = id, pid = ngx.worker.pid() }
end

function app.count_up(args)
    for i = 1, tonumber(args.times) do
        counted:incr(args.key, i % 2 == 0 and 2 or 1)
    end
    return {}
end

-- ---- requests -------------------------------------------------------------

function app.handle()
    local name = ngx.var.uri:match("^/app/([%w_]+)$")
    local f = name and app[name]
    if not f then
        return ngx.exit(404)
    end
    local answer = f(ngx.req.get_uri_args())
    answer.worker = ngx.worker.id()
    ngx.print(ngx.encode_args(answer))
end

return app
