-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_library.lua - what the modules of shdict share: the C library and
-- its declarations, errors as Lua returns them, checked options, structs as
-- tables.
--
-- OWNS   nothing shared; loads libshdict once for each Lua state.
-- HOLDS  each declaration, code and sentence comes from shdict.h (gen_cdef)
--        or from the library; none is written down a second time.

local ffi = require "ffi"
local bit = require "bit"

local ffi_string = ffi.string

-- ---- the library ---------------------------------------------------------

local declarations = require "shdict_cdef"

-- A second load of this module in one Lua state finds the types declared.
if not pcall(ffi.typeof, "shd_dict *") then
    ffi.cdef(declarations)
end

local function is_file(path)
    local file = io.open(path, "rb")
    if file then
        file:close()
    end
    return file ~= nil
end

-- A library that was named, or stands where the build put it, but does not
-- load is an error: quietly taking another one would hide it.
local function load_library()
    local path = os.getenv("SHDICT_LIBRARY")
    if path and path ~= "" then
        return ffi.load(path)
    end
    local source = debug.getinfo(1, "S").source
    local directory = source:match("^@(.*/)") or "./"
    path = directory .. "../libshdict.so"
    if is_file(path) then
        -- A name with a slash is a path to the dynamic loader.
        return ffi.load(path)
    end
    return ffi.load("shdict")
end

local lib = load_library()
local version = ffi_string(lib.shd_version())

do -- structs of another version must not be handed to the library
    local major, minor = version:match("^(%d+)%.(%d+)")
    if tonumber(major) ~= lib.SHD_CDEF_MAJOR
        or (lib.SHD_CDEF_MAJOR == 0
            and tonumber(minor) ~= lib.SHD_CDEF_MINOR) then
        error("shdict: this module was made for libshdict "
              .. lib.SHD_CDEF_MAJOR .. "." .. lib.SHD_CDEF_MINOR
              .. ", and found " .. version)
    end
end


local M = { lib = lib, version = version }

local OK = lib.SHD_OK

-- Sentences by code, so that the hot path finds them without making a string.
-- What is too large for the dict is for a caller of ngx.shared.DICT a lack of
-- memory.
local sentence = {}
for code = lib.SHD_ERROR_LAST_, OK do
    sentence[code] = ffi_string(lib.shd_strerror(code))
end
sentence[lib.SHD_TOOBIG] = sentence[lib.SHD_NOMEM]
M.sentence = sentence

-- ---- errors of the segment functions -------------------------------------

-- nil, the sentence with the details, and the code's name ("SHD_NOMEM").
function M.failed(code)
    local text = ffi_string(lib.shd_strerror(code))
    local detail = ffi_string(lib.shd_last_error())
    if detail ~= "" and detail ~= text then
        text = text .. ": " .. detail
    end
    return nil, text, ffi_string(lib.shd_strerror_name(code))
end

function M.invalid(text)
    return nil, text, "SHD_INVAL"
end

function M.closed()
    return nil, sentence[lib.SHD_CLOSED], "SHD_CLOSED"
end

-- ---- options -------------------------------------------------------------

local UNITS = {
    [""] = 1, k = 1024, m = 1024 ^ 2, g = 1024 ^ 3, t = 1024 ^ 4
}

-- Bytes of 65536, "65536", "64k", "1.5m", "2GiB"; nil and the reason.
local function size_of(name, value)
    local bytes
    if type(value) == "number" then
        bytes = value
    elseif type(value) == "string" then
        local digits, unit = value:lower():match("^(%d+%.?%d*)([kmgt]?)i?b?$")
        bytes = digits and tonumber(digits) * UNITS[unit]
    end
    if not bytes or not (bytes >= 1 and bytes < 2 ^ 53) then
        return nil, ("bad %s: bytes expected, as a number or like \"64m\", "
                     .. "got %s"):format(name, tostring(value))
    end
    return bytes - bytes % 1
end

M.size = size_of

-- A whole number from low to high.
local function whole(low, high)
    return function(name, value)
        if type(value) ~= "number" or value % 1 ~= 0 or value < low
            or value > high then
            return nil, ("bad %s: a whole number from %d to %d expected, "
                         .. "got %s"):format(name, low, high, tostring(value))
        end
        return value
    end
end

local function of_type(expected)
    return function(name, value)
        if type(value) ~= expected then
            return nil, ("bad %s: %s expected, got %s")
                        :format(name, expected, type(value))
        end
        return value
    end
end

M.whole = whole
M.of_type = of_type

local UINT32_MAX = 0xffffffff

M.OPEN_OPTIONS = {
    size = size_of,
    mode = whole(0, 511), -- 0777
    readonly = of_type("boolean"),
    create = of_type("boolean"),
    exclusive = of_type("boolean"),
    held = of_type("boolean"),
    dumpable = of_type("boolean"),
    guard_pages = of_type("boolean"),
    huge_pages = of_type("boolean"),
    prefault = of_type("boolean"),
    interleave = of_type("boolean"),
    wait_ms = whole(1, UINT32_MAX),
    worker_name = of_type("string"),
    worker_id = whole(-1, 0x7fffffff),
    generation = whole(0, UINT32_MAX),
    workers_max = whole(1, 65535),
    objects_max = whole(1, 65535),
    locks_max = whole(1, UINT32_MAX)
}

M.DICT_OPTIONS = {
    capacity = size_of,
    capacity_max = size_of,
    any_capacity = of_type("boolean"),
    shards = whole(1, 256),
    entries = whole(1, 2 ^ 53)
}

local function seconds(name, value)
    if type(value) ~= "number" or not (value >= 0 and value <= 4294967) then
        return nil, ("bad %s: seconds from 0 to 4294967 expected, got %s")
                    :format(name, tostring(value))
    end
    return value
end

local function lease_seconds(name, value)
    if type(value) ~= "number" or not (value > 0 and value < 2 ^ 40) then
        return nil, ("bad %s: seconds expected, got %s")
                    :format(name, tostring(value))
    end
    return value
end

local function object_name(name, value)
    if type(value) ~= "string" or value:find("\0", 1, true) then
        return nil, ("bad %s: string without NUL bytes expected"):format(name)
    end
    return value
end

M.QUEUE_OPTIONS = {
    capacity = size_of,
    message_bytes = size_of,
    messages_max = whole(1, 2 ^ 53),
    deliveries_max = whole(1, UINT32_MAX),
    lease = lease_seconds,
    dead_to = object_name
}

M.SAVE_OPTIONS = {
    hold = lease_seconds
}

M.RESTORE_OPTIONS = {
    replace = of_type("boolean"),
    in_use = of_type("boolean"),
    freeze = of_type("boolean"),
    verify = of_type("boolean"),
    dumpable = of_type("boolean"),
    huge_pages = of_type("boolean"),
    prefault = of_type("boolean"),
    wait_ms = whole(1, UINT32_MAX),
    worker_name = of_type("string"),
    worker_id = whole(-1, 0x7fffffff),
    generation = whole(0, UINT32_MAX)
}

M.WATCH_OPTIONS = {
    supervise = of_type("boolean"),
    hold_in_children = of_type("boolean"),
    hang = seconds,
    lock_limit = seconds
}

M.SCAN_OPTIONS = {
    expired = of_type("boolean"),
    values = of_type("boolean")
}

-- A checked copy of the options, or nil and what is wrong with them.
function M.options_of(allowed, given)
    local checked = {}
    if given == nil then
        return checked
    end
    if type(given) ~= "table" then
        return nil, "bad options: table expected, got " .. type(given)
    end
    -- Not pairs(), where it may get hot: the LuaJIT of Debian 12 compiles such
    -- a loop, and may leave the trace at its end and enter it again, for ever.
    local name, value = next(given)
    while name ~= nil do
        local check = allowed[name]
        if not check then
            return nil, "unknown option \"" .. tostring(name) .. "\""
        end
        local err
        checked[name], err = check(name, value)
        if err then
            return nil, err
        end
        name, value = next(given, name)
    end
    return checked
end

-- ---- structs to tables ---------------------------------------------------

-- The fields of a struct in declaration order, taken from the declarations,
-- so that a field added to the header shows up here by itself.
local function fields_of(name)
    local body = declarations:match("struct " .. name .. " (%b{})")
    local fields = {}
    for declared in body:gmatch("[^;{}]+;") do
        local field, length = declared:match("([%a_][%w_]*)%[?(%d*)%]?;$")
        local text = length ~= "" and declared:match("^%s*char%s") ~= nil
        if field ~= "struct_size" and field ~= "reserved" then
            fields[#fields + 1] = { name = field, text = text,
                                    count = not text and tonumber(length) }
        end
    end
    return fields
end

-- A reader of one kind of struct: call(out) fills it and returns a code.
-- Gives the table, or nil and the code.
function M.struct_reader(name)
    local ctype = ffi.typeof("struct " .. name)
    local fields = fields_of(name)
    return function(call, ...)
        local out = ctype()
        out.struct_size = ffi.sizeof(ctype)
        local code = call(out, ...)
        if code ~= OK then
            return nil, code
        end
        local t = {}
        for i = 1, #fields do
            local field = fields[i].name
            if fields[i].text then
                t[field] = ffi_string(out[field])
            elseif field == "hash_seed" then -- all 64 bits count
                t[field] = bit.tohex(out[field], 16)
            elseif fields[i].count then
                local numbers = {}
                for n = 1, fields[i].count do
                    numbers[n] = tonumber(out[field][n - 1])
                end
                t[field] = numbers
            else
                t[field] = tonumber(out[field])
            end
        end
        return t
    end
end

return M
