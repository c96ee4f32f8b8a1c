-- SPDX-License-Identifier: BSD-2-Clause
-- Mailboxes from Lua: what each method takes and gives.
local shdict = require "shdict"
local ffi = require "ffi"

ffi.cdef [[
int fork(void);
int waitpid(int pid, int *status, int options);
void _exit(int status);
int kill(int pid, int signal);
struct mailbox_pollfd { int fd; short events, revents; };
int poll(struct mailbox_pollfd *fds, unsigned long n, int timeout);
]]

local function readable(fd, ms)
    local p = ffi.new("struct mailbox_pollfd[1]")
    p[0].fd = fd
    p[0].events = 1
    return ffi.C.poll(p, 1, ms) == 1
end

-- Runs f in a child.
local function start(f)
    local pid = ffi.C.fork()
    if pid == 0 then
        local good = pcall(f)
        ffi.C._exit(good and 0 or 1)
    end
    return pid
end

local function ended(pid, status)
    local out = ffi.new("int[1]")
    assert.equal(pid, ffi.C.waitpid(pid, out, 0))
    assert.equal(status, out[0])
end

describe("a mailbox", function()
    local segment, box, me

    before_each(function()
        segment = assert(shdict.anonymous { size = "16m" })
        box = assert(segment:mailbox("m", { capacity = "64k" }))
        assert.is_true(box:listen())
        me = box:boxes()[1].owner
    end)

    after_each(function()
        assert.is_true(segment:check())
        segment:close()
    end)

    it("brings posts in their order", function()
        assert.equal(1, box:post(me, "one"))
        assert.equal(2, box:post(me, "two\0bytes"))
        local text, about = box:peek(me, 2)
        assert.equal("two\0bytes", text)
        assert.same({ id = 2, from = me, to = me, request = false,
                      sent_ms = about.sent_ms }, about)
        assert.equal("one", (box:peek(me)))
        assert.same({ nil, "not found", "SHD_NOTFOUND" }, { box:peek(me, 3) })
        assert.same({ nil, "not found", "SHD_NOTFOUND" },
                    { box:peek(me + 65536) })
        assert.equal("SHD_INVAL", select(3, box:peek("me")))
        assert.equal("SHD_INVAL", select(3, box:peek(me, 0)))
        assert.same({ "one", me }, { box:receive() })
        assert.same({ "two\0bytes", me }, { box:receive(1) })
        assert.same({ nil, "timeout", "SHD_NOTFOUND" }, { box:receive(0.01) })
        assert.same({ nil, "dead", "SHD_DEAD" }, { box:post(2 ^ 40, "x") })
        assert.same({ nil, "not found", "SHD_NOTFOUND" }, { box:find(7) })
        assert.equal(0, box:post_all("nobody else"))
    end)

    it("is full when it is", function()
        local text = ("x"):rep(3000)
        local code, err
        repeat
            code, err = box:post(me, text)
        until not code
        assert.equal("full", err)
        assert.is_false(box:arm_room(me, 3000))
        assert.equal(text, (box:receive()))
        assert.is_true(box:arm_room(me, 3000))
    end)

    it("answers requests, and tells what became of others", function()
        local request = assert(box:request(me, "question"))
        assert.is_false(box:poll(request))
        local text, from, asked = box:receive()
        assert.equal("question", text)
        assert.equal(me, from)
        assert.is_true(box:answer(asked, ("long"):rep(2000)))
        assert.equal(("long"):rep(2000), box:poll(request))
        assert.same({ nil, "not found", "SHD_NOTFOUND" },
                    { box:poll(request) })
        request = assert(box:request(me, "another", 0, 500))
        local _, _, second = box:receive()
        assert.is_true(box:decline(second))
        assert.same({ nil, "lost", "SHD_LOST" }, { box:poll(request) })
        request = assert(box:request(me, "third"))
        assert.is_true(box:cancel(request))
        assert.same({ nil, "timeout", "SHD_NOTFOUND" }, { box:receive() })
        assert.same({ nil, "timeout", "SHD_BUSY" }, { box:call(me, "x", 0.01) })
        local info = box:info()
        assert.equal(1, info.answered)
        assert.equal(0, info.cells_used)
    end)

    it("takes calls of other processes", function()
        local pid = start(function()
            assert(box:call(me, "6 * 7", 60) == "42")
            assert(box:call(me, "again", 60) == "yes")
        end)
        for _, back in ipairs { 42, "yes" } do
            local _, _, request = box:receive(60)
            assert.is_true(box:answer(request, back))
        end
        ended(pid, 0)
    end)

    it("rings a bell for mail and for the death of who was asked", function()
        local fd = assert(segment:worker_fd())
        local pid = start(function()
            assert(box:listen())
            assert(box:post(me, "here I am"))
            box:receive(60)
            box:receive(60)
        end)
        local text, from = box:receive(60)
        assert.equal("here I am", text)
        assert.is_false(box:arm())
        local request = assert(box:request(from, "stay"))
        ffi.C.kill(pid, 9)
        ended(pid, 9)
        assert(segment:reap())
        assert.is_true(readable(fd, 0))
        local got, err, code = box:poll(request)
        assert.same({ nil, "dead", "SHD_DEAD" }, { got, err, code })
        assert.is_true(segment:worker_fd_clear())
        assert.is_false(box:arm())
        assert.equal(1, #box:boxes())
    end)

    it("refuses what cannot be", function()
        local function refused(said, _, err, code)
            assert.is_truthy(err:find(said, 1, true), err)
            assert.equal("SHD_INVAL", code)
        end
        refused("bad worker", box:post("all", "x"))
        refused("bad message", box:post(me, {}))
        refused("bad timeout", box:post(me, "x", -1))
        refused("bad request", box:answer(1, "x"))
        refused("bad request", box:poll(5))
        refused("bad mailbox name", segment:mailbox(5))
        refused("colour", segment:mailbox("m", { colour = 1 }))
        assert.is_nil((segment:mailbox("n", { create = false })))
        assert.is_true(box:leave())
        assert.same({ nil, "not found", "SHD_NOTFOUND" },
                    { box:post(me, "x") })
        assert.is_true(box:close())
        assert.is_nil((box:listen()))
        assert.has_error(function()
            box.listen({})
        end, 'bad "mailbox" argument')
        box = assert(segment:mailbox("m"))
    end)
end)
