-- SPDX-License-Identifier: BSD-2-Clause
--
-- server.lua - one worker of an HTTP server that shares its state through
-- shdict. Start several of them on one socket:
--
--   shdict supervise -n 4 --segment demo --listen 127.0.0.1:8080 \
--       --dict cache=16m --dict limits=4m --dict counters=1m \
--       --dict jobs=16m -- luajit tests/hosts/luajit/server.lua
--
-- or a single one: luajit server.lua --segment demo --listen 127.0.0.1:8080
-- See README.md for what it needs and what it answers.

local here = arg[0]:match("^(.*)/") or "."
package.path = here .. "/?.lua;" .. package.path

local uv = require "luv"
local shdict = require "shdict"
local http = require "http"
local App = require "app"
local Between = require "between"

-- ---- settings ----------------------------------------------------------

local settings = {
    docroot = here .. "/../docroot",
    segment = os.getenv("SHDICT_SEGMENT"),
    page_ttl = 60,      -- seconds a page is served from the cache
    absent_ttl = 1,     -- seconds the absence of a file is remembered
    lock_ttl = 1,       -- seconds one worker may take to fill a page
    page_bytes = 1048576,
    rate = 1000000,     -- requests per client and window
    rate_window = 1,    -- seconds
    grace = 0.3,        -- seconds a silent client has left after SIGTERM
    stop = 5,           -- seconds a slow client has left after SIGTERM
    work_bytes = 16777216, -- memory for jobs of other workers
    work_time = 0,      -- seconds a job takes
    work_lease = 30,    -- seconds after which a job is another's
    deliveries = 5,     -- a job that killed so many workers is put aside
    result_ttl = 600,   -- seconds a result is kept
    topic_bytes = 1048576, -- memory for purges
    pages_max = 1000,   -- pages a worker has in its own memory
    tick = 0,           -- seconds between ticks of the timer; 0: none
}

-- Sizes for a worker that runs alone; `supervise --dict` decides otherwise.
local DICTS = { cache = "16m", limits = "4m", counters = "1m",
                jobs = "16m", results = "16m" }

local function fail(code, ...)
    io.stderr:write("server.lua: ", table.concat({ ... }), "\n")
    os.exit(code)
end

local function parse_arguments()
    local i = 1
    while arg[i] do
        local name = arg[i]:match("^%-%-([%w-]+)$")
        local key = name and name:gsub("-", "_")
        local value = arg[i + 1]
        if key ~= "listen" and settings[key] == nil and key ~= "segment" then
            fail(2, "unknown option ", arg[i])
        elseif not value then
            fail(2, arg[i], " needs a value")
        elseif type(settings[key]) == "number" then
            value = tonumber(value)
            if not value or value < 0 then
                fail(2, arg[i], " needs a number")
            end
        end
        settings[key] = value
        i = i + 2
    end
end

-- The listening socket: the one the supervisor passes to all workers
-- (systemd's protocol: descriptor 3, meant for LISTEN_PID), or our own.
local function listen_options()
    local fds = tonumber(os.getenv("LISTEN_FDS"))
    local pid = tonumber(os.getenv("LISTEN_PID"))
    if fds and fds >= 1 and pid == uv.os_getpid() then
        return { fd = 3 }
    end
    local host, port = (settings.listen or ""):match("^([%d.]+):(%d+)$")
    if not host then
        fail(2, "no socket was passed; give --listen ADDRESS:PORT")
    end
    return { host = host, port = tonumber(port) }
end

-- ---- dictionaries ------------------------------------------------------

local function open_dicts()
    if not settings.segment then
        fail(2, "set SHDICT_SEGMENT or give --segment NAME")
    end
    local segment, err = shdict.open(settings.segment)
    if not segment then
        fail(3, "cannot open the segment ", settings.segment, ": ", err)
    end
    local dicts = {}
    for name, capacity in pairs(DICTS) do
        local dict = segment:dict(name) -- there already, of any size
        if not dict then
            dict, err = segment:dict(name, { capacity = capacity })
        end
        if not dict then
            fail(3, "cannot open the dict ", name, ": ", err)
        end
        dicts[name] = dict
    end
    return segment, dicts
end

-- ---- the worker --------------------------------------------------------

parse_arguments()
local options = listen_options()
local segment, dicts = open_dicts()
local app = App.new(dicts, settings)

options.handler = function(request, reply, peer)
    return app:handle(request, reply, peer)
end
local server = http.serve(options)

local function stop()
    local patience = uv.new_timer()
    patience:start(settings.stop * 1000, 0, function()
        uv.stop()
    end)
    if app.between then
        app.between:stop()
    end
    server:drain(settings.grace * 1000, function()
        patience:close()
    end)
end
for _, name in ipairs { "sigterm", "sigint" } do
    local signal, stopping = uv.new_signal(), false
    signal:unref() -- does not keep the loop running
    signal:start(name, function()
        if not stopping then
            stopping = true
            stop()
        end
    end)
end

-- The first change would do it; so `shdict workers` shows idle ones too. By
-- now SIGTERM is caught: who is listed drains.
local incarnation, err = segment:join()
if not incarnation then
    fail(3, "cannot join the segment: ", err)
end
app.between, err = Between.new(segment, dicts, settings, App.read_file)
if not app.between then
    fail(3, "cannot open what is between workers: ", err)
end

uv.run()
segment:close()
os.exit(0)
