-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_beyond.lua - methods of a dict that ngx.shared.DICT lacks, in its
-- style of results: compare-and-set, versions, many keys in one call, values
-- into a buffer, taking, touching, appending, encoded tables.
--
-- OWNS   output structs, arrays and buffers of its own for each Lua state, as
--        shdict_dict.lua does.
-- COST   all but stats and the encoded ones are compiled by LuaJIT and
--        allocate nothing but the strings they return (get_multi: and what
--        the caller leaves to it).
--
-- Called with the table of methods and what they share.

local ffi = require "ffi"
local library = require "shdict_library"

local error = error
local pcall = pcall
local tonumber = tonumber
local tostring = tostring
local type = type
local ffi_new = ffi.new
local ffi_string = ffi.string

local lib = library.lib

local OK = lib.SHD_OK
local NOTFOUND = lib.SHD_NOTFOUND
local NOMEM = lib.SHD_NOMEM
local ISLIST = lib.SHD_ISLIST
local SPACE = lib.SHD_SPACE
local KEEP_TTL = lib.SHD_KEEP_TTL

local NIL = lib.SHD_NIL
local STRING = lib.SHD_STRING
local NUMBER = lib.SHD_NUMBER
local BOOLEAN = lib.SHD_BOOLEAN

local BUFFER_KEPT_MAX = 1048576
local STRING_MAX = 0x7fffff00

local value_out = ffi_new("struct shd_value")
local forcible_out = ffi_new("uint32_t[1]")
local count_out = ffi_new("uint64_t[1]")
local version_out = ffi_new("uint64_t[1]")
local bytes_ctype = ffi.typeof("uint8_t[?]")
local buffer_size = 4096
local buffer = ffi_new(bytes_ctype, buffer_size)

return function(Dict, shared)

local dict_of = shared.dict_of
local key_text = shared.key_text
local milliseconds = shared.milliseconds
local reason = shared.reason

-- ---- what they share -----------------------------------------------------

-- type, bytes, length, number of a value as the library takes them; nothing
-- for a value that cannot be stored. A nil is SHD_NIL.
local function plain(value)
    local kind = type(value)
    if kind == "string" then
        return STRING, value, #value, 0
    elseif kind == "number" then
        return NUMBER, nil, 0, value
    elseif kind == "boolean" then
        return BOOLEAN, nil, 0, value and 1 or 0
    elseif value == nil then
        return NIL, nil, 0, 0
    end
end

-- What value_out says, its bytes being at `from`.
local function value_at(out, from)
    local kind = out.type
    if kind == STRING then
        return ffi_string(from, out.len)
    elseif kind == NUMBER then
        return out.number
    end
    return out.number ~= 0
end

-- Milliseconds of an exptime, which is checked for the caller of the method.
local function expiry(exptime)
    if not exptime then
        return 0
    elseif exptime < 0 then
        error('bad "exptime" argument', 3)
    end
    return milliseconds(exptime)
end

-- A buffer of at least size bytes, kept for the next read unless it is long.
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

-- Repeats a read whose value did not fit, until it does. With an output more
-- for get_versioned.
local function read_long(call, dict, key, out)
    local code = SPACE
    local into, size
    while code == SPACE do
        into, size = buffer_grow(tonumber(value_out.len))
        if not into then
            return NOMEM
        end
        if out then
            code = call(dict, key, #key, into, size, value_out, out)
        else
            code = call(dict, key, #key, into, size, value_out)
        end
    end
    return code, into
end

-- ---- on a condition ------------------------------------------------------

function Dict.cas(self, key, old, new, exptime, flags)
    local dict = dict_of(self)
    local ms = expiry(exptime)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local old_kind, old_bytes, old_len, old_number = plain(old)
    local kind, bytes, len, number = plain(new)
    if not old_kind or not kind then
        return nil, "bad value type"
    end
    forcible_out[0] = 0
    local code = lib.shd_cas(dict, key, #key, old_kind, old_bytes, old_len,
                             old_number, kind, bytes, len, number, ms,
                             flags or 0, forcible_out)
    if code == OK then
        return true, nil, forcible_out[0] ~= 0
    end
    return false, reason(dict, code), forcible_out[0] ~= 0
end

function Dict.get_versioned(self, key)
    local dict = dict_of(self)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local from = buffer
    local code = lib.shd_get_versioned(dict, key, #key, from, buffer_size,
                                       value_out, version_out)
    if code == SPACE then
        code, from = read_long(lib.shd_get_versioned, dict, key, version_out)
    end
    if code ~= OK then
        if code == NOTFOUND then
            return nil
        end
        return nil, reason(dict, code)
    end
    local flags = value_out.flags
    local version = tonumber(version_out[0])
    if flags ~= 0 then
        return value_at(value_out, from), flags, version
    end
    return value_at(value_out, from), nil, version
end

local function check_version(version)
    if version == nil then
        return 0
    end
    if type(version) ~= "number" or not (version >= 0 and version < 2 ^ 63) then
        error('bad "version" argument', 3)
    end
    return version
end

function Dict.set_versioned(self, key, value, version, exptime, flags)
    local dict = dict_of(self)
    local ms = expiry(exptime)
    version_out[0] = check_version(version)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local kind, bytes, len, number = plain(value)
    if not kind then
        return nil, "bad value type"
    end
    forcible_out[0] = 0
    local code = lib.shd_store_versioned(dict, key, #key, kind, bytes, len,
                                         number, ms, flags or 0, version_out,
                                         forcible_out)
    if code ~= OK then
        return false, reason(dict, code), forcible_out[0] ~= 0
    end
    if kind == NIL then
        return true, nil, false
    end
    return true, nil, forcible_out[0] ~= 0, tonumber(version_out[0])
end

function Dict.delete_versioned(self, key, version)
    local dict = dict_of(self)
    version_out[0] = check_version(version)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local code = lib.shd_store_versioned(dict, key, #key, NIL, nil, 0, 0, 0, 0,
                                         version_out, nil)
    if code ~= OK then
        return false, reason(dict, code), false
    end
    return true, nil, false
end

-- ---- one key -------------------------------------------------------------

function Dict.pop(self, key)
    local dict = dict_of(self)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local from = buffer
    -- One that does not fit is not taken out: nothing is lost between tries.
    local code = lib.shd_take(dict, key, #key, from, buffer_size, value_out)
    if code == SPACE then
        code, from = read_long(lib.shd_take, dict, key)
    end
    if code ~= OK then
        if code == NOTFOUND then
            return nil
        end
        return nil, reason(dict, code)
    end
    local flags = value_out.flags
    if flags ~= 0 then
        return value_at(value_out, from), flags
    end
    return value_at(value_out, from)
end

function Dict.touch(self, key, exptime)
    local dict = dict_of(self)
    local ms = exptime and expiry(exptime) or KEEP_TTL
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local code = lib.shd_touch(dict, key, #key, ms)
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return true
end

-- The bytes of what can be added to a string, or nil.
local function text_of(value)
    if type(value) == "string" then
        return value
    elseif type(value) == "number" then
        return tostring(value)
    end
end

-- Apart from append, for its errors name the caller of append.
local function append_options(init, init_ttl)
    if type(init) ~= "nil" then -- a NULL of the FFI equals nil
        local text = text_of(init)
        if not text then
            error("bad init arg: string expected, got " .. type(init), 3)
        end
        init = text
    end
    if init_ttl == nil then
        return init, 0
    end
    if type(init_ttl) ~= "number" then
        error("bad init_ttl arg: number expected, got " .. type(init_ttl), 3)
    elseif init_ttl < 0 then
        error('bad "init_ttl" argument', 3)
    elseif init == nil then
        error('must provide "init" when providing "init_ttl"', 3)
    end
    return init, milliseconds(init_ttl)
end

local function extend(left, dict, key, value, init, ms)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    value = text_of(value)
    if not value then
        return nil, "bad value type"
    end
    forcible_out[0] = 0
    local code = lib.shd_append(dict, left, key, #key, value, #value, init,
                                init and #init or 0, ms, count_out,
                                forcible_out)
    if code ~= OK then
        return nil, reason(dict, code), forcible_out[0] ~= 0
    end
    return tonumber(count_out[0]), nil, forcible_out[0] ~= 0
end

function Dict.append(self, key, value, init, init_ttl)
    local dict = dict_of(self)
    local ms
    init, ms = append_options(init, init_ttl)
    return extend(0, dict, key, value, init, ms)
end

function Dict.prepend(self, key, value, init, init_ttl)
    local dict = dict_of(self)
    local ms
    init, ms = append_options(init, init_ttl)
    return extend(1, dict, key, value, init, ms)
end

local function push(left, dict, key, value, ms)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local kind, bytes, len, number = plain(value)
    if kind ~= STRING and kind ~= NUMBER then
        return nil, "bad value type"
    end
    local code = lib.shd_push_expire(dict, left, key, #key, kind, bytes, len,
                                     number, ms, count_out)
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return tonumber(count_out[0])
end

function Dict.lpush_expire(self, key, value, exptime)
    local dict = dict_of(self)
    return push(1, dict, key, value, expiry(exptime or -1))
end

function Dict.rpush_expire(self, key, value, exptime)
    local dict = dict_of(self)
    return push(0, dict, key, value, expiry(exptime or -1))
end

-- ---- into a buffer -------------------------------------------------------

-- What a read of a buffer gives: length[, flags].
local function filled(dict, code)
    if code ~= OK then
        if code == NOTFOUND then
            return nil
        elseif code == SPACE then
            return nil, reason(dict, code), tonumber(value_out.len)
        end
        return nil, reason(dict, code)
    end
    if value_out.type ~= STRING then
        return nil, "not a string"
    end
    local flags = value_out.flags
    if flags ~= 0 then
        return tonumber(value_out.len), flags
    end
    return tonumber(value_out.len)
end

-- At the end of a string.buffer, as much as it takes.
local function read_to_end(dict, key, buf)
    local code, room
    local into
    local size = 256
    repeat
        into, room = buf:reserve(size)
        code = lib.shd_get(dict, key, #key, into, room, value_out)
        size = tonumber(value_out.len)
        if code == SPACE and size > STRING_MAX then
            return NOMEM
        end
    until code ~= SPACE
    if code == OK and value_out.type == STRING then
        buf:commit(tonumber(value_out.len))
    end
    return code
end

function Dict.get_buf(self, key, buf, size)
    local dict = dict_of(self)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    if type(buf) == "userdata" then
        return filled(dict, read_to_end(dict, key, buf))
    end
    if type(buf) ~= "cdata" then
        error('bad "buf" argument', 2)
    elseif type(size) ~= "number" or not (size >= 0) then
        error('bad "size" argument', 2)
    end
    return filled(dict, lib.shd_get(dict, key, #key, buf, size, value_out))
end

-- ---- many keys -----------------------------------------------------------

local many = 0 -- how many keys the arrays have room for
local many_keys, many_lens, many_values, many_at, many_codes, many_bytes
local many_buffer_size = 65536
local many_buffer = ffi_new(bytes_ctype, many_buffer_size)
local anchors = {} -- the keys that were no strings, while a call uses them

local keys_ctype = ffi.typeof("const char *[?]")
local lens_ctype = ffi.typeof("size_t[?]")
local values_ctype = ffi.typeof("struct shd_value[?]")
local codes_ctype = ffi.typeof("int32_t[?]")
local keys_pointer = ffi.typeof("const void *const *")

local function many_grow(n)
    many = many == 0 and 64 or many
    while many < n do
        many = many * 2
    end
    many_keys = ffi_new(keys_ctype, many)
    many_lens = ffi_new(lens_ctype, many)
    many_values = ffi_new(values_ctype, many)
    many_at = ffi_new(lens_ctype, many)
    many_codes = ffi_new(codes_ctype, many)
    many_bytes = ffi_new(keys_ctype, many)
end

-- Fills the arrays of keys. nil and why not.
local function many_fill(keys, n)
    if n > many then
        many_grow(n)
    end
    for i = 1, n do
        local key = keys[i]
        if type(key) ~= "string" then
            if key == nil then
                return nil, "nil key"
            end
            key = tostring(key)
            anchors[i] = key
        end
        many_keys[i - 1] = key
        many_lens[i - 1] = #key
    end
    return true
end

-- One that did not fit beside the others: the value and its flags, or nil and
-- the code.
local function many_long(dict, key)
    value_out.len = 0
    if type(key) ~= "string" then
        key = tostring(key)
    end
    local code, from = read_long(lib.shd_get, dict, key)
    if code ~= OK then
        return nil, code
    end
    return value_at(value_out, from), value_out.flags
end

local function many_space()
    if many_buffer_size < BUFFER_KEPT_MAX then
        many_buffer_size = many_buffer_size * 2
        many_buffer = ffi_new(bytes_ctype, many_buffer_size)
    end
end

-- The values of some keys that did not fit, and the errors.
local function many_rest(dict, keys, n, results, flags)
    local errors
    local grow = false
    for i = 1, n do
        local code = many_codes[i - 1]
        if code == SPACE then
            local value, also = many_long(dict, keys[i])
            grow = true
            if value == nil then
                code = also
            else
                results[i] = value
                if flags and also ~= 0 then
                    flags[i] = also
                end
                code = OK
            end
        end
        if code ~= OK and code ~= NOTFOUND then
            errors = errors or {}
            errors[i] = reason(dict, code)
        end
    end
    if grow then
        many_space()
    end
    return results, errors
end

function Dict.get_multi(self, keys, results, flags)
    local dict = dict_of(self)
    if type(keys) ~= "table" then
        error('bad "keys" argument', 2)
    elseif results and type(results) ~= "table" then
        error('bad "results" argument', 2)
    elseif flags and type(flags) ~= "table" then
        error('bad "flags" argument', 2)
    end
    local n = #keys
    local ok, err = many_fill(keys, n)
    if not ok then
        return nil, err
    end
    results = results or {}
    local from = many_buffer
    local code = lib.shd_get_multi(dict, n, ffi.cast(keys_pointer, many_keys),
                                   many_lens, from, many_buffer_size,
                                   many_values, many_at, many_codes)
    local lists = false
    for i = 1, n do
        local value, set
        local answer = many_codes[i - 1]
        if answer == OK then
            local out = many_values[i - 1]
            local kind = out.type
            if kind == STRING then
                value = ffi_string(from + many_at[i - 1], out.len)
            elseif kind == NUMBER then
                value = out.number
            else
                value = out.number ~= 0
            end
            if out.flags ~= 0 then
                set = out.flags
            end
        elseif answer == ISLIST then
            lists = true
        end
        results[i] = value
        if flags then
            flags[i] = set
        end
    end
    local before = results.n
    if before ~= n then
        for i = n + 1, before or 0 do
            results[i] = nil
            if flags then
                flags[i] = nil
            end
        end
        results.n = n
    end
    if code ~= OK or lists then
        return many_rest(dict, keys, n, results, flags)
    end
    return results
end

local function many_errors(dict, n, code)
    local errors = {}
    for i = 1, n do
        if many_codes[i - 1] ~= OK then
            errors[i] = reason(dict, many_codes[i - 1])
        end
    end
    return false, reason(dict, code), forcible_out[0] ~= 0, errors
end

function Dict.set_multi(self, keys, values, exptime, flags)
    local dict = dict_of(self)
    local ms = expiry(exptime)
    if type(keys) ~= "table" then
        error('bad "keys" argument', 2)
    elseif type(values) ~= "table" then
        error('bad "values" argument', 2)
    end
    local n = #keys
    local ok, err = many_fill(keys, n)
    if not ok then
        return nil, err
    end
    for i = 1, n do
        local value = values[i]
        local kind, bytes, len, number = plain(value)
        if not kind then
            return nil, "bad value type"
        end
        local out = many_values[i - 1]
        out.type = kind
        out.len = len
        out.number = number
        out.ttl_ms = ms
        out.flags = flags or 0
        many_bytes[i - 1] = bytes
    end
    forcible_out[0] = 0
    local code = lib.shd_set_multi(dict, lib.SHD_SET, n,
                                   ffi.cast(keys_pointer, many_keys),
                                   many_lens, many_values,
                                   ffi.cast(keys_pointer, many_bytes),
                                   many_codes, forcible_out)
    if code ~= OK then
        return many_errors(dict, n, code)
    end
    return true, nil, forcible_out[0] ~= 0
end

-- ---- encoded values ------------------------------------------------------

-- A first byte tells which encoder wrote what follows it, for not every
-- worker need have the same.
local BY_BUFFER, BY_CJSON = 1, 2

local function optional(name)
    local found, module = pcall(require, name)
    return found and type(module) == "table" and module or nil
end

-- { name, encode(value) gives bytes and their number or raises,
--   decode(bytes, len) gives the value or raises }
local encoders = {}

local string_buffer = optional("string.buffer")
if string_buffer then
    local encoded = string_buffer.new()
    local decoded = string_buffer.new()
    encoders[BY_BUFFER] = {
        encode = function(value)
            encoded:reset()
            encoded:put(string.char(BY_BUFFER))
            encoded:encode(value)
            return encoded:ref()
        end,
        decode = function(bytes, len)
            decoded:reset()
            decoded:set(bytes, len)
            local value = decoded:decode()
            if #decoded > 0 then
                error("bytes after the value")
            end
            return value
        end,
        done = function(size)
            if size > BUFFER_KEPT_MAX then
                encoded:free()
            end
        end
    }
end

local function by_cjson(cjson)
    return {
        encode = function(value)
            local text = string.char(BY_CJSON) .. cjson.encode(value)
            return text, #text
        end,
        decode = function(bytes, len)
            return cjson.decode(ffi_string(bytes, len))
        end,
        done = function() end
    }
end

-- Looked for when it is wanted: most programs have string.buffer.
local function encoder_of(kind)
    if not encoders[kind] and kind == BY_CJSON then
        local cjson = optional("cjson")
        encoders[kind] = cjson and by_cjson(cjson)
    end
    return encoders[kind]
end

function Dict.set_encoded(self, key, value, exptime, flags)
    local dict = dict_of(self)
    local ms = expiry(exptime)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local encoder = encoder_of(BY_BUFFER) or encoder_of(BY_CJSON)
    if not encoder then
        return false, "no encoder: neither string.buffer nor cjson", false
    end
    local good, bytes, len = pcall(encoder.encode, value)
    if not good then
        return nil, "bad value type: "
                    .. tostring(bytes):gsub("^[^\n]-:%d+: ", "")
    end
    forcible_out[0] = 0
    local code = lib.shd_store(dict, lib.SHD_SET, key, #key, STRING, bytes,
                               len, 0, ms, flags or 0, forcible_out)
    encoder.done(len)
    if code ~= OK then
        return false, reason(dict, code), forcible_out[0] ~= 0
    end
    return true, nil, forcible_out[0] ~= 0
end

function Dict.get_decoded(self, key)
    local dict = dict_of(self)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local from = buffer
    local code = lib.shd_get(dict, key, #key, from, buffer_size, value_out)
    if code == SPACE then
        code, from = read_long(lib.shd_get, dict, key)
    end
    if code ~= OK then
        if code == NOTFOUND then
            return nil
        end
        return nil, reason(dict, code)
    end
    local len = tonumber(value_out.len)
    local flags = value_out.flags
    local kind = value_out.type == STRING and len > 0 and from[0] or 0
    if kind ~= BY_BUFFER and kind ~= BY_CJSON then
        return nil, "not an encoded value"
    end
    local encoder = encoder_of(kind)
    if not encoder then
        return nil, "no decoder: this LuaJIT has no "
                    .. (kind == BY_BUFFER and "string.buffer" or "cjson")
    end
    local good, value = pcall(encoder.decode, from + 1, len - 1)
    if not good then
        return nil, "not an encoded value"
    end
    if flags ~= 0 then
        return value, flags
    end
    return value
end

-- ---- figures -------------------------------------------------------------

-- In the table that is given, or a new one. Hits and misses are not there:
-- a get writes nothing, and counting would be a write.
function Dict.stats(self, into)
    local info, err = Dict.info(self)
    if not info then
        return nil, err
    end
    if into and type(into) ~= "table" then
        error('bad "into" argument', 2)
    end
    into = into or {}
    into.entries = info.entries
    into.capacity = info.capacity_bytes
    into.free = info.free_bytes
    into.used = info.cells_bytes
    into.index = info.index_bytes
    into.largest = info.value_max_bytes
    into.evictions = info.evictions
    into.expirations = info.expirations
    into.moves = info.moves
    into.recoveries = info.recoveries
    into.lock_waits = info.lock_waits
    return into
end

end
