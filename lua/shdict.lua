-- SPDX-License-Identifier: BSD-2-Clause
-- shdict.lua - segments of shared memory, and the dicts in them, for LuaJIT.
--
--     local shdict = require "shdict"
--     local segment = assert(shdict.open("app"))
--     local cache = assert(segment:dict("cache", { capacity = "64m" }))
--     cache:set("key", "value", 60)
--
-- OWNS   objects around the handles of shdict.h: a handle is closed by
--        close(), or when its object is collected.
-- HOLDS  what fails here returns nil, a sentence, and the code's name
--        ("SHD_NOTFOUND"); only a wrong self raises. A closed object answers
--        so, and never crashes.
-- CRASH  see shdict.h: an operation is wholly done or wholly not.

local ffi = require "ffi"
local library = require "shdict_library"
local dicts = require "shdict_dict"
local watches = require "shdict_watch"
local locks = require "shdict_lock"
local topics = require "shdict_topic"
local leaders = require "shdict_leader"
local mailboxes = require "shdict_mailbox"
local queues = require "shdict_queue"

local ffi_gc = ffi.gc
local ffi_istype = ffi.istype
local ffi_new = ffi.new
local ffi_string = ffi.string

local lib = library.lib
local failed = library.failed
local invalid = library.invalid
local closed = library.closed
local options_of = library.options_of

local OK = lib.SHD_OK
local NOTFOUND = lib.SHD_NOTFOUND
local INVAL = lib.SHD_INVAL

local read_segment_info = library.struct_reader("shd_segment_info")
local read_object_info = library.struct_reader("shd_object_info")
local read_keep_info = library.struct_reader("shd_keep_info")
local read_worker_info = library.struct_reader("shd_worker_info")
local read_hold = library.struct_reader("shd_hold")

-- ---- segments ------------------------------------------------------------

local Segment = {}
Segment.__index = Segment

local segment_ctype = ffi.typeof("shd_segment *")
local segment_closed = ffi_new(segment_ctype)

local function segment_of(self)
    local segment = type(self) == "table" and self[1]
    if not ffi_istype(segment_ctype, segment) then
        error('bad "segment" argument', 3)
    end
    return segment
end

-- The library's handles behind an object: the segment's, and those of the
-- dicts opened through it that are to be closed yet. It outlives the object
-- until the finalizers of all of them have run.
local function owner_close(owner)
    local segment = owner.segment
    if not segment then
        return OK
    end
    owner.segment = nil
    -- Not pairs(): see options_of() in shdict_library.lua.
    local open = owner.open
    local token, handle = next(open)
    while token do
        open[token] = nil
        lib.shd_dict_close(handle)
        token, handle = next(open)
    end
    local releases = owner.releases
    local _, release = next(releases)
    while release do
        release()
        _, release = next(releases)
    end
    return lib.shd_segment_close(segment)
end

local function segment_new(handle, options)
    local owner = { segment = handle, open = {}, releases = {} }
    -- Runs once nobody refers to the segment or to a dict of it any more.
    local collected = ffi_gc(ffi_new(segment_ctype, handle), function()
        owner_close(owner)
    end)
    return setmetatable({
        collected,
        owner = owner,
        options = options,
        dicts = setmetatable({}, { __mode = "k" })
    }, Segment)
end

-- The worker's name in it lives as long as the table of checked options.
local function segment_options(checked)
    local o = ffi_new("struct shd_segment_options")
    o.struct_size = ffi.sizeof(o)
    if checked.readonly then
        o.flags = lib.SHD_ATTACH_READONLY
    end
    if checked.held then
        o.flags = o.flags + lib.SHD_ATTACH_HELD
    end
    if checked.dumpable then
        o.flags = o.flags + lib.SHD_DUMPABLE
    end
    if checked.guard_pages then
        o.flags = o.flags + lib.SHD_GUARD_PAGES
    end
    if checked.write_protect then
        o.flags = o.flags + lib.SHD_WRITE_PROTECT
    end
    if checked.huge_pages then
        o.flags = o.flags + lib.SHD_HUGE_PAGES
    end
    if checked.prefault then
        o.flags = o.flags + lib.SHD_PREFAULT
    end
    if checked.interleave then
        o.flags = o.flags + lib.SHD_INTERLEAVE
    end
    o.size_bytes = checked.size or 0
    o.mode = checked.mode or 0
    o.wait_ms = checked.wait_ms or 0
    o.worker_id = checked.worker_id or 0
    o.generation = checked.generation or 0
    o.workers_max = checked.workers_max or 0
    o.objects_max = checked.objects_max or 0
    o.locks_max = checked.locks_max or 0
    o.worker_name = checked.worker_name
    return o
end

local function segment_open(call, name, checked)
    local out = ffi_new("shd_segment *[1]")
    local o = segment_options(checked)
    local code = call(name, o, out)
    if code ~= OK then
        return failed(code)
    end
    return segment_new(out[0], checked)
end

function Segment.dict(self, name, options)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    if type(name) ~= "string" then
        return invalid("bad dict name: string expected, got " .. type(name))
    end
    if name:find("\0", 1, true) then
        return invalid("bad dict name: it holds a NUL byte")
    end
    local checked, err = options_of(library.DICT_OPTIONS, options)
    if not checked then
        return invalid(err)
    end
    if options and not checked.capacity then
        return invalid("bad options: capacity expected")
    end
    local o
    if options then
        o = ffi_new("struct shd_dict_options")
        o.struct_size = ffi.sizeof(o)
        o.capacity_bytes = checked.capacity
        o.shards = checked.shards or 0
        o.entries_hint = checked.entries or 0
        o.capacity_max_bytes = checked.capacity_max or 0
        o.flags = checked.any_capacity and lib.SHD_DICT_ANY_CAPACITY or 0
    end
    local out = ffi_new("shd_dict *[1]")
    local code = lib.shd_dict_open(segment, name, o, out)
    if code ~= OK then
        return failed(code)
    end
    local dict = dicts.adopt(out[0], self, self.owner.open)
    self.dicts[dict] = true
    return dict
end

function Segment.topic(self, name, options)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    return topics.open(segment, self, name, options)
end

local function lock_opener(what, kind)
    return function(self, name, options)
        local segment = segment_of(self)
        if segment == nil then
            return closed()
        end
        return locks.open(kind, what, segment, self, name, options)
    end
end

Segment.lock = lock_opener("lock", lib.SHD_OBJECT_LOCK)
Segment.semaphore = lock_opener("semaphore", lib.SHD_OBJECT_SEMAPHORE)

-- Who leads by that name: made if there is none unless create is false.
function Segment.leader(self, name, options)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    return leaders.open(segment, self, name, options)
end

-- The mailbox of that name, made if there is none unless create is false.
function Segment.mailbox(self, name, options)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    return mailboxes.open(segment, self, name, options)
end

-- The queue of that name; with options, which may be {}, made if there is none.
function Segment.queue(self, name, options)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    return queues.open(self, segment, name, options)
end

-- Destroys an object of any kind.
function Segment.destroy_object(self, name)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    if type(name) ~= "string" then
        return invalid("bad name: string expected, got " .. type(name))
    end
    local code = lib.shd_object_destroy(segment, name)
    if code ~= OK then
        return failed(code)
    end
    return true
end

-- The descriptor that becomes readable when what was armed may have happened.
function Segment.worker_fd(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local fd = lib.shd_worker_fd(segment)
    if fd < 0 then
        return failed(fd)
    end
    return fd
end

-- Makes it unreadable, before the objects are looked at.
function Segment.worker_fd_clear(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local code = lib.shd_worker_fd_clear(segment)
    if code ~= OK then
        return failed(code)
    end
    return true
end

-- Closes the dicts that were opened through this object as well.
function Segment.close(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local opened = self.dicts
    local dict = next(opened)
    while dict do
        dicts.disown(dict)
        dict = next(opened, dict)
    end
    self[1] = segment_closed
    local code = owner_close(self.owner)
    if code ~= OK then
        return failed(code)
    end
    return true
end

function Segment.destroy_dict(self, name)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    if type(name) ~= "string" then
        return invalid("bad dict name: string expected, got " .. type(name))
    end
    local code = lib.shd_dict_destroy(segment, name)
    if code ~= OK then
        return failed(code)
    end
    return true
end

-- The number of dead workers whose slots were freed.
function Segment.reap(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local reaped = ffi_new("uint32_t[1]")
    local code = lib.shd_reap(segment, reaped)
    if code ~= OK then
        return failed(code)
    end
    return tonumber(reaped[0])
end

-- Registers this process as a worker now, and gives its incarnation.
function Segment.join(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local incarnation = ffi_new("uint64_t[1]")
    local code = lib.shd_worker_join(segment, incarnation)
    if code ~= OK then
        return failed(code)
    end
    return tonumber(incarnation[0])
end

function Segment.leave(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local code = lib.shd_worker_leave(segment)
    if code ~= OK then
        return failed(code)
    end
    return true
end

-- All that a reader of slots 0, 1, ... finds, up to the end of the table.
local function slots(segment, read, call)
    local found = {}
    local index = 0
    local function at(out)
        return call(segment, index, out)
    end
    while true do
        local slot, code = read(at)
        if slot then
            slot.index = index
            found[#found + 1] = slot
        elseif code == INVAL then
            return found
        elseif code ~= NOTFOUND then
            return failed(code)
        end
        index = index + 1
    end
end

-- A heartbeat: this worker is not stuck.
function Segment.beat(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local code = lib.shd_worker_beat(segment)
    if code ~= OK then
        return failed(code)
    end
    return true
end

local PHASES = { [0] = "none", "starting", "ready", "draining" }
local PHASE_NUMBERS = {}
for number, name in pairs(PHASES) do
    PHASE_NUMBERS[name] = number
end

local function worker_number(incarnation)
    if type(incarnation) ~= "number" or incarnation < 0
        or incarnation >= 2 ^ 53 or incarnation % 1 ~= 0 then
        return nil
    end
    return incarnation
end

-- How far this worker is, or the one of that incarnation.
function Segment.set_phase(self, phase, incarnation)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local number = PHASE_NUMBERS[phase]
    if not number then
        return invalid("bad phase: none, starting, ready or draining "
                       .. "expected, got " .. tostring(phase))
    end
    local which = worker_number(incarnation or 0)
    if not which then
        return invalid("bad incarnation: " .. tostring(incarnation))
    end
    local code = lib.shd_worker_set_phase(segment, which, number)
    if code ~= OK then
        return failed(code)
    end
    return true
end

-- Sends a signal, by number, to the worker of that incarnation and no other.
function Segment.signal(self, incarnation, signal)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local which = worker_number(incarnation)
    if not which then
        return invalid("bad incarnation: " .. tostring(incarnation))
    end
    if type(signal) ~= "number" or signal % 1 ~= 0 or signal < 0
        or signal > 64 then
        return invalid("bad signal: " .. tostring(signal))
    end
    local code = lib.shd_worker_signal(segment, which, signal)
    if code ~= OK then
        return failed(code)
    end
    return true
end

-- The number of a new generation of workers.
function Segment.next_generation(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local generation = ffi_new("uint32_t[1]")
    local code = lib.shd_generation_next(segment, generation)
    if code ~= OK then
        return failed(code)
    end
    return tonumber(generation[0])
end

-- Marks the workers of the generations below this one as draining; how many
-- were not before.
function Segment.drain(self, generation)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    if type(generation) ~= "number" or generation % 1 ~= 0 or generation < 0
        or generation > 0xffffffff then
        return invalid("bad generation: " .. tostring(generation))
    end
    local marked = ffi_new("uint32_t[1]")
    local code = lib.shd_generation_drain(segment, generation, marked)
    if code ~= OK then
        return failed(code)
    end
    return tonumber(marked[0])
end

-- Hears of workers that join, die, hang: shdict_watch.lua.
function Segment.watch(self, options)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    return watches.open(segment, self, options)
end

-- What the worker of that incarnation holds: { object =, kind =, count =,
-- locks = }.
function Segment.holds(self, incarnation)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local which = worker_number(incarnation)
    if not which then
        return invalid("bad incarnation: " .. tostring(incarnation))
    end
    local holds, err, code = slots(segment, read_hold,
                                   function(of, index, out)
        return lib.shd_worker_hold(of, which, index, out)
    end)
    for _, hold in ipairs(holds or {}) do
        hold.index = nil
        hold.kind = hold.kind == 0 and "segment"
                    or ffi.string(lib.shd_object_kind_name(hold.kind))
    end
    return holds, err, code
end

function Segment.workers(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local workers, err, code = slots(segment, read_worker_info,
                                     lib.shd_worker_info)
    for _, worker in ipairs(workers or {}) do
        worker.alive = worker.state == lib.SHD_WORKER_ALIVE
        worker.phase = PHASES[worker.phase] or worker.phase
    end
    return workers, err, code
end

function Segment.objects(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local objects, err, code = slots(segment, read_object_info,
                                     lib.shd_object_info)
    for _, object in ipairs(objects or {}) do
        object.kind = ffi.string(lib.shd_object_kind_name(object.kind))
    end
    return objects, err, code
end

function Segment.info(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local info, code = read_segment_info(function(out)
        return lib.shd_segment_info(segment, out)
    end)
    if not info then
        return failed(code)
    end
    return info
end

-- true, or nil and the first invariant that does not hold.
function Segment.check(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local report = ffi_new("char[1024]")
    local code = lib.shd_segment_check(segment, report, 1024)
    if code == OK then
        return true
    end
    local text = ffi_string(report)
    if text == "" then
        return failed(code)
    end
    return nil, ffi_string(lib.shd_strerror(code)) .. ": " .. text,
           ffi_string(lib.shd_strerror_name(code))
end

local function path_error(path)
    if type(path) ~= "string" then
        return "bad path: string expected, got " .. type(path)
    end
    if path:find("\0", 1, true) then
        return "bad path: it holds a NUL byte"
    end
end

-- Yes and no, and what the figures of a snapshot are to a Lua program.
local function keep_info(info)
    info.done = info.done == 1
    info.one_moment = info.one_moment == 1
    info.at, info.total = nil, nil
    return info
end

-- All that is in it into a file, beside who works on it.
function Segment.save(self, path, options)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local err = path_error(path)
    local checked
    if not err then
        checked, err = options_of(library.SAVE_OPTIONS, options)
    end
    if err then
        return invalid(err)
    end
    local o = ffi_new("struct shd_save_options")
    o.struct_size = ffi.sizeof(o)
    o.hold_ms = math.min(math.ceil((checked.hold or 0) * 1000), 0xffffffff)
    local info, code = read_keep_info(function(out)
        return lib.shd_segment_save(segment, path, o, out)
    end)
    if not info then
        return failed(code)
    end
    return keep_info(info)
end

-- The descriptor of its file, to be inherited as "fd:N" (close-on-exec).
function Segment.fd(self)
    local segment = segment_of(self)
    if segment == nil then
        return closed()
    end
    local fd = lib.shd_segment_fd(segment)
    if fd < 0 then
        return failed(fd)
    end
    return fd
end

-- ---- the module ----------------------------------------------------------

local shdict = { version = library.version }

local function name_error(name)
    if type(name) ~= "string" then
        return "bad segment name: string expected, got " .. type(name)
    end
    if name:find("\0", 1, true) then
        return "bad segment name: it holds a NUL byte"
    end
end

-- Attaches to the segment of that name, and creates it if there is none,
-- unless create is false, or readonly or held is true; exclusive: creates it,
-- and fails if there is one.
function shdict.open(name, options)
    local err = name_error(name)
    if err then
        return invalid(err)
    end
    local checked
    checked, err = options_of(library.OPEN_OPTIONS, options)
    if not checked then
        return invalid(err)
    end
    if (checked.readonly or checked.held) and checked.create then
        return invalid("bad options: create and "
                       .. (checked.held and "held" or "readonly")
                       .. " exclude each other")
    end
    local attach = checked.readonly or checked.held or checked.create == false
    if checked.exclusive and attach then
        return invalid("bad options: exclusive creates a segment, readonly, "
                       .. "held and create = false do not")
    end
    if attach then
        return segment_open(lib.shd_segment_attach, name, checked)
    end
    if checked.exclusive then
        return segment_open(lib.shd_segment_create, name, checked)
    end
    return segment_open(lib.shd_segment_open, name, checked)
end

-- A segment without a name, for children that inherit its descriptor.
function shdict.anonymous(options)
    local checked, err = options_of(library.OPEN_OPTIONS, options)
    if not checked then
        return invalid(err)
    end
    if checked.readonly or checked.create == false then
        return invalid("bad options: an anonymous segment is always created")
    end
    return segment_open(lib.shd_segment_create, nil, checked)
end

-- What segment:save has written into a new segment, which it gives, and the
-- figures. name nil: that of the one that was saved. verify = true: only reads
-- the file, and gives true and the figures.
function shdict.restore(path, name, options)
    local err = path_error(path) or (name ~= nil and name_error(name)) or nil
    local checked
    if not err then
        checked, err = options_of(library.RESTORE_OPTIONS, options)
    end
    if err then
        return invalid(err)
    end
    local own = segment_options(checked)
    local o = ffi_new("struct shd_restore_options")
    o.struct_size = ffi.sizeof(o)
    o.segment = own
    o.flags = (checked.replace and lib.SHD_RESTORE_REPLACE or 0)
              + (checked.in_use and lib.SHD_RESTORE_IN_USE or 0)
              + (checked.freeze and lib.SHD_RESTORE_FREEZE or 0)
              + (checked.verify and lib.SHD_RESTORE_VERIFY or 0)
    local out = ffi_new("shd_segment *[1]")
    local info, code = read_keep_info(function(figures)
        return lib.shd_segment_restore(path, name, o, figures, out)
    end)
    if not info then
        return failed(code)
    end
    if checked.verify then
        return true, keep_info(info)
    end
    return segment_new(out[0], checked), keep_info(info)
end

function shdict.destroy(name)
    local err = name_error(name)
    if err then
        return invalid(err)
    end
    local code = lib.shd_segment_destroy(name)
    if code ~= OK then
        return failed(code)
    end
    return true
end

return shdict
