-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_handles.lua - what the objects around handles of topics and locks
-- share.
--
-- OWNS   a handle is closed by close(), with its segment, or when its object
--        is collected: once.
-- HOLDS  an object is { handle, parent, drop = }: the second field keeps the
--        segment, or the topic, open. A closed one holds NULL, which the
--        library refuses.

local ffi = require "ffi"
local library = require "shdict_library"

local ffi_gc = ffi.gc
local ffi_istype = ffi.istype
local ffi_new = ffi.new

local lib = library.lib
local OK = lib.SHD_OK
local CLOSED = lib.SHD_CLOSED
local INVAL = lib.SHD_INVAL
local NOTFOUND = lib.SHD_NOTFOUND
local FOREVER = lib.SHD_FOREVER

local M = {}

-- Seconds to ms: nil is 0, math.huge without an end.
function M.wait_ms(timeout)
    if timeout == nil then
        return 0
    end
    if type(timeout) ~= "number" or not (timeout >= 0) then
        return nil, "bad timeout: seconds expected, got " .. tostring(timeout)
    end
    if timeout > 1e12 then
        return FOREVER
    end
    return math.ceil(timeout * 1000)
end

function M.name_error(what, name)
    if type(name) ~= "string" then
        return ("bad %s name: string expected, got %s"):format(what,
                                                               type(name))
    end
    if name:find("\0", 1, true) then
        return ("bad %s name: it holds a NUL byte"):format(what)
    end
end

-- The segment object at the end of the parents, which has an `owner`.
local function owner_of(parent)
    while parent.owner == nil do
        parent = parent[2]
    end
    return parent.owner
end

-- One kind of handle: adopt(handle, parent), of(self), close(self). `methods`
-- has all of its methods by then.
function M.kind(name, close, methods)
    local ctype = ffi.typeof(name .. " *")
    local none = ffi_new(ctype)
    local kind = {}

    function kind.adopt(handle, parent)
        local releases = owner_of(parent).releases
        local token = {}
        -- The object, for whoever closes it by its segment: what was closed
        -- is not to be used. Weak, as `release` must not keep it.
        local adopted = setmetatable({}, { __mode = "v" })
        -- Finalizers run in any order, and the library gives a closed handle
        -- out again: so each is closed through the table of those that are
        -- still to be closed.
        local function release()
            if not releases[token] then
                return CLOSED
            end
            releases[token] = nil
            if adopted.object then
                adopted.object[1] = none
            end
            return close(handle)
        end
        releases[token] = release
        -- A copy of the pointer: were it `handle` itself, `release` would
        -- keep it.
        local collected = ffi_gc(ffi_new(ctype, handle), release)
        local object = setmetatable({ collected, parent, drop = release },
                                    methods)
        adopted.object = object
        return object
    end

    function kind.of(self)
        local handle = type(self) == "table" and self[1]
        if not ffi_istype(ctype, handle) then
            error(('bad "%s" argument'):format(name:match("shd_(.*)")), 4)
        end
        return handle
    end

    function kind.close(self)
        if kind.of(self) == nil then
            return library.closed()
        end
        self[1] = none
        local code = self.drop()
        if code ~= OK and code ~= CLOSED then
            return library.failed(code)
        end
        return true
    end

    -- A method of a closed one says so, and does nothing.
    for method, run in pairs(methods) do
        if type(run) == "function" and method ~= "close" then
            methods[method] = function(self, ...)
                if kind.of(self) == nil then
                    return library.closed()
                end
                return run(self, ...)
            end
        end
    end

    return kind
end

-- An array of what is in a table of slots, from 0 on, the free ones left out.
-- read(call) fills a record by call(out); change(record, slot) adds to it.
function M.slots(read, at, change)
    local found = {}
    local slot = 0
    while true do
        local record, code = read(function(out)
            return at(slot, out)
        end)
        if record then
            record.dead = record.dead ~= 0
            if change then
                change(record, slot)
            end
            found[#found + 1] = record
        elseif code == INVAL then
            return found
        elseif code ~= NOTFOUND then
            return library.failed(code)
        end
        slot = slot + 1
    end
end

return M
