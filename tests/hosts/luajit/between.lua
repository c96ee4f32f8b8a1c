-- SPDX-License-Identifier: BSD-2-Clause
--
-- between.lua - what the workers of a server do for each other.
--
--   POST  /work         a job for any of the workers; answers its number
--   GET   /work/N       its result; 202 while there is none
--   GET   /pages/NAME   a file, from this worker's own memory
--   PURGE /pages/NAME   forget it, in every worker; PURGE /pages: all of them
--   GET   /ticks        the last tick of a timer of which all workers have one
--
-- A queue, a topic and a lock, and one descriptor that wakes the event loop
-- when any of them has something for this worker. Nothing here polls, but
-- look(): four times a second, for what nobody rings a bell (a worker died
-- and there is no supervisor; the end of a lease).

local uv = require "luv"
local cjson = require "cjson.safe"

local Between = {}
Between.__index = Between

local LOOK_MS = 250
local JOBS_AT_ONCE = 16 -- between two looks at the sockets
local TICKS_KEPT = 1000
local TEXT = "Content-Type: text/plain\r\n"

local function complain(what, err)
    io.stderr:write(what, ": ", tostring(err), "\n")
end

-- ---- jobs --------------------------------------------------------------

-- The job itself, of any kind. It may be begun more than once, so it must be
-- the same done twice: a result by the job's number is.
local function perform(text)
    return text:upper()
end

function Between:push(reply, body)
    if body == "" then
        return reply(400, "a job has a body\n", TEXT)
    end
    local number, err = self.queue:push(body)
    if not number then
        return reply(503, err .. "\n", TEXT .. "Retry-After: 1\r\n")
    end
    reply(202, ("%d\n"):format(number), self.fields .. TEXT)
end

function Between:result(reply, number)
    local result, worker = self.results:get("result:" .. number)
    if result == nil then
        return reply(202, "not done\n", self.fields .. TEXT)
    end
    reply(200, result, self.fields .. "X-Worked-By: " ..
          ("%d\r\n"):format(worker) ..
          "Content-Type: application/octet-stream\r\n")
end

-- First the result, then the acknowledgement: killed between the two, the job
-- comes back, and is done again.
function Between:finish(text, lease, number)
    local ok, err = self.results:set("result:" .. number, perform(text),
                                     self.settings.result_ttl,
                                     uv.os_getpid())
    if ok then
        ok, err = self.queue:ack(lease)
    else -- full: somebody else may have more luck, a little later
        self.queue:nack(lease, 1)
    end
    -- Lost: it took longer than its lease, and is another's by now.
    if not ok and err ~= "lost" then
        complain("job " .. number, err)
    end
end

-- One job at a time, if it takes time.
function Between:take_jobs()
    for _ = 1, JOBS_AT_ONCE do
        if self.lease then
            return
        end
        local text, lease, _, number = self.queue:take(0)
        if not text then
            if lease ~= "empty" then
                complain("jobs", lease)
            end
            return
        elseif self.settings.work_time == 0 then
            self:finish(text, lease, number)
        else
            self.lease = lease
            self.working:start(self.settings.work_time * 1000, 0, function()
                self.lease = nil
                self:finish(text, lease, number)
                self:look()
            end)
        end
    end
end

-- ---- pages in this worker's memory -------------------------------------

-- Everything that was purged is forgotten before a page is given from memory.
-- An event is in the topic before PURGE is answered, and looking for one costs
-- the reading of two words: so no page is given that was purged before it was
-- asked for, by whichever worker.
function Between:catch_up()
    local events, missed = self.purges:batch()
    while events do
        -- So far behind that events are gone: any page may be a stale one.
        if missed > 0 then
            self:forget("")
        end
        for _, event in ipairs(events) do
            self:forget(event.data)
        end
        if #events == 0 then
            return true
        end
        events, missed = self.purges:batch()
    end
    if missed ~= "timeout" then
        self:forget("")
        complain("purges", missed)
        return false
    end
    return true
end

-- "": everything. A page that is just being read is as it was before.
function Between:forget(name)
    if name == "" then
        self.pages, self.kept = {}, 0
    elseif self.pages[name] then
        self.pages[name] = nil
        self.kept = self.kept - 1
    end
    for reading in pairs(self.reading) do
        reading.stale = reading.stale or name == "" or reading.name == name
    end
end

function Between:keep(reading, body)
    if not self:catch_up() or reading.stale then
        return
    end
    if self.kept >= self.settings.pages_max then
        self.pages, self.kept = {}, 0
    end
    self.kept = self.kept + (self.pages[reading.name] and 0 or 1)
    self.pages[reading.name] = body
end

function Between:page(reply, name)
    local fields = self.fields .. "Content-Type: application/octet-stream\r\n"
    -- Without the topic nothing in memory is to be trusted.
    if self:catch_up() and self.pages[name] then
        return reply(200, self.pages[name], fields .. "X-Cache: LOCAL\r\n")
    end
    local reading = { name = name, stale = false }
    self.reading[reading] = true
    self.read_file(self.settings.docroot .. "/" .. name,
                   self.settings.page_bytes, function(body, err)
        if body then
            self:keep(reading, body)
        end
        self.reading[reading] = nil
        if body then
            return reply(200, body, fields .. "X-Cache: READ\r\n")
        end
        if err:match("^ENOENT") then
            return reply(404, "no such file\n", TEXT)
        end
        complain("cannot read " .. name, err)
        reply(500, "cannot read the file\n", TEXT)
    end)
end

function Between:purge(reply, name)
    local number, err = self.topic:publish(name)
    if not number then
        return reply(503, err .. "\n", TEXT .. "Retry-After: 1\r\n")
    end
    reply(200, ("%d\n"):format(number), self.fields .. TEXT)
end

-- ---- a timer that one worker has ---------------------------------------

-- The lock makes one of the workers the one with the timer, and its death the
-- next. What makes it sure is the store: it takes a tick only from a token
-- that is not older than the last one's, and each tick once, in one step. A
-- worker that was stopped past its time and goes on is refused.
function Between:tick()
    local token, number = self.token, math.floor(uv.hrtime() / 1e9 /
                                                 self.settings.tick)
    if not self.lock:extend(self:tick_ttl()) then
        self:resign()
        return self:stand()
    end
    local last = self.counters:get("last tick")
    local last_token, last_number = (last or "0 0"):match("^(%d+) (%d+)$")
    if tonumber(last_token) > token or tonumber(last_number) >= number then
        return
    end
    if self.counters:cas("last tick", last,
                         ("%d %d"):format(token, number)) then
        -- Killed just here, this tick is left out, and never done twice.
        self:perform_tick(number, token)
    end
end

-- The tick itself: here it only writes down that it was done.
function Between:perform_tick(number, token)
    local length = self.results:rpush("ticks", ("%d %d %d"):format(
        number, token, uv.os_getpid()))
    if length and length > TICKS_KEPT then
        self.results:lpop("ticks")
    end
end

-- A leader that hangs is replaced after that.
function Between:tick_ttl()
    return math.max(1, 5 * self.settings.tick)
end

function Between:lead(token)
    self.token, self.ticket = token, nil
    local ms = self.settings.tick * 1000
    self.ticking:start(0, ms, function()
        self:tick()
    end)
end

function Between:resign()
    self.token = nil
    self.ticking:stop()
end

-- Gets in line, once; or looks whether it is our turn.
function Between:stand()
    if self.settings.tick == 0 or self.token or self.stopping then
        return
    end
    local token, other
    if self.ticket then
        token, other = self.lock:poll(self.ticket)
    else
        token, other = self.lock:request(self:tick_ttl())
        self.ticket = token == false and other or nil
    end
    if token then
        self:lead(token)
    elseif token == nil then
        self.ticket = nil
        complain("tick", other)
    end
end

function Between:last_tick(reply)
    local last = self.counters:get("last tick") or "0 0"
    local token, number = last:match("^(%d+) (%d+)$")
    reply(200, cjson.encode { token = tonumber(token),
                              number = tonumber(number) } .. "\n",
          self.fields .. "Content-Type: application/json\r\n")
end

-- ---- the loop ----------------------------------------------------------

-- Looks at everything, and has the bell ring for what comes next. Arming tells
-- whether something is there already.
function Between:look()
    if self.stopping then
        return
    end
    self:catch_up()
    self:take_jobs()
    self:stand()
    local purged = self.purges:arm() == false
    if purged or (not self.lease and self.queue:arm()) then
        self.soon:start(0, 0, function()
            self:look()
        end)
    end
end

function Between:open()
    local settings, err = self.settings, nil
    self.queue, err = self.segment:queue("work", {
        capacity = settings.work_bytes, deliveries_max = settings.deliveries,
        lease = settings.work_lease })
    if not self.queue then
        return nil, err
    end
    self.topic, err = self.segment:topic("purges", {
        capacity = settings.topic_bytes })
    if not self.topic then
        return nil, err
    end
    self.purges, err = self.topic:subscribe()
    if not self.purges then
        return nil, err
    end
    self.lock, err = self.segment:lock("tick")
    if not self.lock then
        return nil, err
    end
    return self.segment:worker_fd()
end

-- After segment:join(). dicts: results, counters. read_file: app.lua's.
function Between.new(segment, dicts, settings, read_file)
    local self = setmetatable({
        segment = segment,
        results = dicts.results,
        counters = dicts.counters,
        settings = settings,
        read_file = read_file,
        fields = "X-Worker: " .. uv.os_getpid() .. "\r\n",
        pages = {}, kept = 0, -- by name; how many
        reading = {},         -- those that are being read just now
    }, Between)
    local fd, err = self:open()
    if not fd then
        return nil, err
    end
    for _, name in ipairs { "working", "ticking", "looking", "soon" } do
        self[name] = uv.new_timer()
    end
    self.bell = uv.new_poll(fd)
    self.bell:start("r", function()
        segment:worker_fd_clear()
        self:look()
    end)
    self.looking:start(0, LOOK_MS, function()
        self:look()
    end)
    return self
end

-- What this worker has goes to others now, not when it has ended.
function Between:stop()
    if self.stopping then
        return
    end
    self.stopping = true
    if self.lease then
        self.queue:nack(self.lease)
    end
    if self.ticket then
        local token = self.lock:cancel(self.ticket)
        self.token = self.token or tonumber(token)
    end
    if self.token then
        self.lock:release(self.token)
    end
    for _, handle in ipairs { self.bell, self.working, self.ticking,
                              self.looking, self.soon } do
        handle:close()
    end
end

return Between
