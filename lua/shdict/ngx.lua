-- SPDX-License-Identifier: BSD-2-Clause
-- shdict/ngx.lua - ngx.shared for LuaJIT programs that are not nginx.
--
--     require("shdict.ngx").open("app", { cache = "64m", locks = "1m" })
--     ngx.shared.cache:set("page", html, 60)
--
-- Libraries written for OpenResty that need no more than the dictionary load
-- then; ngx.now, ngx.sleep, ngx.log, ngx.worker and the like are the host's.
--
-- OWNS   the tables `ngx` and `ngx.shared` if nobody else has made them.
-- HOLDS  what is there already is never replaced. What fails returns nil, a
--        sentence, and the code's name, and has added nothing.

local shdict = require "shdict"

local M = { version = shdict.version }

local function inside_nginx(ngx)
    return type(ngx.config) == "table" and ngx.config.subsystem ~= nil
end

-- The global ngx and its shared, made if they are not there.
local function tables()
    local ngx = rawget(_G, "ngx")
    if ngx == nil then
        ngx = {}
        rawset(_G, "ngx", ngx)
    end
    if type(ngx) ~= "table" then
        return nil, "the global ngx is a " .. type(ngx) .. ", no table"
    end
    if ngx.shared == nil then
        ngx.shared = {}
    end
    -- Libraries require it to have the methods, which ours have from the start.
    if not inside_nginx(ngx) and not package.loaded["resty.core.shdict"] then
        package.preload["resty.core.shdict"] = function()
            return { version = shdict.version }
        end
    end
    return ngx.shared
end

local function options_of(options)
    if type(options) == "table" then
        return options
    end
    return { capacity = options }
end

-- Attaches to the segment, or makes it, as shdict.open(name, options); opens
-- or makes each of the dicts { name = capacity or table of options }; and puts
-- them into ngx.shared, which it returns.
function M.open(name, zones, options)
    if type(zones) ~= "table" then
        return nil, "bad zones: table expected, got " .. type(zones),
               "SHD_INVAL"
    end
    local shared, err = tables()
    if not shared then
        return nil, err, "SHD_INVAL"
    end
    for zone in pairs(zones) do
        if shared[zone] ~= nil then
            return nil, "ngx.shared." .. tostring(zone) .. " exists already",
                   "SHD_EXISTS"
        end
    end
    local segment, code
    segment, err, code = shdict.open(name, options)
    if not segment then
        return nil, err, code
    end
    local opened = {}
    for zone, wanted in pairs(zones) do
        opened[zone], err, code = segment:dict(zone, options_of(wanted))
        if not opened[zone] then
            segment:close()
            return nil, err, code
        end
    end
    for zone, dict in pairs(opened) do
        shared[zone] = dict
    end
    return shared
end

return M
