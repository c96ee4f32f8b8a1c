-- SPDX-License-Identifier: BSD-2-Clause
-- shdict/nginx_settings.lua - what the operator of an nginx wants otherwise.
--
-- OWNS   nothing. lua/nginx/README.md tells what each setting does.
-- HOLDS  what is not understood is an error, raised with a sentence for the
--        error log: a setting that is overlooked would show as lost data.
--
-- There is no directive. A Lua file on lua_package_path has the settings, and
-- a variable in the environment that nginx was started in overrides them.

local VARIABLE = "SHDICT_NGINX"
local MODULE = "shdict_nginx_config"

local M = {}

-- Raises what keeps nginx from starting.
function M.fail(...)
    error("shdict: " .. table.concat { ... }, 0)
end

local fail = M.fail

-- A list of zones as a set.
local function names_of(setting, value)
    local set = {}
    if type(value) == "string" then
        value = { value }
    end
    if type(value) ~= "table" then
        fail("setting ", setting, ": a list of zones expected, got ",
             type(value))
    end
    for _, name in ipairs(value) do
        if type(name) ~= "string" then
            fail("setting ", setting, ": names of zones expected, got ",
                 type(name))
        end
        set[name] = true
    end
    return set
end

local function of_type(expected)
    return function(setting, value)
        if type(value) ~= expected then
            fail("setting ", setting, ": ", expected, " expected, got ",
                 type(value))
        end
        return value
    end
end

local SETTINGS = {
    zones = function(setting, value)
        if value == "all" then
            return nil
        end
        return names_of(setting, value)
    end,
    exclude = names_of,
    segment = of_type "string",
    keep = of_type "boolean",
    options = of_type "table",
    dicts = of_type "table"
}

-- The Lua file, from absolute directories of the path only: where nginx is
-- started from must not decide what its master runs.
local function settings_of_module()
    for template in package.path:gmatch("[^;]+") do
        local path = template:gsub("%?", MODULE)
        local file = path:sub(1, 1) == "/" and io.open(path, "rb")
        if file then
            file:close()
            local settings = assert(loadfile(path))(MODULE)
            if type(settings) ~= "table" then
                fail(path, " returns no table of settings, but a ",
                     type(settings))
            end
            return settings
        end
    end
    return {}
end

-- "segment=app zones=a,b exclude=c keep=yes"
local function settings_of_environment(into)
    for word in (os.getenv(VARIABLE) or ""):gmatch("%S+") do
        local name, value = word:match("^(%a+)=(.+)$")
        if name == "zones" or name == "exclude" then
            local list = {}
            for zone in value:gmatch("[^,]+") do
                list[#list + 1] = zone
            end
            into[name] = value == "all" and "all" or list
        elseif name == "segment" then
            into.segment = value
        elseif name == "keep" and (value == "yes" or value == "no") then
            into.keep = value == "yes"
        else
            fail("environment variable ", VARIABLE, ": cannot read \"", word,
                 "\": segment=NAME, zones=NAME,... or zones=all, ",
                 "exclude=NAME,..., keep=yes or keep=no expected")
        end
    end
    return into
end

function M.read()
    local given = {}
    for name, value in pairs(settings_of_module()) do
        given[name] = value
    end
    settings_of_environment(given)
    local settings = {}
    for name, value in pairs(given) do
        local check = SETTINGS[name]
        if not check then
            fail("unknown setting \"", tostring(name), "\"")
        end
        settings[name] = check(name, value)
    end
    return settings
end

return M
