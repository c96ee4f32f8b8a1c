-- SPDX-License-Identifier: BSD-2-Clause
-- What dicts do beyond contract_cases.lua: where ours is better than the
-- original on purpose, what the original lacks, and our own errors.

package.path = (debug.getinfo(1, "S").source:match("^@(.*/)") or "./")
    .. "?.lua;" .. package.path

local support = require "support"
local ffi = require "ffi"

local METHODS = {
    "get", "get_stale", "set", "safe_set", "add", "safe_add", "replace",
    "delete", "incr", "lpush", "rpush", "lpop", "rpop", "llen", "ttl",
    "expire", "flush_all", "flush_expired", "get_keys", "capacity",
    "free_space"
}

describe("a dict", function()
    local d, segment

    before_each(function()
        d, segment = support.dict()
    end)
    after_each(support.clean)

    it("has every method of ngx.shared.DICT, in one metatable", function()
        local other = assert(segment:dict("other", { capacity = "64k" }))
        local mt = getmetatable(d)
        assert.equal(mt, getmetatable(other))
        assert.equal(mt, mt.__index)
        for _, method in ipairs(METHODS) do
            assert.is_function(mt[method])
            assert.equal(mt[method], d[method])
        end
    end)

    it("raises in the line that calls it", function()
        local here = debug.getinfo(1, "S").short_src:gsub("%p", "%%%0")
        for _, call in ipairs {
            function() d.get({}, "k") end,
            function() d.set({}, "k", 1) end,
            function() d:set("k", 1, -1) end,
            function() d:add("k", 1, -1) end,
            function() d:incr("k", "x") end,
            function() d:incr("k", 1, "x") end,
            function() d:expire("k") end,
            function() d:lpush("k") end,
            function() d.rpush({}, "k", 1) end,
            function() d:lpop({}) end,
            function() d:llen() end,
            function() d.llen({}, "k") end,
            function() d:get_keys(nil) end,
            function() d:flush_expired(1, 2) end,
            function() d.flush_all() end
        } do
            local line = debug.getinfo(call, "S").linedefined
            local ok, err = pcall(call)
            assert.is_false(ok)
            assert.matches("^" .. here .. ":" .. line .. ": ", err)
        end
    end)

    it("raises where self is none", function()
        for _, method in ipairs(METHODS) do
            local n = (method:find("push") and 3)
                or (method:find("get_keys") and 1)
                or (method == "flush_expired" and 1) or 2
            for _, self in ipairs { {}, "x", 1, true, { 1 }, { {} },
                                    { ffi.new("int[1]") }, { segment[1] },
                                    { ffi.new("void *") }, segment } do
                assert.error_matches(function()
                    d[method](unpack({ self, "k", "v" }, 1, n))
                end, 'bad "zone" argument')
            end
        end
        assert.error_matches(function()
            d.get()
        end, 'bad "zone" argument')
    end)

    it("reads values longer than any before", function()
        for _, bytes in ipairs { 4096, 4097, 10000, 100000, 400000 } do
            local value = ("ab\0c"):rep(bytes / 4 + 1):sub(1, bytes)
            assert.same({ true, nil, false }, { d:set("k", value, 0, 3) })
            assert.same({ value, 3 }, { d:get("k") })
            assert.same({ value, 3, false }, { d:get_stale("k") })
            d:delete("k")
            assert.equal(1, d:rpush("l", value))
            assert.equal(2, d:rpush("l", value .. "z"))
            assert.equal(value, d:lpop("l"))
            assert.equal(value .. "z", d:rpop("l"))
            assert.is_nil(d:lpop("l"))
        end
    end)

    it("reads a value longer than what it keeps a buffer for", function()
        local big = assert(segment:dict("big", { capacity = "16m" }))
        local value = ("0123456789"):rep(300000)
        assert.is_true(big:set("k", value))
        assert.is_true(big:get("k") == value)
        assert.is_true(big:get_stale("k") == value)
        local _, page = big:scan(nil, 10)
        assert.is_true(page[1].value == value)
    end)

    it("keeps the old value when a new one does not fit", function()
        local huge = ("h"):rep(1048576)
        d:set("k", "old", 100, 4)
        for _, method in ipairs { "set", "safe_set", "replace" } do
            local ok, err = d[method](d, "k", huge)
            assert.is_false(ok)
            assert.equal("no memory", err)
            assert.same({ "old", 4 }, { d:get("k") })
            assert.is_true(d:ttl("k") > 99)
        end
        assert.same({ nil, "no memory" }, { d:lpush("l", huge) })
        assert.equal(0, d:llen("l"))
        assert.is_nil(d:get_stale("l"))
    end)

    it("evicts for set, and says so", function()
        local value = ("v"):rep(1000)
        local forced, i = false, 0
        repeat
            i = i + 1
            local ok, err, forcible = d:set("k" .. i, value)
            assert.is_true(ok, err)
            assert.is_nil(err)
            forced = forcible
        until forced or i > 5000
        assert.is_true(forced)
        assert.equal(value, d:get("k" .. i))
        assert.is_nil(d:get("k1"))
        assert.is_true(d:info().evictions > 0)
    end)

    it("frees room of what expired without force", function()
        local value = ("v"):rep(1000)
        for i = 1, 400 do
            assert.is_true(d:safe_set("k" .. i, value, 0.005))
        end
        support.sleep(0.01)
        for i = 401, 1100 do
            assert.same({ true, nil, false },
                        { d:set("k" .. i, value, 0.5) })
            if i % 100 == 0 then
                d:flush_expired()
                d:flush_all()
                support.sleep(0.002)
            end
        end
    end)

    it("shows stale values after flush_all", function()
        d:set("k", "v", 0, 2)
        d:rpush("l", 1)
        assert.equal(0, select("#", d:flush_all()))
        support.sleep(0.002)
        assert.is_nil(d:get("k"))
        assert.same({ "v", 2, true }, { d:get_stale("k") })
        assert.equal(0, d:llen("l"))
        assert.equal(2, d:flush_expired())
        assert.is_nil(d:get_stale("k"))
    end)

    it("expires by the millisecond, and revives", function()
        d:set("k", "v", 0.5)
        assert.equal("v", d:get("k"))
        support.sleep(0.5)
        assert.is_nil(d:get("k"))
        assert.is_true(d:ttl("k") < 0)
        assert.is_true(d:expire("k", 10))
        assert.equal("v", d:get("k"))
        assert.is_true(d:expire("k", -1))
        assert.equal(0, d:ttl("k"))
    end)

    it("never expires what has no time that can be told", function()
        for i, exptime in ipairs { 0, 0.0004, 0 / 0, 1 / 0, 1e16, 1e300 } do
            assert.is_true(d:set("k" .. i, 1, exptime))
            assert.equal(0, d:ttl("k" .. i))
            assert.equal(1, d:incr("n" .. i, 1, 0, exptime))
            assert.equal(0, d:ttl("n" .. i))
            d:set("k" .. i, 1, 100)
            assert.is_true(d:expire("k" .. i, exptime))
            assert.equal(0, d:ttl("k" .. i))
        end
    end)

    it("tells its capacity and its free space", function()
        assert.equal(1048576, d:capacity())
        local before = d:free_space()
        assert.is_true(before > 0 and before <= 1048576)
        d:set("k", ("v"):rep(100000))
        assert.is_true(d:free_space() <= before - 100000)
        d:delete("k")
        assert.is_true(d:free_space() > before - 8192)
    end)

    it("tells about itself", function()
        d:set("a", 1)
        d:set("b", 2)
        local info = d:info()
        assert.equal(1048576, info.capacity_bytes)
        assert.equal(2, info.entries)
        assert.equal("d", info.name)
        assert.is_nil(info.struct_size)
        assert.is_true(info.value_max_bytes > 500000)
        assert.is_true(d:set("k", ("v"):rep(info.value_max_bytes)))
        local ok, err = d:set("k", ("v"):rep(info.value_max_bytes + 1))
        assert.is_false(ok)
        assert.equal("no memory", err)
    end)

    it("is resized while it is in use", function()
        for i = 1, 100 do
            assert.is_true(d:set("k" .. i, ("v"):rep(5000)))
        end
        assert.is_true(d:resize("4m"))
        assert.equal(4194304, d:capacity())
        assert.equal(4194304, d:info().capacity_bytes)
        assert.is_true(d:info().capacity_max_bytes >= 4194304)
        for i = 1, 500 do
            assert.same({ true, nil, false },
                        { d:set("k" .. i, ("v"):rep(5000)) })
        end
        assert.is_true(d:resize(300000))
        assert.equal(300000, d:capacity())
        assert.equal(0, d:info().resizing)
        local left = #d:get_keys(0)
        assert.is_true(left > 20 and left < 60)
        for _, key in ipairs(d:get_keys(0)) do
            assert.equal(("v"):rep(5000), d:get(key))
        end
    end)

    it("is opened as it was resized, if that is asked for", function()
        local segment = support.segment()
        local one = assert(segment:dict("r", { capacity = "1m",
                                               capacity_max = "8m" }))
        assert.equal(8388608, one:info().capacity_max_bytes)
        assert.is_true(one:resize("2m"))
        local none, err, code = segment:dict("r", { capacity = "1m" })
        assert.is_nil(none)
        assert.equal("SHD_MISMATCH", code)
        assert.matches("2097152", err)
        local again = assert(segment:dict("r", { capacity = "1m",
                                                 any_capacity = true }))
        assert.equal(2097152, again:capacity())
    end)

    it("says what it cannot be resized to", function()
        local ok, err, code = d:resize("60g")
        assert.is_nil(ok)
        assert.matches("bytes at most", err)
        assert.equal("SHD_INVAL", code)
        ok, err = d:resize("big")
        assert.is_nil(ok)
        assert.matches("bad capacity: bytes expected", err)
        ok, err = d:resize()
        assert.is_nil(ok)
        assert.matches("got nil", err)
        assert.equal(1048576, d:capacity())
    end)

    it("explains every byte of its capacity", function()
        d:set("k", "value")
        d:set("long", ("v"):rep(100000))
        local a = d:account()
        assert.equal(1048576, a.capacity_bytes)
        local sum = 0
        for _, part in ipairs { "live", "expired", "garbage", "entry", "list",
                "chain", "rounding", "free_cells", "free_pages", "page_tail",
                "header", "shards", "map", "table", "roots", "marks",
                "padding" } do
            sum = sum + a[part .. "_bytes"]
        end
        assert.equal(a.capacity_bytes, sum)
        assert.equal(100000 + 5 + 5, a.live_bytes)
        assert.equal(2, a.entries_live)
        assert.equal(a.classes[1].cell_bytes, 48)
        local free = 0
        for i = 1, #a.classes do
            free = free + a.classes[i].free_cells * a.classes[i].cell_bytes
        end
        assert.equal(a.free_cells_bytes, free)
        assert.is_true(d:safe_set("x", ("v"):rep(a.safe_value_max_bytes)))
    end)

    it("answers after close", function()
        d:set("k", 1)
        assert.is_true(d:close())
        local CLOSED = "the handle is closed"
        for _, method in ipairs { "set", "safe_set", "add", "safe_add",
                                  "replace", "delete" } do
            assert.same({ false, CLOSED, false }, { d[method](d, "k", 1) })
        end
        for _, call in ipairs {
            { "get", "k" }, { "get_stale", "k" }, { "incr", "k", 1 },
            { "incr", "k", 1, 0 }, { "ttl", "k" }, { "expire", "k", 1 },
            { "lpush", "k", 1 }, { "rpush", "k", 1 }, { "lpop", "k" },
            { "rpop", "k" }, { "llen", "k" }, { "flush_all" },
            { "flush_expired" }, { "get_keys" }, { "capacity" },
            { "free_space" }, { "info" }, { "resize", "1m" }, { "close" }
        } do
            local results = { d[call[1]](d, unpack(call, 2)) }
            assert.is_nil(results[1])
            assert.equal(CLOSED, results[2])
        end
        local cursor, page, err = d:scan()
        assert.is_nil(cursor)
        assert.is_nil(page)
        assert.equal(CLOSED, err)
    end)
end)

describe("scan", function()
    local d

    before_each(function()
        d = support.dict()
    end)
    after_each(support.clean)

    -- All entries by key, in pages; a key given twice fails.
    local function walk(count, options)
        local found, pages, cursor = {}, 0, nil
        repeat
            local page, err
            cursor, page, err = d:scan(cursor, count, options)
            assert.is_table(page, err)
            assert.is_true(#page <= count)
            pages = pages + 1
            for _, entry in ipairs(page) do
                assert.is_nil(found[entry.key])
                found[entry.key] = entry
            end
        until not cursor
        return found, pages
    end

    it("gives each entry once, whatever the page", function()
        for i = 1, 500 do
            d:set("k" .. i, i)
        end
        for _, count in ipairs { 1, 7, 100, 499, 500, 501, 10000 } do
            local found, pages = walk(count)
            for i = 1, 500 do
                assert.equal(i, found["k" .. i].value)
                found["k" .. i] = nil
            end
            assert.is_nil(next(found))
            assert.is_true(pages >= math.ceil(500 / count))
        end
    end)

    it("gives values of each type, flags and times to live", function()
        d:set("s", "a\0b", 100, 5)
        d:set("n", 1.5)
        d:set("b", false, 0, -1)
        d:rpush("l", 1)
        d:rpush("l", 2)
        local found = walk(10)
        assert.is_true(found.s.ttl > 99 and found.s.ttl <= 100)
        found.s.ttl = nil
        assert.same({
            s = { key = "s", type = "string", value = "a\0b", flags = 5 },
            n = { key = "n", type = "number", value = 1.5, flags = 0,
                  ttl = 0 },
            b = { key = "b", type = "boolean", value = false, flags = -1,
                  ttl = 0 },
            l = { key = "l", type = "list", length = 2, flags = 0, ttl = 0 }
        }, found)
    end)

    it("leaves out values where it is told to", function()
        d:set("s", ("v"):rep(100000))
        local found = walk(10, { values = false })
        assert.is_nil(found.s.value)
        assert.equal(100000, found.s.length)
        assert.equal(("v"):rep(100000), walk(10).s.value)
    end)

    it("shows expired entries only where it is told to", function()
        d:set("stays", 1)
        d:set("gone", 2, 0.001)
        support.sleep(0.005)
        assert.is_nil(walk(10).gone)
        local found = walk(10, { expired = true })
        assert.is_true(found.gone.ttl < 0)
        assert.equal(2, found.gone.value)
        assert.equal(1, found.stays.value)
    end)

    it("goes on from a key that has been deleted", function()
        for i = 1, 100 do
            d:set("k" .. i, i)
        end
        local cursor, page = d:scan(nil, 50)
        for _, entry in ipairs(page) do
            d:delete(entry.key)
        end
        local rest
        cursor, rest = d:scan(cursor, 100)
        assert.is_nil(cursor)
        assert.equal(50, #rest)
    end)

    it("ends at once in an empty dict", function()
        local cursor, page = d:scan()
        assert.is_nil(cursor)
        assert.same({}, page)
    end)

    it("refuses what it cannot mean", function()
        for _, bad in ipairs {
            { 12 }, { {} }, { nil, 0 }, { nil, -1 }, { nil, "x" },
            { nil, 0 / 0 }, { nil, 10, "x" }, { nil, 10, { exired = true } },
            { nil, 10, { values = 1 } }, { "" }
        } do
            local cursor, page, err = d:scan(unpack(bad, 1, 3))
            assert.is_nil(cursor)
            assert.is_nil(page)
            assert.is_string(err)
        end
    end)
end)
