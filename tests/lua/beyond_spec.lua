-- SPDX-License-Identifier: BSD-2-Clause
-- The methods that ngx.shared.DICT lacks.

package.path = (debug.getinfo(1, "S").source:match("^@(.*/)") or "./")
    .. "?.lua;" .. package.path

local support = require "support"
local ffi = require "ffi"

local has_buffer, string_buffer = pcall(require, "string.buffer")

local METHODS = {
    "cas", "get_versioned", "set_versioned", "delete_versioned", "pop",
    "touch", "append", "prepend", "lpush_expire", "rpush_expire", "get_multi",
    "set_multi", "get_buf", "set_encoded", "get_decoded", "stats"
}

local function pack(...)
    return { n = select("#", ...), ... }
end

describe("beyond ngx.shared.DICT", function()
    local d, segment, name

    before_each(function()
        d, segment, name = support.dict()
    end)
    after_each(support.clean)

    it("every method raises where self is none", function()
        for _, method in ipairs(METHODS) do
            for _, self in ipairs { {}, "x", 1, segment } do
                assert.error_matches(function()
                    d[method](self, "k", "v", 1)
                end, 'bad "zone" argument')
            end
        end
    end)

    it("every method refuses what is no key", function()
        for _, method in ipairs(METHODS) do
            if not method:find("multi") and method ~= "stats" then
                for key, why in pairs { [""] = "empty key",
                                        [("k"):rep(65536)] = "key too long" }
                do
                    assert.same({ nil, why, n = 2 },
                                pack(d[method](d, key, 1, 1)))
                end
                assert.same({ nil, "nil key", n = 2 },
                            pack(d[method](d, nil, 1, 1)))
            end
        end
    end)

    it("raises in the line that calls it", function()
        local here = debug.getinfo(1, "S").short_src:gsub("%p", "%%%0")
        for _, call in ipairs {
            function() d:cas("k", 1, 2, -1) end,
            function() d:set_versioned("k", 1, 0, -1) end,
            function() d:set_versioned("k", 1, "x") end,
            function() d:delete_versioned("k", -1) end,
            function() d:touch("k", -1) end,
            function() d:append("k", "v", {}) end,
            function() d:append("k", "v", "", -1) end,
            function() d:prepend("k", "v", nil, 5) end,
            function() d:lpush_expire("k", "v") end,
            function() d:rpush_expire("k", "v", -1) end,
            function() d:get_multi("k") end,
            function() d:set_multi({}, "k") end,
            function() d:set_multi({}, {}, -1) end,
            function() d:get_buf("k", "v") end,
            function() d:get_buf("k", ffi.new("char[1]")) end,
            function() d:set_encoded("k", {}, -1) end,
            function() d.pop({}, "k") end
        } do
            local line = debug.getinfo(call, "S").linedefined
            local ok, err = pcall(call)
            assert.is_false(ok)
            assert.matches("^" .. here .. ":" .. line .. ": ", err)
        end
    end)

    -- ---- cas -------------------------------------------------------------

    it("cas stores over the value it was given", function()
        assert.same({ true, nil, false, n = 3 }, pack(d:cas("k", nil, "one")))
        assert.same({ false, "exists", false, n = 3 },
                    pack(d:cas("k", nil, "two")))
        assert.same({ false, "changed", false, n = 3 },
                    pack(d:cas("k", "on", "two")))
        assert.same({ true, nil, false, n = 3 },
                    pack(d:cas("k", "one", 5, 100, 7)))
        assert.same({ 5, 7 }, { d:get("k") })
        assert.is_true(d:ttl("k") > 99)
        assert.same({ false, "changed", false, n = 3 },
                    pack(d:cas("k", "5", true)))
        assert.is_true(d:cas("k", 5, false))
        assert.is_false(d:get("k"))
        assert.same({ true, nil, false, n = 3 }, pack(d:cas("k", false, nil)))
        assert.same({ false, "not found", false, n = 3 },
                    pack(d:cas("k", false, 1)))
        assert.same({ true, nil, false, n = 3 }, pack(d:cas("k", nil, nil)))
        assert.is_nil(d:get("k"))
    end)

    it("cas takes what a get gives, whatever it is", function()
        for _, value in ipairs { "", "a\0b", ("x"):rep(50000), 0, -0.0, 1.5,
                                 0 / 0, 1 / 0, true, false } do
            d:set("k", value)
            assert.is_true(d:cas("k", d:get("k"), "next"))
            assert.equal("next", d:get("k"))
        end
    end)

    it("cas refuses lists, other types and huge values", function()
        d:rpush("l", 1)
        assert.same({ false, "changed", false }, { d:cas("l", 1, 2) })
        assert.same({ false, "exists", false }, { d:cas("l", nil, 2) })
        assert.same({ nil, "bad value type" }, { d:cas("k", {}, 2) })
        assert.same({ nil, "bad value type" }, { d:cas("k", 2, print) })
        d:set("k", "v")
        assert.same({ false, "no memory", false },
                    { d:cas("k", "v", ("h"):rep(1048576)) })
        assert.equal("v", d:get("k"))
    end)

    it("counts by cas in several processes at once", function()
        d:set("count", 0)
        local pids = {}
        for i = 1, 3 do
            pids[i] = support.C.fork()
            if pids[i] == 0 then
                for _ = 1, 500 do
                    local now
                    repeat
                        now = d:get("count")
                    until d:cas("count", now, now + 1)
                end
                support.C._exit(0)
            end
        end
        local status = ffi.new("int[1]")
        for i = 1, 3 do
            assert.equal(pids[i], support.C.waitpid(pids[i], status, 0))
            assert.equal(0, status[0])
        end
        assert.equal(1500, d:get("count"))
    end)

    -- ---- versions --------------------------------------------------------

    it("stores by version", function()
        assert.same({ n = 1 }, pack(d:get_versioned("k")))
        local ok, err, forcible, version = d:set_versioned("k", "a")
        assert.same({ true, nil, false }, { ok, err, forcible })
        assert.is_true(version > 0)
        assert.same({ "a", nil, version, n = 3 }, pack(d:get_versioned("k")))
        assert.same({ false, "exists", false, n = 3 },
                    pack(d:set_versioned("k", "b")))
        assert.same({ false, "changed", false, n = 3 },
                    pack(d:set_versioned("k", "b", version + 1)))
        local _, _, _, second = d:set_versioned("k", "b", version, 100, 3)
        assert.is_true(second > version)
        assert.same({ "b", 3, second, n = 3 }, pack(d:get_versioned("k")))
        assert.is_true(d:ttl("k") > 99)
        assert.same({ false, "changed", false, n = 3 },
                    pack(d:delete_versioned("k", version)))
        assert.same({ true, nil, false, n = 3 },
                    pack(d:delete_versioned("k", second)))
        assert.same({ false, "not found", false, n = 3 },
                    pack(d:delete_versioned("k", second)))
        assert.same({ false, "not found", false, n = 3 },
                    pack(d:set_versioned("k", 1, second)))
        assert.same({ nil, "bad value type" }, { d:set_versioned("k", {}) })
    end)

    it("every change gives another version", function()
        d:set("k", 1)
        local last = select(3, d:get_versioned("k"))
        local changes = {
            function() d:set("k", 1) end,
            function() d:incr("k", 1) end,
            function() d:expire("k", 100) end,
            function() d:touch("k", 100) end,
            function() d:replace("k", "text") end,
            function() d:append("k", "more") end,
            function() d:prepend("k", "more") end,
            function() d:delete("k") d:add("k", "text") end,
            function() d:pop("k") d:set_encoded("k", { 1 }) end,
            function() d:set_multi({ "k" }, { "long" .. ("x"):rep(9000) }) end
        }
        for _, change in ipairs(changes) do
            change()
            assert.equal("changed",
                         (select(2, d:set_versioned("k", 0, last))))
            local version = select(3, d:get_versioned("k"))
            assert.is_true(version > last)
            last = version
        end
        d:get("k")
        d:touch("k")
        d:set("other", 1)
        assert.equal(last, select(3, d:get_versioned("k")))
    end)

    it("lists have no versions", function()
        d:rpush("l", 1)
        assert.same({ nil, "value is a list" }, { d:get_versioned("l") })
        assert.same({ false, "changed", false },
                    { d:set_versioned("l", 1, 1) })
    end)

    -- ---- one key ---------------------------------------------------------

    it("pop reads and deletes", function()
        d:set("k", ("long"):rep(9000), 0, 5)
        assert.same({ ("long"):rep(9000), 5, n = 2 }, pack(d:pop("k")))
        assert.same({ nil, n = 1 }, pack(d:pop("k")))
        d:set("k", false)
        assert.same({ false, n = 1 }, pack(d:pop("k")))
        d:lpush("l", 1)
        assert.same({ nil, "value is a list", n = 2 }, pack(d:pop("l")))
        assert.equal(1, d:llen("l"))
    end)

    it("touch keeps or sets the time to live", function()
        assert.same({ nil, "not found" }, { d:touch("k") })
        d:set("k", 1, 50)
        d:set("other", 1)
        assert.is_true(d:touch("k"))
        assert.same({ "other", "k" }, d:get_keys())
        assert.is_true(d:ttl("k") > 49)
        assert.is_true(d:touch("k", 5))
        assert.is_true(d:ttl("k") <= 5)
        assert.is_true(d:touch("k", 0))
        assert.equal(0, d:ttl("k"))
        d:touch("k", 0.001)
        support.sleep(0.002)
        assert.same({ nil, "not found" }, { d:touch("k", 5) })
    end)

    it("append and prepend give the length", function()
        assert.same({ nil, "not found", false, n = 3 },
                    pack(d:append("k", "a")))
        assert.same({ 3, nil, false, n = 3 }, pack(d:append("k", "c", "ab")))
        assert.same({ 5, nil, false, n = 3 }, pack(d:prepend("k", 12)))
        assert.equal("12abc", d:get("k"))
        assert.equal(0, d:ttl("k"))
        assert.equal(2, (d:prepend("p", "a", "b", 50)))
        assert.equal("ab", d:get("p"))
        assert.is_true(d:ttl("p") > 49)
        d:set("n", 5)
        assert.same({ nil, "not a string", false }, { d:append("n", "a") })
        assert.same({ nil, "bad value type" }, { d:append("k", true) })
        local want = d:get("k")
        for i = 1, 60 do
            local more = ("%d,"):format(i):rep(i)
            want = want .. more
            assert.equal(#want, (d:append("k", more)))
        end
        assert.equal(want, d:get("k"))
        assert.same({ nil, "no memory", false },
                    { d:append("k", ("h"):rep(1048576)) })
        assert.equal(want, d:get("k"))
    end)

    it("lists have a time to live", function()
        d:rpush("l", 1)
        assert.equal(0, d:ttl("l"))
        assert.is_true(d:expire("l", 50))
        assert.is_true(d:ttl("l") > 49)
        d:lpush("l", 0)
        assert.is_true(d:ttl("l") > 49)
        assert.equal(3, d:rpush_expire("l", 2, 5))
        assert.is_true(d:ttl("l") <= 5)
        assert.equal(4, d:lpush_expire("l", -1, 0))
        assert.equal(0, d:ttl("l"))
        assert.equal(-1, d:lpop("l"))
        assert.equal(1, d:rpush_expire("new", "x", 0.001))
        support.sleep(0.002)
        assert.equal(0, d:llen("new"))
        assert.equal(1, d:lpush_expire("new", "y", 5))
        d:set("s", "x")
        assert.same({ nil, "value not a list" }, { d:lpush_expire("s", 1, 1) })
        assert.same({ nil, "bad value type" }, { d:lpush_expire("l", true, 1) })
        -- The calls of ngx.shared.DICT count their arguments as ever.
        assert.error_matches(function()
            d:lpush("l", 1, 5)
        end, "expecting 3 arguments, but only seen 4")
    end)

    -- ---- many keys -------------------------------------------------------

    it("get_multi and set_multi go by position", function()
        local keys, values = {}, {}
        for i = 1, 200 do
            keys[i] = i % 7 == 0 and i or "key" .. i
            values[i] = i % 3 == 0 and i or i % 5 == 0 and i % 2 == 0
                or ("v"):rep(i * 3)
        end
        assert.same({ true, nil, false, n = 3 },
                    pack(d:set_multi(keys, values, 100, 4)))
        local flags = {}
        local got, errors = d:get_multi(keys, nil, flags)
        assert.is_nil(errors)
        assert.equal(200, got.n)
        for i = 1, 200 do
            assert.equal(values[i], got[i])
            assert.equal(4, flags[i])
            assert.equal(values[i], (d:get(keys[i])))
        end
        assert.is_true(d:ttl("key1") > 99)
        assert.same({ n = 0 }, d:get_multi({}))
        assert.is_true(d:set_multi({}, {}))
    end)

    it("get_multi fills the table it is given anew", function()
        d:set("a", 1, 0, 9)
        d:set("c", "three")
        local results, flags = {}, {}
        assert.equal(results, (d:get_multi({ "a", "b", "c", "a" }, results,
                                           flags)))
        assert.same({ 1, nil, "three", 1, n = 4 }, results)
        assert.same({ 9, [4] = 9 }, flags)
        d:get_multi({ "b", "c" }, results, flags)
        assert.same({ [2] = "three", n = 2 }, results)
        assert.same({}, flags)
    end)

    it("get_multi tells of each key what went wrong", function()
        d:set("a", 1)
        d:rpush("l", 1)
        local results, errors = d:get_multi({ "a", "l", "", ("k"):rep(65536),
                                              "b" })
        assert.same({ 1, n = 5 }, results)
        assert.same({ [2] = "value is a list", [3] = "empty key",
                      [4] = "key too long" }, errors)
        assert.same({ nil, "nil key" }, { d:get_multi({ nil, "a" }) })
    end)

    it("get_multi reads values longer than its buffer", function()
        local keys, values = {}, {}
        for i = 1, 30 do
            keys[i] = "k" .. i
            values[i] = tostring(i):rep(i * 500)
            d:set(keys[i], values[i], 0, i)
        end
        for _ = 1, 8 do
            local flags = {}
            local got, errors = d:get_multi(keys, nil, flags)
            assert.is_nil(errors)
            for i = 1, 30 do
                assert.is_true(values[i] == got[i])
                assert.equal(i, flags[i])
            end
        end
    end)

    it("set_multi deletes by nil and tells what did not fit", function()
        d:set_multi({ "a", "b", "c" }, { 1, 2, 3 })
        assert.is_true(d:set_multi({ "a", "b", "x" }, { nil, 5, nil }))
        assert.is_nil(d:get("a"))
        assert.equal(5, d:get("b"))
        local ok, err, forcible, errors =
            d:set_multi({ "a", "b", "" }, { 7, ("h"):rep(1048576), 8 })
        assert.same({ false, "no memory", false },
                    { ok, err, forcible })
        assert.same({ [2] = "no memory", [3] = "empty key" }, errors)
        assert.equal(7, d:get("a"))
        assert.equal(5, d:get("b"))
        assert.same({ nil, "bad value type" },
                    { d:set_multi({ "a", "b" }, { 0, {} }) })
        assert.equal(7, d:get("a"))
    end)

    -- ---- into a buffer ---------------------------------------------------

    it("get_buf fills memory of the caller's", function()
        local room = ffi.new("uint8_t[20]")
        d:set("k", "ten bytes.", 0, 3)
        assert.same({ 10, 3, n = 2 }, pack(d:get_buf("k", room, 20)))
        assert.equal("ten bytes.", ffi.string(room, 10))
        assert.same({ 10, 3 }, { d:get_buf("k", room + 5, 10) })
        room[9] = 77
        assert.same({ nil, "the buffer is too small", 10, n = 3 },
                    pack(d:get_buf("k", room, 9)))
        assert.equal(77, room[9])
        assert.same({ nil, n = 1 }, pack(d:get_buf("none", room, 9)))
        d:set("n", 5)
        assert.same({ nil, "not a string" }, { d:get_buf("n", room, 9) })
        d:rpush("l", 5)
        assert.same({ nil, "value is a list" }, { d:get_buf("l", room, 9) })
    end)

    if has_buffer then
        it("get_buf adds to a string.buffer", function()
            local buf = string_buffer.new()
            local long = ("0123456789"):rep(5000)
            d:set("k", "short", 0, 3)
            d:set("long", long)
            buf:put("<")
            assert.same({ 5, 3 }, { d:get_buf("k", buf) })
            assert.equal(50000, d:get_buf("long", buf))
            assert.same({ nil, n = 1 }, pack(d:get_buf("none", buf)))
            d:set("n", 5)
            assert.same({ nil, "not a string" }, { d:get_buf("n", buf) })
            buf:put(">")
            assert.is_true("<short" .. long .. ">" == buf:tostring())
        end)
    end

    -- ---- encoded values --------------------------------------------------

    it("stores tables", function()
        local value = { 1, "two", { three = 3, [4.5] = true }, n = 0 }
        assert.same({ true, nil, false, n = 3 },
                    pack(d:set_encoded("k", value, 100, 6)))
        assert.same({ value, 6, n = 2 }, pack(d:get_decoded("k")))
        assert.is_true(d:ttl("k") > 99)
        local long = {}
        for i = 1, 5000 do
            long[i] = "element " .. i
        end
        assert.is_true(d:set_encoded("long", long))
        assert.same(long, d:get_decoded("long"))
        assert.same({ nil, n = 1 }, pack(d:get_decoded("none")))
        local ok, err = d:set_encoded("k", { print })
        assert.is_nil(ok)
        assert.matches("^bad value type: [^/]*$", err)
        assert.same({ value, 6 }, { d:get_decoded("k") })
    end)

    it("tells what is no encoded value", function()
        for _, value in ipairs { "", "plain", 5, true, "\1", "\1\255", "\2{",
                                 "\3x" } do
            d:set("k", value)
            assert.same({ nil, "not an encoded value", n = 2 },
                        pack(d:get_decoded("k")))
        end
        if has_buffer then
            d:set("k", "\1" .. string_buffer.encode(5) .. "x")
            assert.same({ nil, "not an encoded value" },
                        { d:get_decoded("k") })
        end
        d:rpush("l", 1)
        assert.same({ nil, "value is a list" }, { d:get_decoded("l") })
    end)

    it("uses cjson where there is no string.buffer, or says so", function()
        local function child(...)
            local run = io.popen(support.luajit("", "encoded_child.lua", name,
                                                ...) .. " 2>&1")
            local said = run:read("*a")
            run:close()
            return said
        end
        d:set_encoded("theirs", { a = 1, 7 })
        local none = "no encoder: neither string.buffer nor cjson"
        if has_buffer then
            assert.equal("true nil false\n{5,nil}\n{1,7}\n", child())
            local no = "nil no decoder: this LuaJIT has no string.buffer\n"
            assert.equal("false " .. none .. " false\n" .. no .. no,
                         child("string.buffer", "cjson"))
        end
        if pcall(require, "cjson") then
            assert.matches("^true nil false\n{5,nil}\n",
                           child("string.buffer"))
            assert.equal(5, d:get_decoded("mine").a)
        end
    end)

    it("stats gives figures, in the table it is given", function()
        d:set("k", 1)
        local into = { mine = 1 }
        assert.equal(into, d:stats(into))
        assert.has_error(function() d:stats(1) end, 'bad "into" argument')
        assert.has_error(function()
            d:append("key", "x", ffi.new("void *"))
        end, "bad init arg: string expected, got cdata")
        assert.has_error(function() d:get_multi({}, "x") end,
                         'bad "results" argument')
        assert.has_error(function() d:get_multi({}, {}, 1) end,
                         'bad "flags" argument')
        assert.equal(1, into.entries)
        assert.equal(1, into.mine)
        assert.equal(d:capacity(), into.capacity)
        assert.equal(d:free_space(), into.free)
        assert.is_true(into.used > 0 and into.index > 0
                       and into.largest > into.used)
        for _, what in ipairs { "evictions", "expirations", "moves",
                                "recoveries", "lock_waits" } do
            assert.equal(0, d:stats()[what])
        end
    end)

    it("answers for what is closed", function()
        d:close()
        local closed = "the handle is closed"
        assert.same({ false, closed, false }, { d:cas("k", 1, 2) })
        assert.same({ nil, closed }, { d:get_versioned("k") })
        assert.same({ false, closed, false }, { d:set_versioned("k", 1) })
        assert.same({ nil, closed }, { d:pop("k") })
        assert.same({ nil, closed }, { d:touch("k") })
        assert.same({ nil, closed, false }, { d:append("k", "a") })
        assert.same({ nil, closed }, { d:lpush_expire("k", "a", 1) })
        local results, errors = d:get_multi({ "a", "b" })
        assert.same({ n = 2 }, results)
        assert.same({ closed, closed }, errors)
        assert.same({ false, closed, false, { closed } },
                    { d:set_multi({ "a" }, { 1 }) })
        assert.same({ nil, closed },
                    { d:get_buf("k", ffi.new("char[1]"), 1) })
        assert.same({ nil, closed }, { d:get_decoded("k") })
        assert.same({ nil, closed }, { d:stats() })
    end)
end)
