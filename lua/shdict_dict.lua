-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_dict.lua - the methods of a dict: those of ngx.shared.DICT, then
-- what it lacks.
--
-- OWNS   one set of output structs and one read buffer for each Lua state, so
--        no call allocates more than the string it returns. A Lua state runs
--        in one thread at a time, and nothing here yields between a call and
--        the reading of its results.
-- HOLDS  the methods of ngx.shared.DICT return the same tuples, the same
--        error strings and raise the same errors.
-- COST   get, set, add, replace, delete, incr, ttl and the list methods are
--        compiled by LuaJIT with no call back into the interpreter; what is
--        rare (errors, long values) is kept out of them in functions apart.
--
-- A dict is { shd_dict *, segment, release = }: the second field keeps the
-- segment attached while the dict is used. A closed one holds NULL, which the
-- library refuses.

local ffi = require "ffi"
local library = require "shdict_library"

local error = error
local select = select
local setmetatable = setmetatable
local tonumber = tonumber
local tostring = tostring
local type = type
local ffi_gc = ffi.gc
local ffi_istype = ffi.istype
local ffi_new = ffi.new
local ffi_string = ffi.string

local lib = library.lib
local sentence = library.sentence
local failed = library.failed

local OK = lib.SHD_OK
local NOTFOUND = lib.SHD_NOTFOUND
local NOMEM = lib.SHD_NOMEM
local INVAL = lib.SHD_INVAL
local SPACE = lib.SHD_SPACE
local CLOSED = lib.SHD_CLOSED
local FULL = lib.SHD_FULL
local SYS = lib.SHD_SYS

local STRING = lib.SHD_STRING
local NUMBER = lib.SHD_NUMBER
local BOOLEAN = lib.SHD_BOOLEAN
local LIST = lib.SHD_LIST

local OP_SET = lib.SHD_SET
local OP_ADD = lib.SHD_ADD
local OP_REPLACE = lib.SHD_REPLACE
local OP_SAFE_SET = lib.SHD_SET + lib.SHD_SAFE
local OP_SAFE_ADD = lib.SHD_ADD + lib.SHD_SAFE

local KEY_MAX = 65535
local BUFFER_KEPT_MAX = 1048576 -- longer reads do not keep their buffer
local STRING_MAX = 0x7fffff00   -- of a Lua string

-- ---- dicts: what all methods share ---------------------------------------

local Dict = {}
Dict.__index = Dict

local read_info = library.struct_reader("shd_dict_info")
local read_account = library.struct_reader("shd_dict_account")

local dict_ctype = ffi.typeof("shd_dict *")
local dict_closed = ffi_new(dict_ctype)

local value_out = ffi_new("struct shd_value")
local forcible_out = ffi_new("uint32_t[1]")
local number_out = ffi_new("double[1]")
local ms_out = ffi_new("int64_t[1]")
local count_out = ffi_new("uint64_t[1]")
local buffer_ctype = ffi.typeof("uint8_t[?]")
local buffer_size = 4096
local buffer = ffi_new(buffer_ctype, buffer_size)

-- Objects that have something to do before their first use, as { handle,
-- function }; theirs is false meanwhile.
local waiting = setmetatable({}, { __mode = "k" })

local function first_use(self)
    local wait = waiting[self]
    if not wait then
        error('bad "zone" argument', 4)
    end
    waiting[self] = nil
    self[1] = wait[1]
    wait[2](self)
    return self[1]
end

local function dict_of(self)
    if type(self) ~= "table" then
        error('bad "zone" argument', 3)
    end
    local dict = self[1]
    if not ffi_istype(dict_ctype, dict) then
        dict = first_use(self)
    end
    return dict
end

-- A key as the string it is stored under, or nil and why it cannot be one.
local function key_text(key)
    if key == nil then
        return nil, "nil key"
    end
    if type(key) ~= "string" then
        key = tostring(key)
    end
    if #key == 0 then
        return nil, "empty key"
    end
    if #key > KEY_MAX then
        return nil, "key too long"
    end
    return key
end

-- The sentence for a code a method of dict got. Only where it says more than
-- the code does is the detail looked at: most failures do not write one.
local function reason(dict, code)
    if code == INVAL and dict == nil then
        return sentence[CLOSED]
    end
    if code == SYS or code == FULL then
        local _, text = failed(code)
        return text
    end
    return sentence[code] or sentence[INVAL]
end

-- Milliseconds, truncated; 0, never, for what is no time: under 1 ms, not a
-- number, or beyond what an int64_t can tell.
local function milliseconds(exptime)
    local ms = exptime * 1000
    if ms >= 1 and ms < 9e15 then
        return ms
    end
    return 0
end

-- A buffer of at least size bytes, kept for the next read unless it is long.
local function buffer_grow(size)
    if size > STRING_MAX then
        return nil
    end
    if size > BUFFER_KEPT_MAX then
        return ffi_new(buffer_ctype, size), size
    end
    local grown = buffer_size
    while grown < size do
        grown = grown * 2
    end
    buffer = ffi_new(buffer_ctype, grown)
    buffer_size = grown
    return buffer, grown
end

-- Repeats a read whose value did not fit, until it does: another worker may
-- replace it by a longer one in between. call is shd_get or shd_get_stale.
local function read_long(call, dict, key)
    local code = SPACE
    local into, size
    while code == SPACE do
        into, size = buffer_grow(tonumber(value_out.len))
        if not into then
            return NOMEM
        end
        code = call(dict, key, #key, into, size, value_out)
    end
    return code, into
end

-- ---- reading -------------------------------------------------------------

function Dict.get(self, key)
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
    local kind = value_out.type
    local flags = value_out.flags
    local value
    if kind == STRING then
        value = ffi_string(from, value_out.len)
    elseif kind == NUMBER then
        value = value_out.number
    else
        value = value_out.number ~= 0
    end
    if flags ~= 0 then
        return value, flags
    end
    return value
end

function Dict.get_stale(self, key)
    local dict = dict_of(self)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local from = buffer
    local code = lib.shd_get_stale(dict, key, #key, from, buffer_size,
                                   value_out)
    if code == SPACE then
        code, from = read_long(lib.shd_get_stale, dict, key)
    end
    if code ~= OK then
        if code == NOTFOUND then
            return nil
        end
        return nil, reason(dict, code)
    end
    local kind = value_out.type
    local flags = value_out.flags
    local stale = value_out.ttl_ms < 0
    local value
    if kind == STRING then
        value = ffi_string(from, value_out.len)
    elseif kind == NUMBER then
        value = value_out.number
    else
        value = value_out.number ~= 0
    end
    if flags ~= 0 then
        return value, flags, stale
    end
    return value, nil, stale
end

function Dict.ttl(self, key)
    local dict = dict_of(self)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local code = lib.shd_ttl(dict, key, #key, ms_out)
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return tonumber(ms_out[0]) / 1000
end

-- ---- storing -------------------------------------------------------------

local function delete(dict, key)
    local code = lib.shd_delete(dict, key, #key)
    if code == OK or code == NOTFOUND then
        return true, nil, false
    end
    return false, reason(dict, code), false
end

-- Raises what a store would of flags that are none, and stores nothing: no
-- key is empty.
local function check_flags(dict, op, flags)
    if type(flags) ~= "number" then
        local _ = lib.shd_store(dict, op, "", 0, NUMBER, nil, 0, 0, 0, flags,
                                forcible_out)
    end
end

local function store(self, op, key, value, exptime, flags)
    local dict = dict_of(self)
    if not exptime then
        exptime = 0
    elseif exptime < 0 then
        error('bad "exptime" argument', 2)
    end
    if not flags then
        flags = 0
    end
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end

    local kind = type(value)
    local code
    forcible_out[0] = 0
    if kind == "string" then
        code = lib.shd_store(dict, op, key, #key, STRING, value, #value, 0,
                             milliseconds(exptime), flags, forcible_out)
    elseif kind == "number" then
        code = lib.shd_store(dict, op, key, #key, NUMBER, nil, 0, value,
                             milliseconds(exptime), flags, forcible_out)
    elseif kind == "boolean" then
        code = lib.shd_store(dict, op, key, #key, BOOLEAN, nil, 0,
                             value and 1 or 0, milliseconds(exptime), flags,
                             forcible_out)
    elseif value ~= nil then
        return nil, "bad value type"
    elseif op == OP_SET or op == OP_SAFE_SET then
        check_flags(dict, op, flags)
        return delete(dict, key)
    else
        check_flags(dict, op, flags)
        return false, "attempt to add or replace nil values", false
    end
    if code == OK then
        return true, nil, forcible_out[0] ~= 0
    end
    return false, reason(dict, code), forcible_out[0] ~= 0
end

function Dict.set(self, key, value, exptime, flags)
    return store(self, OP_SET, key, value, exptime, flags)
end

function Dict.safe_set(self, key, value, exptime, flags)
    return store(self, OP_SAFE_SET, key, value, exptime, flags)
end

function Dict.add(self, key, value, exptime, flags)
    return store(self, OP_ADD, key, value, exptime, flags)
end

function Dict.safe_add(self, key, value, exptime, flags)
    return store(self, OP_SAFE_ADD, key, value, exptime, flags)
end

function Dict.replace(self, key, value, exptime, flags)
    return store(self, OP_REPLACE, key, value, exptime, flags)
end

function Dict.delete(self, key)
    return store(self, OP_SET, key, nil)
end

-- init and init_ttl after the checks of the original, in its order. Apart
-- from incr, for its raised errors name the caller of incr.
local function incr_options(init, init_ttl)
    if init then
        local given = type(init)
        init = tonumber(init)
        if not init then
            error("bad init arg: number expected, got " .. given, 3)
        end
    end
    if init_ttl == nil then
        return init, 0
    end
    local given = type(init_ttl)
    init_ttl = tonumber(init_ttl)
    if not init_ttl then
        error("bad init_ttl arg: number expected, got " .. given, 3)
    end
    if init_ttl < 0 then
        error('bad "init_ttl" argument', 3)
    end
    if not init then
        error('must provide "init" when providing "init_ttl"', 3)
    end
    return init, milliseconds(init_ttl)
end

function Dict.incr(self, key, by, init, init_ttl)
    local dict = dict_of(self)
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    if type(by) ~= "number" then
        by = tonumber(by)
        if not by then
            error("cannot convert 'nil' to 'double'", 2)
        end
    end
    local ttl_ms
    init, ttl_ms = incr_options(init, init_ttl)
    if not init then
        local code = lib.shd_incr(dict, key, #key, by, 0, 0, 0, number_out,
                                  nil)
        if code ~= OK then
            return nil, reason(dict, code)
        end
        return number_out[0]
    end
    forcible_out[0] = 0
    local code = lib.shd_incr(dict, key, #key, by, 1, init, ttl_ms,
                              number_out, forcible_out)
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return number_out[0], nil, forcible_out[0] ~= 0
end

function Dict.expire(self, key, exptime)
    local dict = dict_of(self)
    if not exptime then
        error('bad "exptime" argument', 2)
    end
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local code = lib.shd_expire(dict, key, #key, milliseconds(exptime))
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return true
end

-- ---- lists ---------------------------------------------------------------

-- Raises in the caller of the method what luaL_argerror would, which does not
-- count self in a method call. For functions that are methods, or what a
-- method turned into by a tail call.
local function bad_argument(index, expected, value)
    local called = debug.getinfo(2, "n")
    if called.namewhat == "method" then
        index = index - 1
    end
    error(("bad argument #%d to '%s' (%s expected, got %s)")
          :format(index, called.name or "?", expected, type(value)), 3)
end

local function push(left, n, self, key, value)
    if n ~= 3 then
        error("expecting 3 arguments, but only seen " .. n, 2)
    end
    local dict = dict_of(self)
    if type(key) ~= "string" and type(key) ~= "number" and key ~= nil then
        bad_argument(2, "string", key)
    end
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local code
    if type(value) == "string" then
        code = lib.shd_push(dict, left, key, #key, STRING, value, #value,
                            0, count_out)
    elseif type(value) == "number" then
        code = lib.shd_push(dict, left, key, #key, NUMBER, nil, 0, value,
                            count_out)
    else
        return nil, "bad value type"
    end
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return tonumber(count_out[0])
end

-- A value that did not fit was not taken out: nothing is lost between tries.
local function pop_long(left, dict, key)
    local code = SPACE
    local into, size
    while code == SPACE do
        into, size = buffer_grow(tonumber(value_out.len))
        if not into then
            return NOMEM
        end
        code = lib.shd_pop(dict, left, key, #key, into, size, value_out)
    end
    return code, into
end

local function pop(left, n, self, key)
    if n ~= 2 then
        error("expecting 2 arguments, but only seen " .. n, 2)
    end
    local dict = dict_of(self)
    if type(key) ~= "string" and type(key) ~= "number" and key ~= nil then
        bad_argument(2, "string", key)
    end
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local from = buffer
    local code = lib.shd_pop(dict, left, key, #key, from, buffer_size,
                             value_out)
    if code == SPACE then
        code, from = pop_long(left, dict, key)
    end
    if code ~= OK then
        if code == NOTFOUND then
            return nil
        end
        return nil, reason(dict, code)
    end
    if value_out.type == STRING then
        return ffi_string(from, value_out.len)
    end
    return value_out.number
end

-- These count their arguments, as the original does: `...` in a function
-- that names none of them is what LuaJIT compiles.
function Dict.lpush(...)
    local n = select("#", ...)
    local self, key, value = ...
    return push(1, n, self, key, value)
end

function Dict.rpush(...)
    local n = select("#", ...)
    local self, key, value = ...
    return push(0, n, self, key, value)
end

function Dict.lpop(...)
    local n = select("#", ...)
    local self, key = ...
    return pop(1, n, self, key)
end

function Dict.rpop(...)
    local n = select("#", ...)
    local self, key = ...
    return pop(0, n, self, key)
end

function Dict.llen(...)
    local n = select("#", ...)
    if n ~= 2 then
        error("expecting 2 arguments, but only seen " .. n, 2)
    end
    local self, key = ...
    local dict = dict_of(self)
    if type(key) ~= "string" and type(key) ~= "number" and key ~= nil then
        bad_argument(2, "string", key)
    end
    local err
    key, err = key_text(key)
    if not key then
        return nil, err
    end
    local code = lib.shd_llen(dict, key, #key, count_out)
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return tonumber(count_out[0])
end

-- ---- the whole dict ------------------------------------------------------

-- A number, or a string that is one: not what tonumber() makes of cdata.
local function is_number(v)
    return type(v) == "number" or type(v) == "string" and tonumber(v) ~= nil
end

-- The optional count of flush_expired and get_keys: whole, 0 for all.
local function limit_of(n, max)
    if n ~= 1 and n ~= 2 then
        error("expecting 1 or 2 argument(s), but saw " .. n, 3)
    end
    local limit = tonumber(max)
    if limit and limit >= 1 then
        return limit < 2 ^ 53 and limit - limit % 1 or 0
    end
    return 0
end

function Dict.flush_all(self)
    local dict = dict_of(self)
    local code = lib.shd_flush_all(dict)
    if code ~= OK then
        return nil, reason(dict, code)
    end
end

function Dict.flush_expired(...)
    local n = select("#", ...)
    local self, max = ...
    local limit = limit_of(n, max)
    local dict = dict_of(self)
    if n == 2 and not is_number(max) then
        bad_argument(2, "number", max)
    end
    local code = lib.shd_flush_expired(dict, limit, count_out)
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return tonumber(count_out[0])
end

function Dict.get_keys(...)
    local n = select("#", ...)
    local self, max = ...
    local limit = limit_of(n, max)
    local dict = dict_of(self)
    if n == 1 then
        limit = 1024
    elseif not is_number(max) then
        bad_argument(2, "number", max)
    end
    local out = ffi_new("shd_keys *[1]")
    local code = lib.shd_keys_get(dict, limit, out)
    if code ~= OK then
        return nil, reason(dict, code)
    end
    -- Freed by the collector too, should making a string run out of memory.
    local list = ffi_gc(out[0], lib.shd_keys_free)
    local len = ffi_new("size_t[1]")
    local keys = {}
    for i = 1, tonumber(lib.shd_keys_count(list)) do
        keys[i] = ffi_string(lib.shd_keys_at(list, i - 1, len), len[0])
    end
    lib.shd_keys_free(ffi_gc(list, nil))
    return keys
end

function Dict.capacity(self)
    local dict = dict_of(self)
    local code = lib.shd_capacity(dict, count_out)
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return tonumber(count_out[0])
end

function Dict.free_space(self)
    local dict = dict_of(self)
    local code = lib.shd_free_space(dict, count_out)
    if code ~= OK then
        return nil, reason(dict, code)
    end
    return tonumber(count_out[0])
end

-- ---- beyond ngx.shared.DICT ----------------------------------------------

local key_buffer = ffi_new(buffer_ctype, KEY_MAX)
local key_len_out = ffi_new("size_t[1]")

-- What value_out and the buffers hold as a table for the caller of scan.
local function scanned(from, with_values)
    local kind = value_out.type
    local entry = {
        key = ffi_string(key_buffer, key_len_out[0]),
        flags = value_out.flags,
        ttl = tonumber(value_out.ttl_ms) / 1000
    }
    if kind == STRING then
        entry.type = "string"
        if with_values then
            entry.value = ffi_string(from, value_out.len)
        else
            entry.length = tonumber(value_out.len)
        end
    elseif kind == NUMBER then
        entry.type = "number"
        entry.value = value_out.number
    elseif kind == BOOLEAN then
        entry.type = "boolean"
        entry.value = value_out.number ~= 0
    elseif kind == LIST then
        entry.type = "list"
        entry.length = tonumber(value_out.len)
    end
    return entry
end

-- One entry after the key `after`: the entry, or nil and the code.
local function scan_one(dict, after, flags, with_values)
    local from, size = buffer, with_values and buffer_size or 0
    while true do
        local code = lib.shd_scan(dict, after, after and #after or 0, flags,
                                  key_buffer, KEY_MAX, key_len_out, from,
                                  size, value_out)
        if code ~= OK then
            return nil, code
        end
        if not with_values or value_out.type ~= STRING
            or value_out.len <= size then
            return scanned(from, with_values)
        end
        from, size = buffer_grow(tonumber(value_out.len))
        if not from then
            return nil, NOMEM
        end
    end
end

-- Up to count entries after the cursor (nil: from the start). Gives the
-- cursor for the next call, nil at the end, and an array of entries; nil,
-- nil, and the reason on failure. The cursor is the last key given.
function Dict.scan(self, cursor, count, options)
    local dict = dict_of(self)
    if cursor ~= nil and type(cursor) ~= "string" then
        return nil, nil, "bad cursor: string expected, got " .. type(cursor)
    end
    count = count == nil and 100 or tonumber(count)
    if not count or not (count >= 1) then
        return nil, nil, "bad count: a number of at least 1 expected"
    end
    local checked, err = library.options_of(library.SCAN_OPTIONS, options)
    if not checked then
        return nil, nil, err
    end
    local flags = checked.expired and lib.SHD_SCAN_EXPIRED or 0
    local with_values = checked.values ~= false
    local entries = {}
    for i = 1, count do
        local entry, code = scan_one(dict, cursor, flags, with_values)
        if code == NOTFOUND then
            return nil, entries
        elseif not entry then
            return nil, nil, reason(dict, code)
        end
        entries[i] = entry
        cursor = entry.key
    end
    return cursor, entries
end

-- Another capacity, while others use the dict: a number of bytes, or text like
-- "512m".
function Dict.resize(self, capacity)
    local dict = dict_of(self)
    local bytes, err = library.size("capacity", capacity)
    if not bytes then
        return nil, err
    end
    local code = lib.shd_dict_resize(dict, bytes)
    if dict == nil then
        return nil, reason(dict, code)
    end
    if code ~= OK then
        return failed(code)
    end
    return true
end

function Dict.info(self)
    local dict = dict_of(self)
    local info, code = read_info(function(out)
        return lib.shd_dict_info(dict, out)
    end)
    if not info then
        return nil, reason(dict, code)
    end
    return info
end

-- Where every byte is. The size classes are a list of tables, so that what
-- belongs together stands together.
function Dict.account(self)
    local dict = dict_of(self)
    local account, code = read_account(function(out)
        return lib.shd_dict_account(dict, out)
    end)
    if not account then
        return nil, reason(dict, code)
    end
    local classes = {}
    for i = 1, account.classes do
        classes[i] = { cell_bytes = account.class_cell_bytes[i],
                       pages = account.class_pages[i],
                       used_cells = account.class_used_cells[i],
                       free_cells = account.class_free_cells[i] }
    end
    account.classes = classes
    account.class_cell_bytes, account.class_pages = nil, nil
    account.class_used_cells, account.class_free_cells = nil, nil
    return account
end

local shared = {
    dict_of = dict_of,
    key_text = key_text,
    milliseconds = milliseconds,
    reason = reason
}
require "shdict_beyond" (Dict, shared)
require "shdict_lists" (Dict, shared)

-- The object for a handle just opened: closed with the last reference to it,
-- unless its segment has been closed before. The finalizers of a dict and of
-- its segment run in any order, and the library gives a closed handle out
-- again: so both go through `open`, the handles that are still to be closed.
local function adopt(handle, segment, open)
    local token = {}
    local function release()
        if not open[token] then
            return CLOSED
        end
        open[token] = nil
        return lib.shd_dict_close(handle)
    end
    open[token] = handle
    -- A copy of the pointer: were it `handle` itself, `open` would keep it.
    local collected = ffi_gc(ffi_new(dict_ctype, handle), release)
    return setmetatable({ collected, segment, release = release }, Dict)
end

-- What close() of the segment leaves of a dict.
local function disown(self)
    waiting[self] = nil
    self[1] = dict_closed
end

-- Calls prepare(dict) when the first method of the dict is called. Costs the
-- calls after that one nothing.
local function before_use(self, prepare)
    waiting[self] = { self[1], prepare }
    self[1] = false
end

function Dict.close(self)
    local dict = dict_of(self)
    if dict == nil then
        return library.closed()
    end
    disown(self)
    local code = self.release()
    if code ~= OK and code ~= CLOSED then
        return failed(code)
    end
    return true
end

return { adopt = adopt, disown = disown, before_use = before_use }
