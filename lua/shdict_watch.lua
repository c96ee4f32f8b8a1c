-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_watch.lua - hearing of workers: who joins, dies, hangs.
--
--     local watch = assert(segment:watch { hang = 30 })
--     -- in an event loop: when watch:fd() is readable
--     local event = watch:next(0)
--     while event do ... event = watch:next(0) end
--
-- OWNS   a watch's handle, closed by close() or when it is collected. It keeps
--        its segment open.
-- HOLDS  what fails returns nil, a sentence, and the code's name; that there
--        is nothing to tell is nil alone.
-- CRASH  nothing shared lives here; see shd_watch_open in shdict.h.

local ffi = require "ffi"
local bit = require "bit"
local library = require "shdict_library"

local lib = library.lib
local failed = library.failed
local invalid = library.invalid
local OK = lib.SHD_OK

local read_event = library.struct_reader("shd_watch_event")

local EVENTS = {
    [lib.SHD_WATCH_JOINED] = "joined", [lib.SHD_WATCH_LEFT] = "left",
    [lib.SHD_WATCH_DIED] = "died", [lib.SHD_WATCH_PHASE] = "phase",
    [lib.SHD_WATCH_HUNG] = "hung", [lib.SHD_WATCH_STUCK] = "stuck"
}
local PHASES = {
    [lib.SHD_PHASE_NONE] = "none", [lib.SHD_PHASE_STARTING] = "starting",
    [lib.SHD_PHASE_READY] = "ready", [lib.SHD_PHASE_DRAINING] = "draining"
}

local Watch = {}
Watch.__index = Watch

local function watch_of(self)
    local handle = type(self) == "table" and self.handle
    if handle == nil or getmetatable(self) ~= Watch then
        error('bad "watch" argument', 3)
    end
    return handle
end

-- Readable when next(0) should be called until it gives nil.
function Watch.fd(self)
    local handle = watch_of(self)
    if not handle then
        return library.closed()
    end
    local fd = lib.shd_watch_fd(handle)
    if fd < 0 then
        return failed(fd)
    end
    return fd
end

-- The next event as a table, or nil: there was none within that many seconds
-- (0 if not given; below 0: for ever).
function Watch.next(self, timeout)
    local handle = watch_of(self)
    if not handle then
        return library.closed()
    end
    timeout = timeout or 0
    if type(timeout) ~= "number" or timeout ~= timeout or timeout > 1e12 then
        return invalid("bad timeout: " .. tostring(timeout))
    end
    local ms = timeout < 0 and -1 or math.ceil(timeout * 1000)
    local event, code = read_event(function(out)
        return lib.shd_watch_next(handle, ms, out)
    end)
    if event then
        event.event = EVENTS[event.event] or event.event
        event.phase = PHASES[event.phase] or event.phase
        return event
    end
    if code == lib.SHD_NOTFOUND then
        return nil
    end
    return failed(code)
end

function Watch.close(self)
    local handle = watch_of(self)
    if not handle then
        return library.closed()
    end
    self.handle = false
    lib.shd_watch_close(ffi.gc(handle, nil))
    return true
end

local function ms_of(seconds)
    return seconds and math.ceil(seconds * 1000) or 0
end

-- A watch of the segment of that handle; `owner` is kept as long as it lives.
local function open(segment, owner, options)
    local checked, err = library.options_of(library.WATCH_OPTIONS, options)
    if not checked then
        return invalid(err)
    end
    local o = ffi.new("struct shd_watch_options")
    o.struct_size = ffi.sizeof(o)
    o.flags = bit.bor(checked.supervise and lib.SHD_WATCH_SUPERVISE or 0,
                      checked.hold_in_children
                      and lib.SHD_WATCH_HOLD_IN_CHILDREN or 0)
    o.hang_ms = ms_of(checked.hang)
    o.lock_ms = ms_of(checked.lock_limit)
    local out = ffi.new("shd_watch *[1]")
    local code = lib.shd_watch_open(segment, o, out)
    if code ~= OK then
        return failed(code)
    end
    return setmetatable({
        handle = ffi.gc(out[0], lib.shd_watch_close), owner = owner
    }, Watch)
end

return { open = open }
