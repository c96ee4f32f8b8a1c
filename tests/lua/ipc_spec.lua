-- SPDX-License-Identifier: BSD-2-Clause
-- Topics, locks and semaphores; shdict.lock and shdict.events.

package.path = (debug.getinfo(1, "S").source:match("^@(.*/)") or "./")
    .. "?.lua;" .. package.path

local support = require "support"
local shdict = require "shdict"
local ffi = require "ffi"
local C = support.C

local function refused(pattern, code, value, err, name)
    assert.is_nil(value)
    assert.matches(pattern, err)
    assert.equal(code, name)
end

-- Runs f in a child, which ends with its result: true is 0; or is killed after
-- it.
local function child(f, killed)
    local pid = C.fork()
    if pid == 0 then
        local ok, result = pcall(f)
        if killed then
            C.kill(C.getpid(), 9)
        end
        if not (ok and result) then
            io.stderr:write("child: ", tostring(result), "\n")
        end
        C._exit(ok and result and 0 or 1)
    end
    local status = ffi.new("int[1]")
    C.waitpid(pid, status, 0)
    return status[0] == 0
end

describe("topics", function()
    local segment, topic

    before_each(function()
        segment = support.segment()
        topic = assert(segment:topic("news", { capacity = "64k" }))
    end)
    after_each(support.clean)

    it("publishes many at once", function()
        local a = assert(topic:subscribe())
        local texts = {}
        for i = 1, 300 do
            texts[i] = ("e"):rep(i % 50) .. i
        end
        local numbers = assert(topic:publish_many(texts))
        assert.equal(300, #numbers)
        assert.equal(300, numbers[300])
        local got = {}
        while #got < 300 do
            for _, event in ipairs(assert(a:batch())) do
                got[#got + 1] = event.data
            end
        end
        assert.same(texts, got)
        assert.same({}, topic:publish_many({}))
        local ok, _, code, published =
            topic:publish_many({ "one", ("x"):rep(2 ^ 20) })
        assert.is_nil(ok)
        assert.equal("SHD_TOOBIG", code)
        assert.equal(1, #published)
    end)

    it("give every event to every subscriber", function()
        local a, b = assert(topic:subscribe()), assert(topic:subscribe())
        assert.equal(1, topic:publish("one"))
        assert.equal(2, topic:publish("tw\0o"))
        for _, s in ipairs { a, b } do
            assert.same({ "one", 1, 0 }, { s:next() })
            assert.same({ "tw\0o", 2, 0 }, { s:next() })
            assert.same({ nil, "timeout", "SHD_NOTFOUND" }, { s:next() })
        end
    end)

    it("are closed with their segment, and say so", function()
        local s = assert(topic:subscribe())
        assert(topic:publish("one"))
        assert(segment:close())
        refused("closed", "SHD_CLOSED", s:next())
        refused("closed", "SHD_CLOSED", s:batch())
        refused("closed", "SHD_CLOSED", s:arm())
        refused("closed", "SHD_CLOSED", s:acknowledge())
        refused("closed", "SHD_CLOSED", s:close())
        refused("closed", "SHD_CLOSED", topic:publish("two"))
    end)

    it("refuse a max that is no number", function()
        local s = assert(topic:subscribe())
        for _, max in ipairs { "x", {}, true, 0, -1, 0 / 0 } do
            assert.equal("SHD_INVAL", (select(3, s:batch(max))))
        end
    end)

    it("give batches, and say what was missed", function()
        local s = assert(topic:subscribe())
        for i = 1, 3000 do
            assert(topic:publish(("x"):rep(100) .. i))
        end
        local info = assert(topic:info())
        assert.equal(3000, info.published)
        assert.is_false(info.lossless)
        local want, missed_all = 1, 0
        while want <= 3000 do
            local batch, missed = assert(s:batch())
            missed_all = missed_all + missed
            want = want + missed
            for _, event in ipairs(batch) do
                assert.equal(want, event.seq)
                assert.equal(("x"):rep(100) .. want, event.data)
                want = want + 1
            end
        end
        assert.equal(info.oldest - 1, missed_all)
        assert.is_nil(s:batch())
    end)

    it("begin with what is kept, or by name where that was", function()
        for i = 1, 5 do
            assert(topic:publish(tostring(i)))
        end
        local s = assert(topic:subscribe { from = "oldest", name = "me" })
        assert.equal("1", s:next())
        assert.equal("2", s:next())
        assert.is_true(s:acknowledge())
        assert.is_true(s:close())
        s = assert(topic:subscribe { name = "me" })
        assert.equal("3", s:next())
        assert.equal("me", assert(topic:cursors())[1].name)
        refused("^exists", "SHD_EXISTS", topic:forget("me"))
        assert.is_true(s:close())
        assert.is_true(topic:forget("me"))
        refused("^not found", "SHD_NOTFOUND", topic:forget("me"))
    end)

    it("go on after the death of a name's worker", function()
        for i = 1, 5 do
            assert(topic:publish(tostring(i)))
        end
        child(function()
            local s = assert(topic:subscribe { from = "oldest", name = "me" })
            assert(s:next() == "1" and s:next() == "2")
        end, true)
        -- 2 was given, but nobody was done with it.
        local s = assert(topic:subscribe { name = "me" })
        assert.same({ "2", 2, 0 }, { s:next() })
    end)

    it("wait for an event, and for room where nothing may be lost", function()
        local s = assert(topic:subscribe())
        local pid = C.fork()
        if pid == 0 then
            support.sleep(0.02)
            C._exit(topic:publish("late") and 0 or 1)
        end
        assert.equal("late", s:next(20))
        C.waitpid(pid, ffi.new("int[1]"), 0)

        local safe = assert(segment:topic("safe", {
            capacity = 4096, lossless = true
        }))
        s = assert(safe:subscribe())
        local n = 0
        while safe:publish(("x"):rep(500)) do
            n = n + 1
        end
        assert.equal(8, n) -- a sixteenth more than it was made for
        refused("^every slot", "SHD_FULL", safe:publish(("x"):rep(500), 0.01))
        assert(s:next())
        assert(s:acknowledge())
        assert.equal(9, safe:publish(("x"):rep(500), 1))
    end)

    it("refuse what is wrong, and answer when closed", function()
        refused("unknown option", "SHD_INVAL",
                segment:topic("x", { size = 1 }))
        refused("bad topic name", "SHD_INVAL", segment:topic(7))
        refused("^not found", "SHD_NOTFOUND",
                segment:topic("x", { create = false }))
        refused("from", "SHD_INVAL", topic:subscribe { from = "then" })
        refused("bad timeout", "SHD_INVAL", topic:publish("x", -1))
        local s = assert(topic:subscribe())
        assert.is_true(topic:close())
        refused("closed", "SHD_CLOSED", topic:publish("x"))
        assert.is_true(s:close())
        refused("closed", "SHD_CLOSED", s:next())
        refused("closed", "SHD_CLOSED", topic:close())
        assert.has_error(function() topic.publish({}, "x") end,
                         'bad "topic" argument')
        assert.is_true(segment:close())
        refused("closed", "SHD_CLOSED", segment:topic("news"))
    end)

    it("ring the worker's bell", function()
        local s = assert(topic:subscribe())
        assert.is_true(s:arm())
        assert(topic:publish("x"))
        assert.is_false(s:arm())
        assert.equal("x", s:next())
    end)
end)

describe("locks", function()
    local segment

    before_each(function()
        segment = support.segment()
    end)
    after_each(support.clean)

    it("are held by one, with tokens that grow", function()
        local lock = assert(segment:lock("l"))
        local token, former = lock:acquire()
        assert.equal(1, token)
        assert.equal("released", former)
        assert.same({ nil, "timeout", "SHD_BUSY" }, { lock:acquire(0.01) })
        assert.is_true(lock:check())
        assert.is_true(lock:release())
        assert.is_false(lock:check())
        refused("no longer held", "SHD_LOST", lock:release())
        assert.equal(2, lock:acquire())
    end)

    it("are the next one's when their holder dies", function()
        local lock = assert(segment:lock("l"))
        child(function() return lock:acquire() end, true)
        assert.is_true(assert(lock:holders())[1].dead)
        assert.same({ 2, "died" }, { lock:acquire(1) })
        local info = assert(lock:info())
        assert.equal("lock", info.kind)
        assert.equal(1, info.deaths)
    end)

    it("may have a time to live", function()
        local lock = assert(segment:lock("l"))
        assert(lock:acquire(0, 0.02))
        assert.same({ 2, "expired" }, { lock:acquire(20) })
        assert.is_true(lock:extend(100))
        local held, left = lock:check()
        assert.is_true(held)
        assert.is_true(left > 90 and left <= 100)
    end)

    it("come as semaphores", function()
        local semaphore = assert(segment:semaphore("s", { permits = 2 }))
        local a, b = semaphore:acquire(), semaphore:acquire()
        assert.is_true(b > a)
        assert.is_nil((semaphore:acquire()))
        assert.is_true(semaphore:release(a))
        assert.is_true(semaphore:acquire() > b)
        assert.equal(2, #assert(semaphore:holders()))
        refused("exists with other", "SHD_MISMATCH",
                segment:semaphore("s", { permits = 3 }))
        refused("exists with other", "SHD_MISMATCH", segment:lock("s"))
    end)

    it("can be waited for without waiting", function()
        local lock = assert(segment:lock("l"))
        local token = assert(lock:acquire())
        local got, ticket = lock:request()
        assert.is_false(got)
        assert.is_false((lock:poll(ticket)))
        assert.is_true(lock:release(token))
        assert.equal(2, (lock:poll(ticket)))
        got, ticket = lock:request()
        assert.is_false(got)
        assert.is_true((lock:cancel(ticket)))
        for _, no_ticket in ipairs { 1, "1", {}, true } do
            assert.equal("SHD_INVAL", (select(3, lock:poll(no_ticket))))
            assert.equal("SHD_INVAL", (select(3, lock:cancel(no_ticket))))
        end
    end)

    it("answer when closed", function()
        local lock = assert(segment:lock("l"))
        assert.is_true(lock:close())
        refused("closed", "SHD_CLOSED", lock:acquire())
        lock = assert(segment:lock("l"))
        assert.is_true(segment:close())
        refused("closed", "SHD_CLOSED", lock:acquire())
        assert.has_error(function() lock.acquire(7) end,
                         'bad "lock" argument')
    end)

    it("are shown among the objects", function()
        assert(segment:lock("l"))
        assert(segment:topic("t"))
        local kinds = {}
        for _, o in ipairs(assert(segment:objects())) do
            kinds[o.name] = o.kind
        end
        assert.same({ l = "lock", t = "topic" }, kinds)
    end)
end)

describe("shdict.lock", function()
    local resty = require "shdict.lock"
    local dict, segment

    before_each(function()
        dict, segment = support.dict()
    end)
    after_each(support.clean)

    it("does what lua-resty-lock does", function()
        local a = assert(resty:new(dict, { timeout = 0.01 }))
        local b = assert(resty:new(dict, { timeout = 0.01 }))
        assert.is_number(a:lock("k"))
        assert.same({ nil, "locked" }, { a:lock("k") })
        assert.same({ nil, "timeout" }, { b:lock("k") })
        assert.is_number(b:lock("other"))
        assert.equal(1, a:unlock())
        assert.same({ nil, "unlocked" }, { a:unlock() })
        assert.same({ nil, "unlocked" }, { a:expire(1) })
        assert.is_number(a:lock("k"))
        assert.is_true(a:expire(0.01))
        support.sleep(0.02)
        assert.same({ nil, "unlocked" }, { a:unlock() })
    end)

    it("finds the dict in ngx.shared", function()
        local had = rawget(_G, "ngx")
        rawset(_G, "ngx", { shared = { locks = dict } })
        assert.is_truthy(resty:new("locks"))
        local none, err = resty:new("none")
        rawset(_G, "ngx", had)
        assert.is_nil(none)
        assert.equal("dictionary not found", err)
    end)

    it("does not free another's", function()
        local a = assert(resty:new(dict, { exptime = 0.01 }))
        local b = assert(resty:new(dict))
        assert(a:lock("k"))
        assert(b:lock("k"))
        assert.same({ nil, "unlocked" }, { a:unlock() })
        assert.equal(1, b:unlock())
    end)

    it("takes over from the dead at once", function()
        child(function()
            return assert(resty:new(dict, { exptime = 1000 })):lock("k")
        end, true)
        local a = assert(resty:new(dict, { timeout = 0 }))
        assert.is_number(a:lock("k"))
        assert(segment:reap())
    end)
end)

describe("shdict.events", function()
    local segment

    before_each(function()
        segment = support.segment()
        package.loaded["shdict.events"] = nil
    end)
    after_each(support.clean)

    local function configured(worker)
        local events = dofile(package.searchpath("shdict.events",
                                                 package.path))
        assert(events.configure {
            segment = segment, worker = worker,
            encode = require("string.buffer") and
                     function(t) return require("string.buffer").encode(t) end,
            decode = function(s) return require("string.buffer").decode(s) end
        })
        local got = {}
        events.register(function(data, event, source, from)
            got[#got + 1] = { data, event, source, from }
        end, "s")
        return events, got
    end

    local has_buffer = pcall(require, "string.buffer")
    local has_cjson = pcall(require, "cjson.safe")
    if not has_buffer and not has_cjson then
        pending("no encoder is installed")
        return
    end
    if not has_buffer then
        configured = function(worker)
            local events = dofile(package.searchpath("shdict.events",
                                                     package.path))
            assert(events.configure { segment = segment, worker = worker })
            local got = {}
            events.register(function(data, event, source, from)
                got[#got + 1] = { data, event, source, from }
            end, "s")
            return events, got
        end
    end

    it("posts to all", function()
        local a, got_a = configured(1)
        local b, got_b = configured(2)
        assert.equal("done", a.post("s", "e", { n = 1 }))
        assert.equal("done", b.post("t", "e", 2))
        assert.equal("done", a.poll())
        assert.equal("done", b.poll())
        local want = { { { n = 1 }, "e", "s", "1" } }
        assert.same(want, got_a)
        assert.same(want, got_b)
    end)

    it("posts to one", function()
        local a, got_a = configured(1)
        local b, got_b = configured(2)
        assert.equal("done", a.post_to(2, "s", "e", "x"))
        a.poll()
        b.poll()
        assert.same({}, got_a)
        assert.equal("x", got_b[1][1])
    end)

    it("lets only one handle what is unique", function()
        local a, got_a = configured(1)
        local b, got_b = configured(2)
        assert.equal("done", a.post("s", "e", "x", "only"))
        b.poll()
        a.poll()
        assert.equal(1, #got_b)
        assert.equal(0, #got_a)
    end)

    it("posts here alone, and knows its events", function()
        local a, got_a = configured(1)
        local b, got_b = configured(2)
        assert.equal("done", a.post_local("s", "e", 7))
        b.poll()
        assert.equal(7, got_a[1][1])
        assert.same({}, got_b)
        local list = a.event_list("s", "one", "two")
        assert.equal("one", list.one)
        assert.has_error(function() return list.three end)
    end)

    it("unregisters, survives a failing handler, says what was missed",
       function()
        local a, got = configured(1)
        local function fails() error("no") end
        a.register(fails, "s", "e")
        assert.is_true(a.unregister(fails, "s", "e"))
        assert.is_false(a.unregister(fails, "s", "e"))
        local missed = 0
        a.register(function(n) missed = missed + n end, "worker-events",
                   "missed")
        for _ = 1, 5000 do
            assert(a.post("s", "e", ("x"):rep(500)))
        end
        a.poll()
        assert.equal(5000, missed + #got)
        assert.is_true(missed > 0)
    end)

    it("says what is wrong", function()
        local fresh = dofile(package.searchpath("shdict.events",
                                                package.path))
        assert.is_nil((fresh.post("s", "e")))
        assert.is_nil((fresh.poll()))
        assert.is_nil((fresh.configure {}))
        local a = configured(1)
        assert.same({ nil, "source is required" }, { a.post(nil, "e") })
        assert.same({ nil, "event is required" }, { a.post("s") })
    end)
end)
