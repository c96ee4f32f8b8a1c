-- SPDX-License-Identifier: BSD-2-Clause
-- shdict.lua: opening, options, names, objects, workers, closing.

package.path = (debug.getinfo(1, "S").source:match("^@(.*/)") or "./")
    .. "?.lua;" .. package.path

local support = require "support"
local shdict = require "shdict"
local ffi = require "ffi"

local function refused(pattern, code, value, err, name)
    assert.is_nil(value)
    assert.is_string(err)
    assert.matches(pattern, err)
    assert.equal(code, name)
end

describe("shdict.open", function()
    after_each(support.clean)

    it("tells its version", function()
        assert.matches("^%d+%.%d+%.%d+$", shdict.version)
    end)

    it("creates a segment, and attaches to one that is there", function()
        local name = support.name()
        local a = assert(shdict.open(name))
        assert(a:dict("d", { capacity = "64k" })):set("k", "v")
        local b = assert(shdict.open(name))
        assert.equal("v", assert(b:dict("d")):get("k"))
        local c = assert(shdict.open(name, { create = false }))
        assert.equal("v", assert(c:dict("d")):get("k"))
    end)

    it("protects what it opens from stray stores", function()
        refused("write_protect", "SHD_INVAL",
                shdict.open(support.name(), { write_protect = 1 }))
        local name = support.name()
        local a = assert(shdict.open(name, { write_protect = true }))
        local d = assert(a:dict("d", { capacity = "64k" }))
        d:set("k", "v")
        assert.equal("v", d:get("k"))
        -- By a key of its pages, or by what may be done with them.
        for line in io.lines("/proc/self/smaps") do
            if line:match("^ProtectionKey:%s+[1-9]") or
                line:match("^%x+%-%x+ r%-%-s") then
                return
            end
        end
        error("it is not protected")
    end)

    it("creates and finds none where that is asked for", function()
        local name = support.name()
        local a = assert(shdict.open(name, { exclusive = true }))
        refused("^exists", "SHD_EXISTS",
                shdict.open(name, { exclusive = true }))
        assert(a:dict("d", { capacity = "64k" })):set("k", "v")
    end)

    it("attaches to what is held, whatever became of its name", function()
        local name = support.name()
        refused("^not found", "SHD_NOTFOUND",
                shdict.open(name, { held = true }))
        local a = assert(shdict.open(name))
        assert(a:dict("d", { capacity = "64k" })):set("k", "v")
        assert(shdict.destroy(name))
        local b = assert(shdict.open(name, { held = true }))
        assert.equal("v", assert(b:dict("d")):get("k"))
        a:close()
        b:close()
        refused("^not found", "SHD_NOTFOUND",
                shdict.open(name, { held = true }))
    end)

    it("does not create where it is told not to", function()
        local name = support.name()
        refused("^not found", "SHD_NOTFOUND",
                shdict.open(name, { create = false }))
        refused("^not found", "SHD_NOTFOUND",
                shdict.open(name, { readonly = true }))
        refused("^not found", "SHD_NOTFOUND", shdict.destroy(name))
    end)

    it("takes sizes as numbers and as text", function()
        for given, bytes in pairs {
            [16777216] = 16777216, ["16777216"] = 16777216,
            ["16m"] = 16777216, ["16M"] = 16777216, ["16MiB"] = 16777216,
            ["16384k"] = 16777216, ["0.5g"] = 536870912,
            ["1GB"] = 1073741824
        } do
            local segment = support.segment { size = given }
            -- The segment's own tables come on top of the room asked for.
            local size = segment:info().size_bytes
            assert.is_true(size >= bytes)
            assert.is_true(size < bytes + 2 ^ 27)
            segment:close()
        end
    end)

    it("refuses what is no size", function()
        for _, size in ipairs { "", "m", "12q", "-1", "1 m m", -1, 0, 0 / 0,
                                1 / 0, true, {} } do
            refused("^bad size: ", "SHD_INVAL",
                    shdict.open(support.name(), { size = size }))
        end
        refused("", "SHD_INVAL",
                shdict.open(support.name(), { size = "65g" }))
    end)

    it("refuses options that are unknown or of another type", function()
        local name = support.name()
        for option, value in pairs {
            mode = "0600", readonly = 1, create = "yes", wait_ms = -1,
            worker_name = 5, worker_id = "1", generation = 1.5,
            workers_max = 0, objects_max = 65536, dumpable = 1,
            locks_max = -1
        } do
            refused("^bad " .. option .. ": ", "SHD_INVAL",
                    shdict.open(name, { [option] = value }))
        end
        refused('^unknown option "sise"$', "SHD_INVAL",
                shdict.open(name, { sise = "1m" }))
        refused('^unknown option "1"$', "SHD_INVAL",
                shdict.open(name, { "1m" }))
        refused("^bad options: table expected, got string$", "SHD_INVAL",
                shdict.open(name, "1m"))
        refused("create and readonly", "SHD_INVAL",
                shdict.open(name, { create = true, readonly = true }))
        refused("create and held", "SHD_INVAL",
                shdict.open(name, { create = true, held = true }))
        refused("exclusive creates", "SHD_INVAL",
                shdict.open(name, { exclusive = true, held = true }))
        refused("^not found", "SHD_NOTFOUND",
                shdict.open(name, { create = false }))
    end)

    it("refuses names that are none", function()
        for _, name in ipairs { "", ".hidden", "a b", "a/b",
                                ("n"):rep(201), "fd:", "fd:x" } do
            local segment, err, code = shdict.open(name)
            assert.is_nil(segment)
            assert.is_string(err)
            assert.equal("SHD_NAME", code)
        end
        for _, name in ipairs { 12, true, {} } do
            refused("^bad segment name: string expected", "SHD_INVAL",
                    shdict.open(name))
            refused("^bad segment name: string expected", "SHD_INVAL",
                    shdict.destroy(name))
        end
        refused("^bad segment name: string expected", "SHD_INVAL",
                shdict.open())
        refused("NUL", "SHD_INVAL", shdict.open("a\0b"))
        refused("NUL", "SHD_INVAL", shdict.destroy("a\0b"))
    end)

    it("leaves a file alone that is no segment", function()
        local path = os.tmpname()
        local file = assert(io.open(path, "w"))
        file:write(("not a segment\n"):rep(1000))
        file:close()
        refused("^not a shdict segment", "SHD_FOREIGN", shdict.open(path))
        refused("^not a shdict segment", "SHD_FOREIGN",
                shdict.destroy(path))
        file = assert(io.open(path))
        assert.equal(("not a segment\n"):rep(1000), file:read("*a"))
        file:close()
        os.remove(path)
    end)

    it("opens a path, and says what is wrong with one", function()
        local path = os.tmpname()
        os.remove(path)
        local segment, err, code = shdict.open(path, { size = "16m" })
        if segment then
            assert.equal(path, segment:info().path)
            assert.is_true(segment:close())
            assert.is_true(shdict.destroy(path))
        else -- a file system that cannot reserve space says just that
            assert.equal("SHD_UNSUPPORTED", code, err)
        end
        refused("%w", "SHD_SYS", shdict.open("/nonexistent/directory/x"))
    end)

    it("uses the mode and the worker's particulars", function()
        local segment, name = support.segment {
            mode = 416, workers_max = 7, objects_max = 9, wait_ms = 100,
            worker_name = "spec", worker_id = 5, generation = 3
        }
        local info = segment:info()
        assert.equal(7, info.workers_max)
        assert.equal(9, info.objects_max)
        assert.equal("/dev/shm/shdict-" .. name, info.path)
        local stat = io.popen("stat -c %a /dev/shm/shdict-" .. name)
        assert.equal("640\n", stat:read("*a"))
        stat:close()
        assert.is_true(segment:join() > 0)
        local workers = assert(segment:workers())
        assert.equal(1, #workers)
        assert.equal("spec", workers[1].name)
        assert.equal(5, workers[1].worker_id)
        assert.equal(3, workers[1].generation)
        assert.equal(support.C.getpid(), workers[1].pid)
        assert.is_true(workers[1].alive)
    end)
end)

describe("an anonymous segment", function()
    it("is reached by its descriptor", function()
        local segment = assert(shdict.anonymous { size = "16m" })
        assert(segment:dict("d", { capacity = "64k" })):set("k", 1)
        local fd = assert(segment:fd())
        local again = assert(shdict.open("fd:" .. fd, { create = false }))
        assert.equal(1, again:dict("d"):get("k"))
        again:close()
        segment:close()
    end)

    it("cannot be read-only", function()
        refused("always created", "SHD_INVAL",
                shdict.anonymous { readonly = true })
        refused("always created", "SHD_INVAL",
                shdict.anonymous { create = false })
    end)
end)

describe("a segment", function()
    local segment, name

    before_each(function()
        segment, name = support.segment()
    end)
    after_each(support.clean)

    it("holds dicts of their own capacity", function()
        local a = assert(segment:dict("a", { capacity = "64k" }))
        local b = assert(segment:dict("b", { capacity = 1048576, shards = 1,
                                             entries = 100 }))
        assert.equal(65536, a:capacity())
        assert.equal(1048576, b:capacity())
        a:set("k", "in a")
        assert.is_nil(b:get("k"))
        for i = 1, 1000 do
            a:set("fill" .. i, ("x"):rep(500))
        end
        b:set("k", "in b")
        assert.equal("in b", b:get("k"))
        assert.equal(1, b:info().shards)
    end)

    it("lists its objects", function()
        assert.same({}, segment:objects())
        assert(segment:dict("a", { capacity = "64k" }))
        assert(segment:dict("b", { capacity = "128k" }))
        local sizes = {}
        for _, object in ipairs(segment:objects()) do
            assert.equal("dict", object.kind)
            assert.is_true(object.created_ms > 1e12)
            sizes[object.name] = object.size_bytes
        end
        assert.same({ a = 65536, b = 131072 }, sizes)
    end)

    it("finds a dict again, and says if it differs", function()
        assert(segment:dict("d", { capacity = "64k" }))
        assert(segment:dict("d", { capacity = "64k" }))
        assert(segment:dict("d"))
        refused("^exists with other properties", "SHD_MISMATCH",
                segment:dict("d", { capacity = "128k" }))
        refused("^not found", "SHD_NOTFOUND", segment:dict("other"))
    end)

    it("refuses names and options that are none", function()
        for _, bad in ipairs { "", "a/b", "a\nb", ("n"):rep(64) } do
            refused("%w", "SHD_NAME",
                    segment:dict(bad, { capacity = "64k" }))
        end
        refused("NUL", "SHD_INVAL",
                segment:dict("a\0b", { capacity = "64k" }))
        refused("string expected", "SHD_INVAL",
                segment:dict(1, { capacity = "64k" }))
        refused("string expected", "SHD_INVAL", segment:dict())
        refused("string expected", "SHD_INVAL", segment:destroy_dict())
        refused("^bad options: table", "SHD_INVAL", segment:dict("d", "64k"))
        refused("capacity expected", "SHD_INVAL", segment:dict("d", {}))
        refused("^unknown option", "SHD_INVAL",
                segment:dict("d", { capacity = "64k", size = 1 }))
        refused("^bad capacity", "SHD_INVAL",
                segment:dict("d", { capacity = "big" }))
        refused("^bad shards", "SHD_INVAL",
                segment:dict("d", { capacity = "64k", shards = 0 }))
        refused("%w", "SHD_INVAL",
                segment:dict("d", { capacity = "64k", shards = 3 }))
        refused("%w", "SHD_INVAL", segment:dict("d", { capacity = 8191 }))
        assert.same({}, segment:objects())
        assert(segment:dict(("n"):rep(63), { capacity = 8192 }))
    end)

    it("destroys a dict for all", function()
        local d = assert(segment:dict("d", { capacity = "64k" }))
        d:set("k", 1)
        assert.is_true(segment:destroy_dict("d"))
        local value, err = d:get("k")
        assert.is_nil(value)
        assert.equal("the object has been destroyed", err)
        assert.same({ false, "the object has been destroyed", false },
                    { d:set("k", 1) })
        refused("^not found", "SHD_NOTFOUND", segment:destroy_dict("d"))
        local new = assert(segment:dict("d", { capacity = "64k" }))
        assert.is_nil(new:get("k"))
    end)

    it("can be checked, reaped, joined and left", function()
        local d = assert(segment:dict("d", { capacity = "64k" }))
        d:set("k", 1)
        assert.is_true(segment:check())
        assert.equal(0, segment:reap())
        local first = segment:join()
        assert.equal(first, segment:join())
        assert.is_true(segment:leave())
        assert.equal(0, #segment:workers())
        d:set("k", 2)
        assert.equal(1, #segment:workers())
        assert.is_true(segment:join() > first)
    end)

    it("tells how far its workers are", function()
        local me = segment:join()
        local worker = segment:workers()[1]
        assert.equal("none", worker.phase)
        assert.equal(-1, worker.silent_ms)
        assert.equal(0, worker.restarts)
        assert.equal(0, worker.supervisor)
        assert.is_true(segment:beat())
        assert.is_true(segment:set_phase("ready"))
        worker = segment:workers()[1]
        assert.equal("ready", worker.phase)
        assert.is_true(worker.silent_ms >= 0)
        assert.is_true(segment:set_phase("draining", me))
        assert.equal("draining", segment:workers()[1].phase)
        assert.same({}, segment:holds(me))
        assert.is_true(segment:signal(me, 0))
        refused("no worker", "SHD_NOTFOUND",
                segment:set_phase("ready", me + 65536))
        refused("no worker", "SHD_NOTFOUND", segment:signal(me + 65536, 0))
        refused("^bad phase", "SHD_INVAL", segment:set_phase("done"))
        refused("^bad incarnation", "SHD_INVAL", segment:signal(0.5, 0))
        refused("^bad signal", "SHD_INVAL", segment:signal(me, "TERM"))
        refused("^bad generation", "SHD_INVAL", segment:drain(-1))
    end)

    it("gives generations, and marks older workers as draining", function()
        local other = support.segment()
        assert.equal(1, other:next_generation())
        assert.equal(2, other:next_generation())
        other:close()
        local named = support.name()
        other = assert(shdict.open(named, { worker_id = 1, generation = 7 }))
        other:join()
        assert.equal(8, other:next_generation())
        assert.equal(0, other:drain(7))
        assert.equal(1, other:drain(8))
        assert.equal(0, other:drain(8))
        assert.equal("draining", other:workers()[1].phase)
    end)

    it("hears of its workers", function()
        local watch = assert(segment:watch { supervise = true, hang = 60 })
        assert.is_true(watch:fd() >= 0)
        assert.is_nil(watch:next())
        refused("^exists: process %d+ supervises", "SHD_EXISTS",
                segment:watch { supervise = true })
        assert.equal(1, segment:workers()[1].supervisor)
        local pid = support.C.fork()
        if pid == 0 then
            pcall(segment.join, segment)
            while true do
                support.sleep(60)
            end
        end
        local event = assert(watch:next(60))
        assert.equal("joined", event.event)
        assert.equal(pid, event.pid)
        assert.is_true(segment:signal(event.incarnation, 9))
        local status = ffi.new("int[1]")
        assert.equal(pid, support.C.waitpid(pid, status, 0))
        event = assert(watch:next(60))
        assert.equal("died", event.event)
        assert.equal(pid, event.pid)
        assert.is_true(event.took_ns > 0)
        assert.is_nil(watch:next(0))
        assert.is_true(watch:close())
        refused("^the handle is closed$", "SHD_CLOSED", watch:next())
        refused("^the handle is closed$", "SHD_CLOSED", watch:fd())
        refused("^the handle is closed$", "SHD_CLOSED", watch:close())
        assert.error_matches(function() watch.next({}) end,
                             'bad "watch" argument')
        refused("^unknown option", "SHD_INVAL", segment:watch { x = 1 })
        refused("^bad hang", "SHD_INVAL", segment:watch { hang = -1 })
    end)

    it("tells about itself", function()
        local info = segment:info()
        assert.matches("^%x+$", info.hash_seed)
        assert.equal(0, info.readonly)
        assert.equal(0, info.deaths)
        assert.is_true(info.committed_bytes > 0)
        assert.is_nil(info.struct_size)
    end)

    it("raises where self is none", function()
        for _, method in ipairs { "dict", "close", "reap", "workers", "info",
                                  "objects", "check", "destroy_dict",
                                  "join", "leave", "fd", "beat",
                                  "set_phase", "signal", "drain", "holds",
                                  "next_generation" } do
            for _, self in ipairs { {}, "x", 1, { 1 }, { {} },
                                    { ffi.new("int[1]") } } do
                assert.error_matches(function()
                    segment[method](self)
                end, 'bad "segment" argument')
            end
        end
        local d = assert(segment:dict("d", { capacity = "64k" }))
        assert.error_matches(function()
            segment.info(d)
        end, 'bad "segment" argument')
        assert.error_matches(function()
            d.get(segment, "k")
        end, 'bad "zone" argument')
    end)

    it("answers after close, and so do its dicts", function()
        local d = assert(segment:dict("d", { capacity = "64k" }))
        assert(d:set("k", 1))
        assert.equal(1, d:get("k"))
        assert.is_true(segment:close())
        for _, method in ipairs { "close", "reap", "workers", "info",
                                  "objects", "check", "join", "leave",
                                  "fd", "beat", "set_phase", "signal",
                                  "drain", "holds", "next_generation" } do
            refused("^the handle is closed$", "SHD_CLOSED",
                    segment[method](segment))
        end
        refused("^the handle is closed$", "SHD_CLOSED", segment:dict("d"))
        refused("^the handle is closed$", "SHD_CLOSED",
                segment:destroy_dict("d"))
        assert.same({ nil, "the handle is closed" }, { d:get("k") })
        -- Opening it again does not revive what was closed.
        local again = assert(shdict.open(name, { create = false }))
        assert.same({ 1 }, { again:dict("d"):get("k") })
        assert.same({ nil, "the handle is closed" }, { d:get("k") })
        refused("^the handle is closed$", "SHD_CLOSED", d:close())
    end)

    it("is found where it is mapped, not where it was", function()
        local d = assert(segment:dict("d", { capacity = "64k" }))
        assert(d:set("k", 1))
        segment:close()
        -- In the way of a mapping at the same place.
        local page = support.C.mmap(nil, 4096, 0, 0x22, -1, 0)
        local again = assert(shdict.open(name, { create = false }))
        local e = assert(again:dict("d"))
        assert.equal(1, e:get("k"))
        assert(e:set("k", 2))
        assert.equal(2, e:get("k"))
        assert.is_true(again:check())
        assert.equal(0, support.C.munmap(page, 4096))
    end)

    it("stays open for others in the process", function()
        local other = assert(shdict.open(name))
        local d = assert(other:dict("d", { capacity = "64k" }))
        local e = assert(segment:dict("d"))
        e:set("k", 1)
        segment:close()
        assert.equal(1, d:get("k"))
        local f = assert(other:dict("d"))
        assert.is_true(f:close())
        assert.equal(1, d:get("k"))
    end)

    it("stays attached while a dict of it is used", function()
        local d = assert(segment:dict("d", { capacity = "64k" }))
        segment = nil
        collectgarbage()
        collectgarbage()
        assert.is_true(d:set("k", 1))
        assert.equal(1, d:get("k"))
        d = nil
        collectgarbage()
        collectgarbage()
        -- Nothing holds it any more, so the worker has left.
        local again = assert(shdict.open(name, { readonly = true }))
        assert.equal(0, #again:workers())
    end)
end)

describe("a read-only segment", function()
    it("reads, and refuses every change", function()
        local written, writer, name = support.dict()
        written:set("s", "v", 0, 5)
        written:set("n", 5)
        written:rpush("l", 1)
        written:set_versioned("v", 7)
        -- A process has a segment mapped once: read-only in a child of its
        -- own that never had it attached.
        local script = support.luajit("", "readonly_child.lua", name)
        local child = io.popen(script .. " 2>&1")
        local said = child:read("*a")
        child:close()
        assert.equal("ok\n", said)
        assert.equal("v", written:get("s"))
        assert.is_true(writer:check())
        support.clean()
    end)
end)

describe("a process that forks", function()
    after_each(support.clean)

    it("shares the dict with its child, a worker of its own", function()
        local d, segment = support.dict()
        d:set("count", 1)
        local mine = segment:join()
        local said, status = support.in_child(function()
            d:incr("count", 10)
            d:set("from child", true)
            local theirs = segment:join()
            local pids = {}
            for _, worker in ipairs(segment:workers()) do
                pids[worker.pid] = worker.incarnation
            end
            assert(theirs ~= mine, "the parent's incarnation")
            assert(pids[support.C.getpid()] == theirs, "not registered")
            return "ok"
        end)
        assert.equal("ok", said)
        assert.equal(0, status)
        assert.equal(11, d:get("count"))
        assert.is_true(d:get("from child"))
        assert.equal(mine, segment:join())
        -- It ended without a close: its slot is found and freed.
        assert.equal(1, segment:reap())
        assert.equal(1, #segment:workers())
        assert.equal(1, segment:info().deaths)
    end)

    it("goes on when a child is killed", function()
        local d, segment = support.dict()
        local pid = support.C.fork()
        if pid == 0 then
            pcall(function()
                while true do
                    d:incr("n", 1, 0)
                    d:set("s", ("x"):rep(d:get("n") % 3000))
                end
            end)
            support.C._exit(1)
        end
        repeat
            support.sleep(0.005)
        until (d:get("n") or 0) > 100
        assert.equal(0, support.C.kill(pid, 9))
        local status = ffi.new("int[1]")
        assert.equal(pid, support.C.waitpid(pid, status, 0))
        assert.equal(9, status[0])
        local n = d:get("n")
        assert.equal(n + 1, d:incr("n", 1))
        assert.is_true(d:set("s", "mine"))
        assert.equal(1, segment:reap())
        assert.is_true(segment:check())
    end)
end)

describe("the library", function()
    it("has every function that the generated declarations name", function()
        local library = require "shdict_library"
        local names = 0
        for name in require("shdict_cdef"):gmatch("(shd_[%w_]+)%(") do
            assert.is_truthy(library.lib[name])
            names = names + 1
        end
        assert.is_true(names > 40, names .. " functions")
        assert.has_error(function()
            return library.lib.shd_no_such_function
        end)
    end)

    it("is declared by its header, or not at all", function()
        local generator = support.here .. "../../lua/gen_cdef"
        local header = support.here .. "../../shm/shdict.h"
        local out = os.tmpname()
        os.remove(out)
        local function generate(compiler)
            return os.execute(("%s %s %s %s 2>/dev/null")
                              :format(generator, compiler, header, out))
        end
        assert.equal(0, generate("cc"))
        assert.equal(require "shdict_cdef", dofile(out))
        os.remove(out)
        assert.is_not.equal(0, generate("false"))
        assert.is_nil(io.open(out))
    end)

    it("is the one of SHDICT_LIBRARY, or none", function()
        local command = support.luajit("-e 'require(\"shdict\")'", "")
        command = command:gsub("%S+$", "")
        local child = io.popen("SHDICT_LIBRARY=/nonexistent.so " .. command
                               .. " 2>&1")
        local said = child:read("*a")
        child:close()
        assert.matches("nonexistent", said)
    end)

    it("may be required anew in the same state", function()
        local saved = {}
        for _, module in ipairs { "shdict", "shdict_dict",
                                  "shdict_library" } do
            saved[module] = package.loaded[module]
            package.loaded[module] = nil
        end
        local again = require "shdict"
        for module, value in pairs(saved) do
            package.loaded[module] = value
        end
        assert.is_not.equal(shdict, again)
        local segment, name = support.segment()
        assert(segment:dict("d", { capacity = "64k" })):set("k", 1)
        assert.equal(1, again.open(name):dict("d"):get("k"))
        support.clean()
    end)
end)

describe("snapshots", function()
    local path = os.tmpname()
    after_each(function()
        os.remove(path)
        support.clean()
    end)

    it("bring a segment back", function()
        local name, other = support.name(), support.name()
        local segment = assert(shdict.open(name))
        local d = assert(segment:dict("d", { capacity = "1m" }))
        d:set("k", "v\0w", 100, 7)
        d:rpush("list", 1)
        assert(segment:queue("q", {})):push("job")
        local info = assert(segment:save(path, { hold = 0.5 }))
        assert.equal(2, info.entries)
        assert.equal(1, info.messages)
        assert.is_true(info.done)
        assert.is_true(info.one_moment)
        assert.equal(name, info.name)
        local sound, figures = shdict.restore(path, nil, { verify = true })
        assert.is_true(sound)
        assert.equal(2, figures.entries)
        local back
        back, figures = shdict.restore(path, other, { wait_ms = 100 })
        assert.is_table(back, figures)
        assert.equal(info.bytes, figures.bytes)
        local value, flags = assert(back:dict("d")):get("k")
        assert.equal("v\0w", value)
        assert.equal(7, flags)
        assert.equal(1, back:dict("d"):lpop("list"))
        assert.equal("job", (back:queue("q"):pop()))
        assert.is_true(back:check())
        refused("exists", "SHD_EXISTS", shdict.restore(path, other))
        refused("1 live worker", "SHD_EXISTS",
                shdict.restore(path, other, { replace = true }))
        local again = assert(shdict.restore(path, other, { in_use = true }))
        assert.equal("job", (again:queue("q"):pop()))
        assert.is_nil((back:queue("q"):pop()))
    end)

    it("are refused with a reason", function()
        local name = support.name()
        local segment = assert(shdict.open(name))
        refused("path", "SHD_INVAL", segment:save(nil))
        refused("path", "SHD_INVAL", shdict.restore("a\0b"))
        refused("option", "SHD_INVAL", segment:save(path, { x = 1 }))
        refused("option", "SHD_INVAL", shdict.restore(path, nil, { x = 1 }))
        refused("no directory", "SHD_NOTFOUND", segment:save("/nowhere/x"))
        local f = assert(io.open(path, "w"))
        f:write("no snapshot")
        f:close()
        refused("no snapshot", "SHD_FOREIGN", shdict.restore(path, "x"))
        assert(segment:close())
        refused("closed", "SHD_CLOSED", segment:save(path))
    end)
end)
