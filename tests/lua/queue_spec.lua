-- SPDX-License-Identifier: BSD-2-Clause
-- Queues from Lua: what each method takes and gives.
local shdict = require "shdict"
local ffi = require "ffi"

ffi.cdef [[
int fork(void);
int waitpid(int pid, int *status, int options);
void _exit(int status);
int kill(int pid, int signal);
int getpid(void);
struct queue_pollfd { int fd; short events, revents; };
int poll(struct queue_pollfd *fds, unsigned long n, int timeout);
]]

-- Runs f in a child that is killed, or ends with 0 if f says so.
local function child(f, kill)
    local pid = ffi.C.fork()
    if pid == 0 then
        local good = pcall(f)
        if kill and good then
            ffi.C.kill(ffi.C.getpid(), 9)
        end
        ffi.C._exit(good and 0 or 1)
    end
    local status = ffi.new("int[1]")
    assert.equal(pid, ffi.C.waitpid(pid, status, 0))
    assert.equal(kill and 9 or 0, status[0])
end

local function readable(fd, ms)
    local p = ffi.new("struct queue_pollfd[1]")
    p[0].fd = fd
    p[0].events = 1
    return ffi.C.poll(p, 1, ms) == 1
end

describe("a queue", function()
    local segment, q

    before_each(function()
        segment = assert(shdict.anonymous { size = "16m" })
        q = assert(segment:queue("jobs", {}))
    end)

    after_each(function()
        assert.is_true(segment:check())
        segment:close()
    end)

    it("gives messages out in their order", function()
        assert.equal(1, q:push("one"))
        assert.equal(2, q:push("two\0bytes"))
        assert.equal(3, q:push(3))
        assert.equal("one", q:pop())
        assert.equal("two\0bytes", q:pop())
        assert.equal("3", q:pop())
        assert.same({ nil, "empty", "SHD_NOTFOUND" }, { q:pop() })
        assert.same({ nil, "empty", "SHD_NOTFOUND" }, { q:pop(0.01) })
    end)

    it("leases messages", function()
        q:push("job")
        local text, lease, attempts = q:take()
        assert.same({ "job", 1 }, { text, attempts })
        assert.equal("empty", select(2, q:take()))
        assert.is_true(q:nack(lease))
        assert.same({ nil, "lost", "SHD_LOST" }, { q:ack(lease) })
        text, lease, attempts = q:take()
        assert.same({ "job", 2 }, { text, attempts })
        assert.is_true(q:extend(lease, 100))
        assert.is_true(q:ack(lease))
        assert.equal("lost", select(2, q:extend(lease, 1)))
        local info = q:info()
        assert.equal(1, info.acked)
        assert.equal(1, info.redelivered)
        assert.equal(0, info.cells_used)
    end)

    it("gives back what a dead consumer had", function()
        q:push("job")
        child(function() assert(q:take()) end, true)
        local text, _, attempts = q:take(10)
        assert.same({ "job", 2 }, { text, attempts })
    end)

    it("keeps delays, and buries what fails too often", function()
        local d = assert(segment:queue("d", { deliveries_max = 1,
                                              capacity = "64k" }))
        d:push("late", { delay = 100 })
        assert.equal("late", d:peek(1, "delayed"))
        assert.equal("empty", select(2, d:pop()))
        assert.equal(1, d:drain("delayed"))
        d:push("poison")
        local _, lease = d:take()
        assert.is_true(d:nack(lease))
        local text, about = d:peek(1, "dead")
        assert.equal("poison", text)
        assert.equal("dead", about.state)
        assert.equal(1, about.attempts)
        assert.equal(1, d:requeue())
        assert.equal("poison", d:pop())
        assert.equal(0, d:drain())
    end)

    it("sends dead letters to another queue", function()
        local d = assert(segment:queue("d2", { deliveries_max = 1,
                                               dead_to = "graves",
                                               capacity = "64k" }))
        d:push("poison")
        local _, lease = d:take()
        assert.is_true(d:nack(lease))
        assert.equal(1, d:info().dead)
        assert.equal("graves", d:info().dead_to)
        local graves = assert(segment:queue("graves", { capacity = "64k" }))
        assert.equal("poison", graves:pop())
        assert.equal("empty", select(2, graves:pop()))
        assert.equal(0, d:info().dead)
        assert.equal(1, d:info().forwarded)
        local none, err, code = segment:queue("d3", { dead_to = "d3" })
        assert.is_nil(none)
        assert.equal("SHD_INVAL", code)
        none, err = segment:queue("d3", { dead_to = 3 })
        assert.is_nil(none)
        assert.truthy(err:find("bad dead_to", 1, true))
        assert.equal("SHD_MISMATCH", select(3, segment:queue("d2",
            { dead_to = "elsewhere" })))
    end)

    it("refuses when full, and takes what is long", function()
        local long = ("x"):rep(200000)
        q:push(long)
        assert.equal(long, q:peek())
        assert.equal(long, q:pop())
        local small = assert(segment:queue("s", { messages_max = 1 }))
        small:push("a")
        assert.same({ nil, "full", "SHD_FULL" }, { small:push("b") })
        assert.equal("full", select(2, small:push("b", { wait = 0.01 })))
        assert.equal("SHD_TOOBIG", select(3, q:push(("x"):rep(2000000))))
    end)

    it("rings a bell for an event loop", function()
        local fd = segment:worker_fd()
        assert.is_true(fd >= 0)
        local now, again = q:arm()
        assert.is_false(now)
        assert.is_nil(again)
        assert.is_false(readable(fd, 0))
        child(function() assert(q:push("ring")) end)
        assert.is_true(readable(fd, 10000))
        assert.is_true(segment:worker_fd_clear())
        assert.is_false(readable(fd, 0))
        assert.is_true((q:arm()))
        assert.equal("ring", q:pop())
        q:push("late", { delay = 1000 })
        now, again = q:arm()
        assert.is_false(now)
        assert.is_true(again > 900 and again <= 1000)
    end)

    it("carries many at once", function()
        local texts = {}
        for i = 1, 100 do
            texts[i] = ("m"):rep(i * 7 % 300) .. i
        end
        texts[50] = 4711
        local numbers = assert(q:push_many(texts))
        assert.equal(100, #numbers)
        assert.equal(100, numbers[100])
        local got = assert(q:take_many(1000))
        assert.equal(64, #got)
        assert.equal(texts[64], got[64].data)
        assert.equal("4711", got[50].data)
        assert.equal(1, got[1].attempts)
        assert.equal(64, got[64].id)
        local some = { got[1].lease, got[1].lease, got[2].lease }
        assert.equal(2, q:ack_many(some))
        assert.equal(62, q:ack_many(got))
        assert.equal(36, #q:pop_many(64, 1))
        assert.same({ nil, "empty", "SHD_NOTFOUND" }, { q:pop_many(1) })
        assert.equal(0, q:info().cells_used)
        assert.same({}, q:push_many({}))
        assert.equal(0, q:ack_many({}))
        local ok, err, code, pushed =
            q:push_many({ "one", "two", ("x"):rep(2 ^ 20), "three" })
        assert.is_nil(ok)
        assert.equal("SHD_TOOBIG", code)
        assert.is_string(err)
        assert.equal(2, #pushed)
        assert.matches("bad message 2", select(2, q:push_many({ "a", {} })))
        assert.matches("bad lease", select(2, q:ack_many({ 1 })))
        assert.matches("bad number", select(2, q:take_many(0)))
        assert.equal("two", q:take_many(2)[2].data)
    end)

    it("says what is wrong with its arguments", function()
        assert.matches("string expected", select(2, q:push({})))
        assert.matches("seconds", select(2, q:push("x", { delay = -1 })))
        assert.matches("bad lease", select(2, q:ack(1)))
        assert.matches("bad which", select(2, q:peek(1, "x")))
        assert.matches("unknown option",
                       select(2, segment:queue("x", { size = 1 })))
        assert.equal("SHD_NOTFOUND", select(3, segment:queue("none")))
        assert.equal("SHD_MISMATCH",
                     select(3, segment:queue("jobs", { capacity = "9m" })))
        assert.has_error(function() q.pop({}) end, 'bad "queue" argument')
        for _, odd in ipairs { "x", {}, true, -1, 0 / 0, 1 / 0 } do
            assert.equal("SHD_INVAL", (select(3, q:peek(odd))))
            assert.equal("SHD_INVAL", (select(3, q:drain(nil, odd))))
            assert.equal("SHD_INVAL", (select(3, q:requeue(odd))))
        end
        assert.equal("SHD_INVAL", (select(3, q:push("x", 7))))
        assert.equal("SHD_INVAL", (select(3, q:push_many({ "x" }, 7))))
    end)

    it("is closed by itself, and with its segment", function()
        local other = assert(segment:queue("jobs"))
        assert.is_true(other:close())
        assert.equal("SHD_CLOSED", select(3, other:pop()))
        assert.equal(1, q:push("x"))
        assert.is_true(segment:destroy_object("jobs"))
        assert.equal("SHD_GONE", select(3, q:pop()))
        local s = assert(shdict.anonymous { size = "1m" })
        local gone = assert(s:queue("q", { capacity = "64k" }))
        s:close()
        assert.equal("SHD_CLOSED", select(3, gone:pop()))
    end)
end)
