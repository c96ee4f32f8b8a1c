-- SPDX-License-Identifier: BSD-2-Clause
-- A worker for tools/pictures: pages of all sizes in a cache, sessions that
-- expire, counters of a limiter, lists; for ever.
local shdict = require "shdict"

local segment = assert(shdict.open(assert(os.getenv "PICTURES_SEGMENT")))
local cache = assert(segment:dict("cache"))
local sessions = assert(segment:dict("sessions"))
local limits = assert(segment:dict("limits"))
local jobs = assert(segment:queue("jobs", { capacity = "256k" }))
local news = assert(segment:topic("news", { capacity = "64k" }))
local body = ("x"):rep(20000)

math.randomseed(tonumber(os.getenv "SHDICT_WORKER") + 1)
for n = 1, math.huge do
    local page = "page " .. math.floor(16000 * math.random() ^ 3)
    if not cache:get(page) then
        local size = math.floor(3500 * math.random() ^ 2)
        cache:set(page, body:sub(1, size))
    end
    local user = math.random(9000)
    if not sessions:get("user " .. user) then
        sessions:set("user " .. user, body:sub(1, 40 + user % 200), 30)
    end
    limits:incr("address " .. user % 1500, 1, 0, 60)
    if n % 100 == 0 then
        sessions:rpush("seen " .. user % 50, page)
        jobs:push(page)
        if n % 700 ~= 0 then jobs:pop() end
        news:publish(page)
    end
end
