-- SPDX-License-Identifier: BSD-2-Clause
-- shdict/ngx.lua: ngx.shared in a host that is not nginx.

package.path = (debug.getinfo(1, "S").source:match("^@(.*/)") or "./")
    .. "?.lua;" .. package.path

local support = require "support"
local shdict = require "shdict"
local shared_ngx = require "shdict.ngx"

local function refused(pattern, code, value, err, name)
    assert.is_nil(value)
    assert.matches(pattern, err)
    assert.equal(code, name)
end

-- What a library of this kind (lua-resty-lock) begins with.
local LIBRARY = [[
    require "resty.core.shdict"
    local shared = ngx.shared
    local now = ngx.now
    local M = {}
    function M.lock(zone, key)
        return shared[zone]:add(key, now(), 30)
    end
    return M
]]

describe("shdict.ngx", function()
    local before, had

    before_each(function()
        before, had = rawget(_G, "ngx"), package.loaded["resty.core.shdict"]
        rawset(_G, "ngx", nil)
        package.loaded["resty.core.shdict"] = nil
        package.preload["resty.core.shdict"] = nil
    end)

    after_each(function()
        rawset(_G, "ngx", before)
        package.loaded["resty.core.shdict"] = had
        package.preload["resty.core.shdict"] = nil
        support.clean()
    end)

    it("makes ngx.shared of a segment's dicts", function()
        local name = support.name()
        local shared = assert(shared_ngx.open(name, {
            cache = "1m", locks = { capacity = 65536, shards = 1 }
        }))
        assert.equal(shared, ngx.shared)
        assert.is_true(ngx.shared.cache:set("k", "v"))
        assert.equal(65536, ngx.shared.locks:capacity())
        assert.is_nil(ngx.shared.other)
        local again = assert(shdict.open(name, { create = false }))
        assert.equal("v", assert(again:dict("cache")):get("k"))
    end)

    it("has the shape of the original", function()
        assert(shared_ngx.open(support.name(), { a = "64k", b = "64k" }))
        assert.is_nil(getmetatable(ngx.shared))
        local meta = getmetatable(ngx.shared.a)
        assert.equal(meta, getmetatable(ngx.shared.b))
        assert.equal(meta, meta.__index)
    end)

    it("lets libraries load that need the dictionary and a clock", function()
        assert(shared_ngx.open(support.name(), { locks = "64k" }))
        ngx.now = os.time
        local library = assert(loadstring(LIBRARY))()
        assert.is_true(library.lock("locks", "job"))
        assert.same({ false, "exists", false },
                    { library.lock("locks", "job") })
    end)

    it("replaces nothing that is there", function()
        local log, other = function() end, {}
        rawset(_G, "ngx", { log = log, shared = { other = other } })
        local core = {}
        package.loaded["resty.core.shdict"] = core
        local shared = ngx.shared
        refused("^ngx.shared.other exists already$", "SHD_EXISTS",
                shared_ngx.open(support.name(), { a = "64k", other = "64k" }))
        assert.is_nil(ngx.shared.a)
        assert(shared_ngx.open(support.name(), { a = "64k" }))
        assert.equal(log, ngx.log)
        assert.equal(shared, ngx.shared)
        assert.equal(other, ngx.shared.other)
        assert.equal(core, require "resty.core.shdict")
        assert.is_true(ngx.shared.a:set("k", 1))
    end)

    it("leaves resty.core alone inside nginx", function()
        rawset(_G, "ngx", { config = { subsystem = "http" }, shared = {} })
        assert(shared_ngx.open(support.name(), { a = "64k" }))
        assert.is_nil(package.preload["resty.core.shdict"])
    end)

    it("adds nothing when it fails, and says why", function()
        refused("^bad zones: table expected, got nil$", "SHD_INVAL",
                shared_ngx.open(support.name()))
        refused("is empty", "SHD_NAME", shared_ngx.open("", { a = "64k" }))
        refused("bad capacity", "SHD_INVAL",
                shared_ngx.open(support.name(), { a = "no" }))
        assert.is_nil(ngx.shared.a)
        rawset(_G, "ngx", 7)
        refused("the global ngx is a number", "SHD_INVAL",
                shared_ngx.open(support.name(), { a = "64k" }))
    end)
end)
