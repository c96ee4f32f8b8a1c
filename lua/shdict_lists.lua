-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_lists.lua - what ngx.shared.DICT's lists lack: elements on a lease,
-- and moves from list to list.
--
-- OWNS   output structs and a buffer of its own for each Lua state, as
--        shdict_dict.lua does.
--
-- Called with the table of methods and what they share.

local ffi = require "ffi"
local library = require "shdict_library"

local error = error
local tonumber = tonumber
local type = type
local ffi_istype = ffi.istype
local ffi_new = ffi.new
local ffi_string = ffi.string

local lib = library.lib

local OK = lib.SHD_OK
local NOTFOUND = lib.SHD_NOTFOUND
local NOMEM = lib.SHD_NOMEM
local SPACE = lib.SHD_SPACE
local LOST = lib.SHD_LOST
local STRING = lib.SHD_STRING

local BUFFER_KEPT_MAX = 1048576
local STRING_MAX = 0x7fffff00

local ENDS = { left = 1, right = 0 }

local value_out = ffi_new("struct shd_value")
local lease_out = ffi_new("uint64_t[1]")
local lease_ctype = ffi.typeof("uint64_t")
local bytes_ctype = ffi.typeof("uint8_t[?]")
local buffer_size = 4096
local buffer = ffi_new(bytes_ctype, buffer_size)

return function(Dict, shared)

local dict_of = shared.dict_of
local key_text = shared.key_text
local reason = shared.reason

-- A buffer of at least size bytes, kept for the next call unless it is long.
local function buffer_grow(size)
    if size > STRING_MAX then
        return nil
    elseif size > BUFFER_KEPT_MAX then
        return ffi_new(bytes_ctype, size), size
    end
    while buffer_size < size do
        buffer_size = buffer_size * 2
    end
    buffer = ffi_new(bytes_ctype, buffer_size)
    return buffer, buffer_size
end

-- What value_out says, its bytes being at `from`.
local function value_at(from)
    if value_out.type == STRING then
        return ffi_string(from, value_out.len)
    end
    return value_out.number
end

-- A value that did not fit has not been taken: nothing is lost between tries.
local function take_long(left, dict, key)
    local code, into, size = SPACE, nil, nil
    while code == SPACE do
        into, size = buffer_grow(tonumber(value_out.len))
        if not into then
            return NOMEM
        end
        code = lib.shd_ltake(dict, left, key, #key, into, size, value_out,
                             lease_out)
    end
    return code, into
end

local function take(left, self, key)
    local dict = dict_of(self)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local from = buffer
    local code = lib.shd_ltake(dict, left, key, #key, from, buffer_size,
                               value_out, lease_out)
    if code == SPACE then
        code, from = take_long(left, dict, key)
    end
    if code ~= OK then
        if code == NOTFOUND then
            return nil
        end
        return nil, reason(dict, code)
    end
    return value_at(from), lease_out[0]
end

function Dict.ltake(self, key)
    return take(1, self, key)
end

function Dict.rtake(self, key)
    return take(0, self, key)
end

local function finish(call, self, lease)
    local dict = dict_of(self)
    if not ffi_istype(lease_ctype, lease) then
        error('bad "lease" argument', 3)
    end
    local code = call(dict, lease)
    if code == OK then
        return true
    elseif code == LOST then
        return nil, "lost"
    end
    return nil, reason(dict, code)
end

-- The element is done, or goes back to the end it came from.
function Dict.lack(self, lease)
    return finish(lib.shd_lack, self, lease)
end

function Dict.lnack(self, lease)
    return finish(lib.shd_lnack, self, lease)
end

local function move_long(dict, out, from, into, to)
    local code, buf, size = SPACE, nil, nil
    while code == SPACE do
        buf, size = buffer_grow(tonumber(value_out.len))
        if not buf then
            return NOMEM
        end
        code = lib.shd_lmove(dict, out, from, #from, into, to, #to, buf, size,
                             value_out)
    end
    return code, buf
end

function Dict.lmove(self, from, to, from_end, to_end)
    local dict = dict_of(self)
    local out, into = ENDS[from_end or "left"], ENDS[to_end or "right"]
    if not out then
        error('bad "from_end" argument', 2)
    elseif not into then
        error('bad "to_end" argument', 2)
    end
    local err
    from, err = key_text(from)
    if not from then
        return nil, err
    end
    to, err = key_text(to)
    if not to then
        return nil, err
    end
    local buf = buffer
    local code = lib.shd_lmove(dict, out, from, #from, into, to, #to, buf,
                               buffer_size, value_out)
    if code == SPACE then
        code, buf = move_long(dict, out, from, into, to)
    end
    if code ~= OK then
        if code == NOTFOUND then
            return nil
        end
        return nil, reason(dict, code)
    end
    return value_at(buf)
end

end
