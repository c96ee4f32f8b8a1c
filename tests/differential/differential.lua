-- SPDX-License-Identifier: BSD-2-Clause
-- differential.lua - runs the same calls on ngx.shared.DICT and on a dict of
-- ours, in one nginx, and compares every answer. See run.
--
-- A *world* is what a seed makes: a kind, and a sequence of calls. Both dicts
-- are empty when it begins, and the clock stands still but for "advance".

local ffi = require "ffi"
local shdict = require "shdict"
local calls = require "calls"
local model = require "model"
local rules = require "rules"
local planted = require "planted"

ffi.cdef "void differential_clock_set(uint64_t ms);"

local WALL_MS = 1700000000000 -- clock.c
local MUTATES = { set = true, safe_set = true, add = true, safe_add = true,
                  replace = true, incr = true, lpush = true, rpush = true,
                  lpop = true, rpop = true, expire = true }

local segment = assert(shdict.anonymous { size = "256m" })
local START = 1000000 -- clock.c
local now = START
local tally = { calls = 0, raised = 0, differing = 0, brought_together = 0,
                methods = {}, kinds = {} }

local function advance(ms)
    now = now + ms
    ffi.C.differential_clock_set(now)
    ngx.update_time()
end

local function say(format, ...)
    io.stdout:write(format:format(...), "\n")
    io.stdout:flush()
end

-- ---- one world ------------------------------------------------------------

local function text_of(answer)
    if answer.raised then
        return "raised " .. answer[1]
    end
    local words = {}
    for i = 1, answer.n do
        local v = answer[i]
        if type(v) == "table" then
            local list = {}
            for j, key in ipairs(v) do
                list[j] = calls.literal(key)
            end
            words[i] = "{" .. table.concat(list, ", ") .. "}"
        else
            words[i] = calls.literal(v)
        end
    end
    return "(" .. table.concat(words, ", ") .. ")"
end

local function empty_stock(dict)
    dict:flush_all()
    repeat
        dict:flush_expired()
    until #dict:get_keys(0) == 0
end

-- Both sides, with dicts that hold nothing.
local function begin(world, plant)
    advance(START - now)
    local stock = ngx.shared[world.zone]
    empty_stock(stock)
    segment:destroy_dict("ours")
    local ours = assert(segment:dict("ours", {
        capacity = world.capacity,
        shards = not world.sharded and 1 or nil
    }))
    return {
        world = world,
        stock = stock,
        ours = plant and plant(ours) or ours,
        s = model.side("stock", world, WALL_MS),
        o = model.side("ours", world, 0)
    }
end

local function synthetic(m, ...)
    return { m = m, style = 1, n = select("#", ...), ... }
end

-- The same call on both, outside of the comparison, but never unlike.
local function on_both(w, c)
    local a = calls.make_call(c, w.stock, w.ours)
    local b = calls.make_call(c, w.ours, w.stock)
    local n = model.normalize(c)
    return w.s:follow(n, a) and w.o:follow(n, b)
end

-- The oldest entry never expires: the original, which frees up to two expired
-- entries at its cold end with each call, then frees none.
local function refloor(w)
    for _, side in ipairs { w.s, w.o } do
        for key in pairs(side.entries) do
            w.stock:delete(key)
            w.ours:delete(key)
        end
    end
    w.s.entries, w.o.entries = {}, {}
    on_both(w, synthetic("flush_expired"))
    on_both(w, synthetic("set", "floor", 0))
    w.s.floored = true
end

local function seen(side, key)
    local e = side.entries[key]
    if not e then
        return nil
    end
    return { expires = e.expires, expired = side:is_expired(e),
             over = side:is_over(e),
             flushed = e.flushed, flushed_all = e.flushed_all }
end

local function allowed(w, c, n, a, b, before)
    local x = {
        c = c, n = n, a = a, b = b, world = w.world, now = now,
        s = before.s, o = before.o, floored = before.floored,
        partly_flushed = before.partly_flushed
    }
    if n and n.key then
        x.s_gone, x.o_gone = w.s.was_gone, w.o.was_gone
    end
    for _, r in ipairs(rules) do
        if r.when(x) then
            r.count = r.count + 1
            return true
        end
    end
    return false
end

local function unlike(w, c, a, b, why)
    return ("%s\n    at %d ms: %s\n    stock: %s\n    ours:  %s")
        :format(why, now, calls.text(c), text_of(a), text_of(b))
end

-- After a difference the two may hold different things under a key, and no
-- answer about it could be compared any more.
local function bring_together(w, n)
    local s, o = w.s.entries[n.key], w.o.entries[n.key]
    if w.s.unsure or w.o.unsure then
        s, o = nil, nil
    elseif not s or not o then
        if not s and not o or w.world.small then
            return
        end
        local e = s or o
        if (s and w.s or w.o):is_expired(e) and n.m ~= "expire" then
            return
        end
    elseif model.same_entry(s, o)
        and (s.expires == o.expires or s.flushed_all
             or o.expires == nil and s.expires > 2 ^ 48 - 1) then
        return
    end
    tally.brought_together = tally.brought_together + 1
    w.stock:delete(n.key)
    w.ours:delete(n.key)
    w.s:drop(n.key)
    w.o:drop(n.key)
end

local function count_call(c, a)
    tally.calls = tally.calls + 1
    tally.methods[c.m] = (tally.methods[c.m] or 0) + 1
    if a.raised then
        tally.raised = tally.raised + 1
    end
end

-- One call on both. Nil, or what is wrong.
local function step(w, c)
    if c.m == "advance" then
        advance(c[1])
        w.s.now, w.o.now = now, now
        return nil
    elseif c.m == "refloor" then
        return refloor(w)
    end
    local n = model.normalize(c)
    local before = {
        floored = w.s.floored,
        partly_flushed = w.s.partly_flushed or w.o.partly_flushed
    }
    if n and n.key then
        before.s, before.o = seen(w.s, n.key), seen(w.o, n.key)
    end
    local a = calls.make_call(c, w.stock, w.ours)
    local b = calls.make_call(c, w.ours, w.stock)
    count_call(c, a)
    if n then
        local s_ok, o_ok = w.s:follow(n, a), w.o:follow(n, b)
        local same = model.same(a, b)
        if not o_ok then
            return unlike(w, c, a, b, "not what ours can answer")
        elseif not s_ok then
            return unlike(w, c, a, b, "not what the original can answer")
        elseif not same and not allowed(w, c, n, a, b, before) then
            return unlike(w, c, a, b, "unlike, and no rule allows it")
        end
        tally.differing = tally.differing + (same and 0 or 1)
        if MUTATES[n.m] then
            bring_together(w, n)
        end
    elseif not model.same(a, b) then
        tally.differing = tally.differing + 1
        if not allowed(w, c, nil, a, b, before) then
            return unlike(w, c, a, b, "unlike, and no rule allows it")
        end
    elseif not a.raised and (a.n ~= 2 or a[1] ~= nil
                             or type(a[2]) ~= "string") then
        return unlike(w, c, a, b, "no error for what cannot be")
    end
end

-- Runs a list of calls. Nil, or { at = index, text = }.
local function run(world, list, plant)
    local w = begin(world, plant)
    w.s.now, w.o.now = now, now
    if world.floored then
        refloor(w)
    end
    for i = 1, #list do
        local wrong = step(w, list[i])
        if wrong then
            return { at = i, text = wrong }
        end
    end
end

-- ---- failures -------------------------------------------------------------

-- The fewest calls that still fail, by leaving out ever smaller parts.
local function shrink(world, list, plant)
    local part = math.floor(#list / 2)
    local tries = 0
    while part >= 1 and tries < 3000 do
        local from = 1
        while from <= #list and tries < 3000 do
            local shorter = {}
            for i, c in ipairs(list) do
                if i < from or i >= from + part then
                    shorter[#shorter + 1] = c
                end
            end
            tries = tries + 1
            local failure = run(world, shorter, plant)
            if failure then
                list = {}
                for i = 1, failure.at do
                    list[i] = shorter[i]
                end
            else
                from = from + part
            end
        end
        part = math.floor(part / 2)
    end
    return list, run(world, list, plant)
end

local function cut(list, at)
    local first = {}
    for i = 1, at do
        first[i] = list[i]
    end
    return first
end

local function report(world, list, failure)
    say("FAILED  seed %d (%s world), call %d: %s", world.seed, world.kind,
        failure.at, failure.text)
    say("    replay: tests/differential/run --seed %d --calls %d",
        world.seed, failure.at)
    local fewest, again = shrink(world, cut(list, failure.at))
    if not again then
        say("    (the shorter replay does not fail: it is not repeatable)")
        return
    end
    say("    the fewest calls that fail:%s",
        world.floored and " (d:set(\"floor\", 0) first)" or "")
    for _, c in ipairs(fewest) do
        say("        %s", calls.text(c))
    end
    say("    %s", again.text)
end

-- ---- the tests ------------------------------------------------------------

local passed, failed = 0, 0

local function verdict(ok, format, ...)
    passed = passed + (ok and 1 or 0)
    failed = failed + (ok and 0 or 1)
    say((ok and "ok      " or "FAILED  ") .. format, ...)
end

local CALLS_A_WORLD = 5000
local FAILURES_SHOWN = 3

-- As many worlds as hold `total` calls.
local function compare(first_seed, total, calls_a_world)
    local failures = {}
    local shown = 0
    local seed = first_seed
    while tally.calls < total do
        local world = calls.world(seed)
        local list = calls.make(world, calls_a_world)
        local had = tally.calls
        -- In the interpreter and in compiled code.
        jit[world.interpreted and "off" or "on"]()
        local failure = run(world, list)
        jit.on()
        tally.kinds[world.kind] = (tally.kinds[world.kind] or 0)
            + tally.calls - had
        if failure then
            failures[world.kind] = (failures[world.kind] or 0) + 1
            shown = shown + 1
            if shown <= FAILURES_SHOWN then
                report(world, list, failure)
            end
            if shown >= 20 then
                break
            end
        end
        seed = seed + 1
    end
    for _, kind in ipairs { "exact", "sweeping", "evicting" } do
        if tally.kinds[kind] then
            verdict(not failures[kind], "%d calls in %s worlds",
                    tally.kinds[kind], kind)
        end
    end
end

local function say_figures()
    say("%d calls of %d methods on both dicts; %d raised an error on both",
        tally.calls, #calls.methods, tally.raised)
    local words = {}
    for _, m in ipairs(calls.methods) do
        words[#words + 1] = m .. " " .. (tally.methods[m] or 0)
    end
    say("    %s", table.concat(words, ", "))
    say("%d answers differed, every one as a rule says:", tally.differing)
    for _, r in ipairs(rules) do
        say("    %8d  %s (%s)", r.count, r.name, r.says)
    end
    say("%d times a key was deleted on both after such a difference",
        tally.brought_together)
end

local function rules_are_needed()
    for _, r in ipairs(rules) do
        if r.count == 0 then
            verdict(false, "the rule \"%s\" allows what never happened",
                    r.name)
        end
    end
    verdict(true, "%d rules", #rules)
end

-- Each planted difference has to be found.
local function find_planted(first_seed, worlds, calls_a_world)
    for _, p in ipairs(planted) do
        local found
        for seed = first_seed, first_seed + worlds - 1 do
            local world = calls.world(seed)
            local list = calls.make(world, calls_a_world)
            local failure = run(world, list, p.plant)
            if failure then
                found = { seed = seed, at = failure.at }
                local fewest = shrink(world, cut(list, failure.at), p.plant)
                found.fewest = #fewest
                break
            end
        end
        if p.harmless then
            verdict(not found, "planted: %s: %s", p.name,
                    found and "and found" or "not found")
        elseif found then
            verdict(true, "planted: %s: seed %d, call %d, shrunk to %d",
                    p.name, found.seed, found.at, found.fewest)
        else
            verdict(false, "planted: %s: not found", p.name)
        end
    end
end

local M = {}

-- o: seed, calls (of one world, or nil), total, plants (whether).
function M.main(o)
    local started = os.clock()
    if o.calls then
        local world = calls.world(o.seed)
        compare(o.seed, 1, o.calls)
        say("world: %s, zone %s", world.kind, world.zone)
    else
        compare(o.seed, o.total, CALLS_A_WORLD)
        say_figures()
        if o.total >= 1000000 then
            rules_are_needed()
        end
        say("%.1f s", os.clock() - started)
        if o.plants then
            find_planted(o.seed, 40, 3000)
        end
    end
    say("%.1f s in all", os.clock() - started)
    say("%d passed, %d failed", passed, failed)
    return failed == 0 and passed > 0
end

return M
