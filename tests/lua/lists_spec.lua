-- SPDX-License-Identifier: BSD-2-Clause
-- Elements of lists on a lease, and moved from list to list.

package.path = (debug.getinfo(1, "S").source:match("^@(.*/)") or "./")
    .. "?.lua;" .. package.path

local support = require "support"
local ffi = require "ffi"

local C = support.C

local METHODS = { "ltake", "rtake", "lmove" }

local function pack(...)
    return { n = select("#", ...), ... }
end

describe("lists", function()
    local d, segment

    before_each(function()
        d, segment = support.dict()
    end)
    after_each(support.clean)

    local function fill(key, ...)
        for i = 1, select("#", ...) do
            assert(d:rpush(key, (select(i, ...))))
        end
    end

    local function all(key)
        local values = {}
        for value in function() return d:lpop(key) end do
            values[#values + 1] = value
        end
        return values
    end

    it("every method raises where self is none", function()
        for _, method in ipairs { "ltake", "rtake", "lmove", "lack", "lnack" }
        do
            for _, self in ipairs { {}, "x", 1, segment } do
                assert.error_matches(function()
                    d[method](self, "k", "v")
                end, 'bad "zone" argument')
            end
        end
    end)

    it("every method refuses what is no key", function()
        for _, method in ipairs(METHODS) do
            for key, why in pairs { [""] = "empty key",
                                    [("k"):rep(65536)] = "key too long" } do
                assert.same({ nil, why, n = 2 }, pack(d[method](d, key, "t")))
            end
            assert.same({ nil, "nil key", n = 2 },
                        pack(d[method](d, nil, "t")))
        end
        assert.same({ nil, "nil key", n = 2 }, pack(d:lmove("k")))
        assert.same({ nil, "empty key", n = 2 }, pack(d:lmove("k", "")))
    end)

    it("a leased element is nobody else's until it is given back", function()
        fill("jobs", "a", "b", "c")
        local job, lease = d:ltake("jobs")
        assert.equal("a", job)
        assert.equal(2, d:llen("jobs"))
        local last, other = d:rtake("jobs")
        assert.equal("c", last)
        assert.is_true(d:lnack(lease))
        assert.is_true(d:lack(other))
        assert.same({ nil, "lost", n = 2 }, pack(d:lack(other)))
        assert.same({ nil, "lost", n = 2 }, pack(d:lnack(lease)))
        assert.same({ "a", "b" }, all("jobs"))
    end)

    it("a list of which all is leased is there and empty", function()
        fill("jobs", 7)
        local value, lease = d:ltake("jobs")
        assert.equal(7, value)
        assert.equal(0, d:llen("jobs"))
        assert.same({ nil, n = 1 }, pack(d:lpop("jobs")))
        assert.same({ nil, n = 1 }, pack(d:ltake("jobs")))
        assert.same({ nil, "value is a list", n = 2 }, pack(d:get("jobs")))
        assert.is_true(d:lack(lease))
        assert.same({ nil, n = 1 }, pack(d:get("jobs")))
    end)

    it("what is leased goes with its list", function()
        fill("jobs", "a", "b")
        local _, lease = d:ltake("jobs")
        assert.is_true(d:delete("jobs"))
        assert.same({ nil, "lost", n = 2 }, pack(d:lack(lease)))
    end)

    it("refuses what is no list, and no lease", function()
        d:set("s", 1)
        fill("l", "x")
        assert.same({ nil, n = 1 }, pack(d:ltake("none")))
        assert.same({ nil, "value not a list", n = 2 }, pack(d:ltake("s")))
        assert.same({ nil, "value not a list", n = 2 }, pack(d:lmove("s", "l")))
        assert.same({ nil, "value not a list", n = 2 }, pack(d:lmove("l", "s")))
        assert.same({ nil, n = 1 }, pack(d:lmove("none", "l")))
        assert.equal(1, d:llen("l"))
        for _, lease in ipairs { 1, "1", {}, false } do
            assert.error_matches(function() d:lack(lease) end,
                                 'bad "lease" argument')
        end
        assert.error_matches(function() d:lmove("l", "m", "top") end,
                             'bad "from_end" argument')
        assert.error_matches(function() d:lmove("l", "m", nil, 1) end,
                             'bad "to_end" argument')
        assert.same({ nil, "lost", n = 2 }, pack(d:lack(ffi.new("uint64_t"))))
    end)

    it("moves from end to end", function()
        for _, case in ipairs {
            { nil, nil, { 2, 3 }, { 9, 1 } },
            { "left", "left", { 2, 3 }, { 1, 9 } },
            { "right", "left", { 1, 2 }, { 3, 9 } },
            { "right", "right", { 1, 2 }, { 9, 3 } }
        } do
            fill("l", 1, 2, 3)
            fill("m", 9)
            assert.is_number(d:lmove("l", "m", case[1], case[2]))
            assert.same(case[3], all("l"))
            assert.same(case[4], all("m"))
        end
    end)

    it("rotates, and moves to many lists in all shards", function()
        local big = assert(segment:dict("big", { capacity = "1m",
                                                 shards = 16 }))
        for i = 1, 200 do
            big:rpush("from", "v" .. i)
        end
        for i = 1, 200 do
            assert.equal("v" .. i, big:lmove("from", "to" .. i))
        end
        assert.equal(0, big:llen("from"))
        for i = 1, 200 do
            assert.equal("v" .. i, big:lmove("to" .. i, "to" .. i))
            assert.equal("v" .. i, big:lpop("to" .. i))
        end
        assert.equal(0, big:info().leases)
    end)

    it("takes and moves what is long", function()
        for _, length in ipairs { 4096, 100000, 300000 } do
            local text = ("x"):rep(length)
            local dict = assert(segment:dict("long", { capacity = "4m" }))
            dict:rpush("l", text)
            assert.equal(text, dict:lmove("l", "m"))
            local value, lease = dict:rtake("m")
            assert.equal(text, value)
            assert.is_true(dict:lack(lease))
        end
    end)

    it("what a killed worker had comes back", function()
        fill("jobs", "a", "b")
        local pid = C.fork()
        if pid == 0 then
            d:ltake("jobs")
            d:ltake("jobs")
            C.kill(C.getpid(), 9)
        end
        local status = ffi.new("int[1]")
        assert.equal(pid, C.waitpid(pid, status, 0))
        assert.equal(9, status[0])
        assert.equal(0, d:llen("jobs"))
        assert.equal("a", (d:ltake("jobs")))
        assert.equal("b", d:lpop("jobs"))
    end)
end)
