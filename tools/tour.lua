-- SPDX-License-Identifier: BSD-2-Clause
-- The worker of tools/tour: it takes a job, is busy with a cache and a counter,
-- and never comes to its end.
local shdict = require "shdict"

local segment = assert(shdict.open(os.getenv "TOUR_SEGMENT" or "tour"))
local cache = assert(segment:dict("cache"))
local counters = assert(segment:dict("counters"))
local job = assert(segment:queue("jobs"):take())

for n = 1, math.huge do
    local key = "item " .. n * n % 7919
    if not cache:get(key) then
        assert(cache:set(key, ("x"):rep(n % 7 * 100)))
    end
    local hits = assert(counters:incr("hits", 1, 0))
    if hits == 50000 then
        print("worker: " .. hits .. " requests served, and at it: " .. job)
        io.stdout:flush()
    end
end
