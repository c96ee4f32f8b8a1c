-- SPDX-License-Identifier: BSD-2-Clause
-- Leaders from Lua: what each method takes and gives.
local shdict = require "shdict"
local ffi = require "ffi"

ffi.cdef [[
int fork(void);
int waitpid(int pid, int *status, int options);
void _exit(int status);
int kill(int pid, int signal);
int pause(void);
struct leader_pollfd { int fd; short events, revents; };
int poll(struct leader_pollfd *fds, unsigned long n, int timeout);
]]

describe("a leader", function()
    local segment, leader

    before_each(function()
        segment = assert(shdict.anonymous { size = "16m" })
        leader = assert(segment:leader("timer"))
    end)

    after_each(function()
        assert.is_true(segment:check())
        segment:close()
    end)

    it("is the first that looks, with one token", function()
        local token, former = leader:look()
        assert.equal("number", type(token))
        assert.equal("released", former)
        assert.equal(token, (leader:look()))
        assert.is_true(leader:resign())
        assert.is_true(leader:resign())
        assert.is_true(leader:look() > token)
    end)

    it("is followed at once when it dies, and the next is told", function()
        local told = assert(segment:queue("told", {}))
        local pid = ffi.C.fork()
        if pid == 0 then
            told:push(leader:look() and "leads" or "does not")
            while true do
                ffi.C.pause()
            end
        end
        assert.equal("leads", told:pop(60))
        assert.is_false(leader:look())
        assert.is_false(leader:look(0.01))
        local p = ffi.new("struct leader_pollfd[1]")
        p[0].fd = assert(segment:worker_fd())
        p[0].events = 1
        ffi.C.kill(pid, 9)
        ffi.C.waitpid(pid, nil, 0)
        assert(segment:reap())
        assert.equal(1, ffi.C.poll(p, 1, 0))
        local token, former = leader:look()
        assert.equal("number", type(token))
        assert.equal("died", former)
    end)

    it("refuses what cannot be", function()
        local function refused(said, _, err, code)
            assert.is_truthy(err:find(said, 1, true), err)
            assert.equal("SHD_INVAL", code)
        end
        refused("bad timeout", leader:look("x"))
        refused("bad leader name", segment:leader({}))
        refused("colour", segment:leader("n", { colour = 1 }))
        assert.is_nil((segment:leader("n", { create = false })))
        assert.is_nil((segment:lock("timer")))
        assert.is_true(leader:close())
        assert.is_nil((leader:look()))
        assert.has_error(function()
            leader.look({})
        end, 'bad "leader" argument')
    end)
end)
