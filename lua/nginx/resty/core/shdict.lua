-- SPDX-License-Identifier: BSD-2-Clause
-- resty/core/shdict.lua - the door by which ngx.shared becomes ours.
--
-- ngx_lua requires "resty.core.shdict" by itself when it makes a Lua VM, after
-- it has filled ngx.shared and before any code of the configuration runs. With
-- the directory of this file first on lua_package_path, this is what it finds:
--
--     lua_package_path "/usr/local/share/shdict/nginx/?.lua;;";
--
-- OWNS   nothing: it loads the stock module, which gives the stock objects
--        their methods, and lets shdict/nginx.lua put ours in their place.
-- HOLDS  gives what the stock module gives. Outside of nginx, where libraries
--        require it by habit, it does nothing.

local NAME = "resty.core.shdict"

if type(ngx) ~= "table" or type(ngx.config) ~= "table"
    or not ngx.config.subsystem then
    return { version = require("shdict").version }
end

local function read(path)
    local file = io.open(path, "rb")
    local text = file and file:read("*a")
    if file then
        file:close()
    end
    return text
end

local source = debug.getinfo(1, "S").source:match("^@(.*)$")
local here = source:match("^(.*)/resty/core/shdict%.lua$")

-- The next one on the path that is not this one, under whatever spelling.
local function load_stock()
    local own = read(source)
    for template in package.path:gmatch("[^;]+") do
        local path = template:gsub("%?", "resty/core/shdict")
        local text = read(path)
        if text and text ~= own then
            return assert(loadstring(text, "@" .. path))(NAME)
        end
    end
    error("shdict: the stock " .. NAME .. " (lua-resty-core) is not on "
          .. "lua_package_path: " .. package.path)
end

-- The modules lie beside this directory: in the tree and in the build one
-- level up, installed in <prefix>/share/lua/5.1. They are taken from there
-- also when others are on the path, for they belong together; what programs
-- find is changed only by an entry at the end.
local function load_ours()
    local before = package.path
    local entry
    for _, beside in ipairs { "/../", "/../../lua/5.1/" } do
        if not entry and here and read(here .. beside .. "shdict.lua") then
            entry = here .. beside .. "?.lua"
        end
    end
    if not entry then
        return require "shdict.nginx"
    end
    package.path = entry .. ";" .. before
    local ok, nginx = pcall(require, "shdict.nginx")
    package.path = before:gsub(";*$", ";") .. entry
    if not ok then
        error(nginx, 0)
    end
    return nginx
end

local stock = load_stock()
if next(ngx.shared or {}) then
    load_ours().take_over(ngx.shared)
end
return stock
