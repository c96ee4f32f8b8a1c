-- SPDX-License-Identifier: BSD-2-Clause
--
-- app.lua - what a web application does with a shared dictionary.
--
--   GET  /files/NAME   page cache: filled from files, with expiry
--   GET  /count/NAME   adds one to a counter, answers its new value
--   GET  /stats        all counters, as JSON
--   POST /jobs         appends the body to the job list
--   GET  /jobs         length of the job list
--   GET  /jobs/next    takes the oldest job; 204 when there is none
--   any                a limit of requests per client: 429 over it
--
-- and what between.lua has, where the workers do things for each other.
--
-- Everything the workers share is in four dictionaries, and every change is
-- one call: done or not begun, even when the worker is killed inside it.
-- So there is nothing to repair here, and no worker waits for a dead one.

local uv = require "luv"
local cjson = require "cjson.safe"

local App = {}
App.__index = App

local NAME = "[%w_-][%w._-]*"
local TEXT = "Content-Type: text/plain\r\n"

-- dicts: cache, limits, counters, jobs. settings: docroot, page_ttl,
-- absent_ttl, lock_ttl, rate, rate_window (seconds), page_bytes.
function App.new(dicts, settings)
    return setmetatable({
        cache = dicts.cache,
        limits = dicts.limits,
        counters = dicts.counters,
        jobs = dicts.jobs,
        settings = settings,
        id = tostring(uv.os_getpid()),
        fields = "X-Worker: " .. uv.os_getpid() .. "\r\n",
    }, App)
end

-- A dictionary that is full, or locked by a stopped process for longer than
-- the bound, is the only way a change can fail: nothing was changed then.
local function refuse(reply, err)
    if err == "no memory" then
        return reply(507, "no memory\n", TEXT)
    end
    return reply(503, tostring(err) .. "\n", TEXT .. "Retry-After: 1\r\n")
end

-- ---- rate limit --------------------------------------------------------

-- A counter that begins a new window by itself: it is made with the window
-- as its time to live, and increments do not prolong it.
function App:over_limit(request, peer)
    local client = request.headers["x-client-id"] or
                   request.query:match("^client=([^&]+)") or
                   request.query:match("&client=([^&]+)") or peer
    local seen = self.limits:incr("rate:" .. client:sub(1, 64), 1, 0,
                                  self.settings.rate_window)
    -- No answer from the limiter is no reason to turn a client away.
    return seen and seen > self.settings.rate
end

-- ---- page cache --------------------------------------------------------

-- done(body) or done(nil, err); does not block the event loop.
local function read_file(path, bytes_max, done)
    uv.fs_open(path, "r", 0, function(err, fd)
        if err then
            return done(nil, err)
        end
        local function finish(body, why)
            uv.fs_close(fd, function()
                done(body, why)
            end)
        end
        uv.fs_fstat(fd, function(stat_err, stat)
            if stat_err or stat.type ~= "file" then
                return finish(nil, stat_err or "ENOENT: not a file")
            elseif stat.size > bytes_max then
                return finish(nil, "EFBIG: file too large")
            end
            uv.fs_read(fd, stat.size, 0, function(read_err, body)
                finish(body, read_err)
            end)
        end)
    end)
end

App.read_file = read_file

function App:fill(name, reply)
    local settings = self.settings
    read_file(settings.docroot .. "/" .. name, settings.page_bytes,
              function(body, err)
        if body then
            -- A store that fails costs a miss next time, nothing else.
            self.cache:set("page:" .. name, body, settings.page_ttl)
            self:page_reply(reply, body, "MISS")
        elseif err:match("^ENOENT") then
            -- `false` remembers for a while that there is no such file.
            self.cache:set("page:" .. name, false, settings.absent_ttl)
            self:page_reply(reply, false)
        else
            io.stderr:write("cannot read ", name, ": ", err, "\n")
            reply(500, "cannot read the file\n", TEXT)
        end
        self.cache:delete("lock:" .. name)
    end)
end

function App:page_reply(reply, body, how)
    if body == false then
        return reply(404, "no such file\n", TEXT)
    end
    return reply(200, body, self.fields .. "X-Cache: " .. how .. "\r\n" ..
                 "Content-Type: application/octet-stream\r\n")
end

-- Of all workers that miss, the one whose add() succeeds reads the file.
-- The others answer with the expired page if it is still there, and else
-- look again a little later. The lock is an entry with a time to live, so
-- that a worker killed while it fills holds the others up for no longer.
function App:page(reply, name, waited_ms)
    local key = "page:" .. name
    local body = self.cache:get(key)
    if body ~= nil then
        return self:page_reply(reply, body, "HIT")
    end
    local lock_ms = self.settings.lock_ttl * 1000
    if self.cache:add("lock:" .. name, self.id, lock_ms / 1000) then
        -- Between our look and our lock another may have filled it.
        body = self.cache:get(key)
        if body == nil then
            return self:fill(name, reply)
        end
        self.cache:delete("lock:" .. name)
        return self:page_reply(reply, body, "HIT")
    elseif waited_ms > lock_ms then
        return self:fill(name, reply)
    end
    local stale = self.cache:get_stale(key)
    if stale ~= nil then
        return self:page_reply(reply, stale, "STALE")
    end
    local timer = uv.new_timer()
    timer:start(10, 0, function()
        timer:close()
        self:page(reply, name, waited_ms + 10)
    end)
end

-- ---- counters ----------------------------------------------------------

function App:count(reply, name)
    local value, err = self.counters:incr(name, 1, 0)
    if not value then
        return refuse(reply, err)
    end
    reply(200, ("%.0f\n"):format(value), self.fields .. TEXT)
end

function App:stats(reply)
    local all = {}
    for _, name in ipairs(self.counters:get_keys(0)) do
        all[name] = self.counters:get(name)
    end
    reply(200, cjson.encode(all) .. "\n",
          self.fields .. "Content-Type: application/json\r\n")
end

-- ---- jobs --------------------------------------------------------------

function App:push(reply, body)
    if body == "" then
        return reply(400, "a job has a body\n", TEXT)
    end
    local length, err = self.jobs:rpush("queue", body)
    if not length then
        return refuse(reply, err)
    end
    reply(201, ("%d\n"):format(length), self.fields .. TEXT)
end

function App:pop(reply)
    local job, err = self.jobs:lpop("queue")
    if err then
        return refuse(reply, err)
    elseif not job then
        return reply(204, "", self.fields)
    end
    reply(200, job,
          self.fields .. "Content-Type: application/octet-stream\r\n")
end

function App:length(reply)
    local length, err = self.jobs:llen("queue")
    if not length then
        return refuse(reply, err)
    end
    reply(200, ("%d\n"):format(length), self.fields .. TEXT)
end

-- ---- routes ------------------------------------------------------------

local ROUTES = {
    { "^/files/(" .. NAME .. ")$", GET = function(self, reply, name)
        self:page(reply, name, 0)
    end, HEAD = function(self, reply, name)
        self:page(reply, name, 0)
    end },
    { "^/count/(" .. NAME .. ")$", GET = App.count },
    { "^/stats$", GET = App.stats, HEAD = App.stats },
    { "^/jobs$", GET = App.length, POST = function(self, reply, _, request)
        self:push(reply, request.body)
    end },
    { "^/jobs/next$", GET = App.pop },
    { "^/work$", POST = function(self, reply, _, request)
        self.between:push(reply, request.body)
    end },
    { "^/work/(%d+)$", GET = function(self, reply, number)
        self.between:result(reply, number)
    end },
    { "^/pages/(" .. NAME .. ")$", GET = function(self, reply, name)
        self.between:page(reply, name)
    end, PURGE = function(self, reply, name)
        self.between:purge(reply, name)
    end },
    { "^/pages$", PURGE = function(self, reply)
        self.between:purge(reply, "")
    end },
    { "^/ticks$", GET = function(self, reply)
        self.between:last_tick(reply)
    end },
}

local function allowed(route)
    local methods = {}
    for method in pairs(route) do
        methods[#methods + 1] = method ~= 1 and method or nil
    end
    table.sort(methods)
    return table.concat(methods, ", ")
end

function App:handle(request, reply, peer)
    if self:over_limit(request, peer) then
        return reply(429, "too many requests\n", TEXT ..
            ("Retry-After: %d\r\n"):format(
                math.max(1, math.ceil(self.settings.rate_window))))
    end
    for _, route in ipairs(ROUTES) do
        local name = request.path:match(route[1])
        if name then
            local method = route[request.method]
            if not method then
                return reply(405, "method not allowed\n",
                             TEXT .. "Allow: " .. allowed(route) .. "\r\n")
            elseif #name > 64 then
                break
            end
            return method(self, reply, name, request)
        end
    end
    reply(404, "not found\n", TEXT)
end

return App
