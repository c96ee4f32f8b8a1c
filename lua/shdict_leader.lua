-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_leader.lua - the one worker that does what only one may do.
--
-- HOLDS  what fails returns nil, a sentence, and the code's name.
-- CRASH  see shdict.h: when the leader dies the next that stands leads.

local ffi = require "ffi"
local library = require "shdict_library"
local handles = require "shdict_handles"

local ffi_new = ffi.new

local lib = library.lib
local failed = library.failed
local invalid = library.invalid
local wait_ms = handles.wait_ms

local OK = lib.SHD_OK

local Leader = {}
Leader.__index = Leader

local leaders -- kind of handles

local grant = ffi_new("struct shd_grant")

local FORMER = {
    [tonumber(lib.SHD_FORMER_RELEASED)] = "released",
    [tonumber(lib.SHD_FORMER_DIED)] = "died"
}

local OPTIONS = {
    create = library.of_type("boolean"),
    waiters_max = library.whole(1, 65535)
}

-- Made if it is not there, unless create is false.
local function open(segment, self, name, options)
    local checked, err = library.options_of(OPTIONS, options)
    if not checked then
        return invalid(err)
    end
    err = handles.name_error("leader", name)
    if err then
        return invalid(err)
    end
    local o = ffi_new("struct shd_lock_options")
    o.struct_size = ffi.sizeof(o)
    o.flags = checked.create == false and 0 or lib.SHD_LOCK_CREATE
    o.waiters_max = checked.waiters_max or 0
    local out = ffi_new("shd_leader *[1]")
    local code = lib.shd_leader_open(segment, name, o, out)
    if code ~= OK then
        return failed(code)
    end
    return leaders.adopt(out[0], self)
end

-- Does this worker lead? Its token, and how the leader before it went,
-- "released" or "died"; or false, after timeout seconds. It stands from the
-- first look on.
function Leader.look(self, timeout)
    local leader = leaders.of(self)
    local ms, err = wait_ms(timeout)
    if not ms then
        return invalid(err)
    end
    local code = lib.shd_leader_look(leader, ms, grant)
    if code == OK then
        return tonumber(grant.token), FORMER[grant.former]
    elseif code > OK then
        return false
    end
    return failed(code)
end

-- Leads and stands no more, until the next look.
function Leader.resign(self)
    local code = lib.shd_leader_resign(leaders.of(self))
    if code ~= OK then
        return failed(code)
    end
    return true
end

function Leader.close(self)
    return leaders.close(self)
end

leaders = handles.kind("shd_leader", lib.shd_leader_close, Leader)

return { open = open }
