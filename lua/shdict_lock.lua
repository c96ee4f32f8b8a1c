-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_lock.lua - locks and semaphores.
--
-- HOLDS  what fails returns nil, a sentence, and the code's name; what is held
--        by others, in time, is nil, "timeout".
-- CRASH  see shdict.h: what a dead worker held is the next one's.

local ffi = require "ffi"
local library = require "shdict_library"
local handles = require "shdict_handles"

local ffi_new = ffi.new

local lib = library.lib
local failed = library.failed
local invalid = library.invalid
local wait_ms = handles.wait_ms

local OK = lib.SHD_OK
local BUSY = lib.SHD_BUSY
local LOST = lib.SHD_LOST

local read_info = library.struct_reader("shd_lock_info")
local read_holder = library.struct_reader("shd_holder")

local Lock = {}
Lock.__index = Lock

local locks -- kind of handles

local function lock_of(self)
    return locks.of(self)
end

local grant = ffi_new("struct shd_grant")
local ticket_out = ffi_new("uint64_t[1]")
local ttl_out = ffi_new("int64_t[1]")

local FORMER = {
    [tonumber(lib.SHD_FORMER_RELEASED)] = "released",
    [tonumber(lib.SHD_FORMER_DIED)] = "died",
    [tonumber(lib.SHD_FORMER_EXPIRED)] = "expired"
}

local OPTIONS = {
    create = library.of_type("boolean"),
    waiters_max = library.whole(1, 65535)
}
local SEMAPHORE_OPTIONS = {
    create = OPTIONS.create,
    waiters_max = OPTIONS.waiters_max,
    permits = library.whole(1, 65535)
}

-- segment:lock(name, options), segment:semaphore: made if it is not there,
-- unless create is false.
local function open(kind, what, segment, self, name, options)
    local allowed = what == "semaphore" and SEMAPHORE_OPTIONS or OPTIONS
    local checked, err = library.options_of(allowed, options)
    if not checked then
        return invalid(err)
    end
    err = handles.name_error(what, name)
    if err then
        return invalid(err)
    end
    local o = ffi_new("struct shd_lock_options")
    o.struct_size = ffi.sizeof(o)
    o.flags = checked.create == false and 0 or lib.SHD_LOCK_CREATE
    o.permits = checked.permits or 0
    o.waiters_max = checked.waiters_max or 0
    local out = ffi_new("shd_lock *[1]")
    local code = lib.shd_lock_open(segment, name, kind, o, out)
    if code ~= OK then
        return failed(code)
    end
    return locks.adopt(out[0], self)
end

local function ttl_ms(ttl)
    if ttl == nil then
        return 0
    end
    if type(ttl) ~= "number" or not (ttl >= 0 and ttl < 1e12) then
        return nil, "bad ttl: seconds expected, got " .. tostring(ttl)
    end
    return math.ceil(ttl * 1000)
end

-- What was granted: its token, and how the holder before parted with it.
local function granted(self)
    local token = tonumber(grant.token)
    self.token = token
    return token, FORMER[grant.former]
end

-- token, "released", "died" or "expired". timeout: seconds to wait (0). ttl:
-- seconds after which it may be taken away; nil: not while this worker lives.
function Lock.acquire(self, timeout, ttl)
    local lock = lock_of(self)
    local ms, err = wait_ms(timeout)
    if not ms then
        return invalid(err)
    end
    local limit
    limit, err = ttl_ms(ttl)
    if not limit then
        return invalid(err)
    end
    local code = lib.shd_lock_acquire(lock, ms, limit, grant)
    if code == OK then
        return granted(self)
    end
    if code == BUSY then
        return nil, "timeout", "SHD_BUSY"
    end
    return failed(code)
end

-- The token, if none is given, is that of the last acquire of this object.
local function token_of(self, token)
    token = token or self.token
    if type(token) ~= "number" then
        return nil, "bad token: number expected, got " .. type(token)
    end
    return token
end

function Lock.release(self, token)
    local lock = lock_of(self)
    local given, err = token_of(self, token)
    if not given then
        return invalid(err)
    end
    local code = lib.shd_lock_release(lock, given)
    if code ~= OK then
        return failed(code)
    end
    return true
end

-- true and the seconds left (nil: no limit); false: not (any more).
function Lock.check(self, token)
    local lock = lock_of(self)
    local given, err = token_of(self, token)
    if not given then
        return invalid(err)
    end
    local code = lib.shd_lock_check(lock, given, ttl_out)
    if code == OK then
        local ms = tonumber(ttl_out[0])
        return true, ms > 0 and ms / 1000 or nil
    end
    if code == LOST then
        return false
    end
    return failed(code)
end

-- From now on for ttl seconds; nil: without a limit.
function Lock.extend(self, ttl, token)
    local lock = lock_of(self)
    local given, err = token_of(self, token)
    if not given then
        return invalid(err)
    end
    local limit
    limit, err = ttl_ms(ttl)
    if not limit then
        return invalid(err)
    end
    local code = lib.shd_lock_extend(lock, given, limit)
    if code ~= OK then
        return failed(code)
    end
    return true
end

-- For event loops: as acquire; or false and a ticket: in line, and the
-- worker's bell rings when it is granted.
function Lock.request(self, ttl)
    local lock = lock_of(self)
    local limit, err = ttl_ms(ttl)
    if not limit then
        return invalid(err)
    end
    local code = lib.shd_lock_request(lock, limit, grant, ticket_out)
    if code == OK then
        return granted(self)
    end
    if code > OK then
        return false, ticket_out[0]
    end
    return failed(code)
end

local function is_ticket(ticket)
    return ffi.istype("uint64_t", ticket)
end

local NO_TICKET = "bad ticket: what request gave expected"

-- As acquire, once it is granted; false: not yet.
function Lock.poll(self, ticket)
    local lock = lock_of(self)
    if not is_ticket(ticket) then
        return invalid(NO_TICKET)
    end
    local code = lib.shd_lock_poll(lock, ticket, grant)
    if code == OK then
        return granted(self)
    end
    if code > OK then
        return false
    end
    return failed(code)
end

-- true: left the line. As acquire: it had been granted.
function Lock.cancel(self, ticket)
    local lock = lock_of(self)
    if not is_ticket(ticket) then
        return invalid(NO_TICKET)
    end
    local code = lib.shd_lock_cancel(lock, ticket, grant)
    if code == OK then
        return granted(self)
    end
    if code > OK then
        return true
    end
    return failed(code)
end

function Lock.info(self)
    local lock = lock_of(self)
    local info, code = read_info(function(out)
        return lib.shd_lock_info(lock, out)
    end)
    if not info then
        return failed(code)
    end
    info.kind = ffi.string(lib.shd_object_kind_name(info.kind))
    return info
end

function Lock.holders(self)
    local lock = lock_of(self)
    return handles.slots(read_holder, function(slot, out)
        return lib.shd_lock_holder(lock, slot, out)
    end, function(holder, slot)
        holder.permit = slot
    end)
end

function Lock.close(self)
    return locks.close(self)
end

locks = handles.kind("shd_lock", lib.shd_lock_close, Lock)

return { open = open }
