-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_queue.lua - queues: segment:queue(name, options). See lua/README.md.
--
-- OWNS   an object around a handle of shdict.h, and a buffer that all queues
--        of the process share: nothing yields while it is in use.
-- HOLDS  a queue keeps its segment from being collected. Times are seconds.

local ffi = require "ffi"
local library = require "shdict_library"

local ffi_gc = ffi.gc
local ffi_istype = ffi.istype
local ffi_new = ffi.new
local ffi_string = ffi.string

local lib = library.lib
local failed = library.failed
local invalid = library.invalid
local closed = library.closed

local OK = lib.SHD_OK
local SPACE = lib.SHD_SPACE
local FOREVER = tonumber(lib.SHD_FOREVER)

-- What is an answer rather than a failure has no details.
local answers = {
    [lib.SHD_NOTFOUND] = "SHD_NOTFOUND",
    [lib.SHD_FULL] = "SHD_FULL",
    [lib.SHD_LOST] = "SHD_LOST"
}
local texts = {
    [lib.SHD_NOTFOUND] = "empty",
    [lib.SHD_FULL] = "full",
    [lib.SHD_LOST] = "lost"
}

local function answer(code)
    if answers[code] then
        return nil, texts[code], answers[code]
    end
    return failed(code)
end

local WHICH = {
    ready = lib.SHD_MESSAGE_READY,
    delayed = lib.SHD_MESSAGE_DELAYED,
    leased = lib.SHD_MESSAGE_LEASED,
    reserved = lib.SHD_MESSAGE_RESERVED,
    dead = lib.SHD_MESSAGE_DEAD
}
local STATES = {}
for name, state in pairs(WHICH) do
    STATES[tonumber(state)] = name
end

local Queue = {}
Queue.__index = Queue

local queue_ctype = ffi.typeof("shd_queue *")
local read_info = library.struct_reader("shd_queue_info")

local message = ffi_new("struct shd_message")
local number = ffi_new("uint64_t[1]")
local again = ffi_new("int64_t[1]")
local size = 65536
local buf = ffi_new("char[?]", size)

local function queue_of(self)
    local queue = type(self) == "table" and self[1]
    if queue and not ffi_istype(queue_ctype, queue) then
        queue = nil
    end
    if not queue then
        error('bad "queue" argument', 3)
    end
    -- Its segment's handles go with it.
    return self.owner.segment and self.open and queue
end

-- Milliseconds of seconds, rounded up; nil is `default`, and math.huge (for a
-- wait) has no end.
local function ms_of(seconds, default)
    if seconds == nil then
        return default
    end
    if type(seconds) ~= "number" or not (seconds >= 0) then
        return nil, "bad time: seconds expected, not negative"
    end
    if seconds >= 2 ^ 40 then
        return FOREVER
    end
    return math.ceil(seconds * 1000)
end

local function close_handle(owner, handle)
    if owner.segment then
        lib.shd_queue_close(handle)
    end
end

local M = {}

-- A queue around an open handle of the segment.
function M.adopt(handle, segment)
    local owner = segment.owner
    local kept = ffi_gc(ffi_new(queue_ctype, handle), function(h)
        close_handle(owner, h)
    end)
    return setmetatable({ kept, owner = owner, segment = segment,
                          open = true }, Queue)
end

function Queue.close(self)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    self.open = false
    ffi_gc(self[1], nil)
    close_handle(self.owner, queue)
    return true
end

-- The ms of a push's options, delay and wait; nil and what is wrong with them.
local function times_of(options)
    if options and type(options) ~= "table" then
        return nil, "bad options: table expected, got " .. type(options)
    end
    local delay, err = ms_of(options and options.delay, 0)
    if not delay then
        return nil, err
    end
    local wait
    wait, err = ms_of(options and options.wait, 0)
    if not wait then
        return nil, err
    end
    return delay, wait
end

-- The message's number. options: delay, wait.
function Queue.push(self, text, options)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    if type(text) == "number" then
        text = tostring(text)
    elseif type(text) ~= "string" then
        return invalid("bad message: string expected, got " .. type(text))
    end
    local delay, wait = times_of(options)
    if not delay then
        return invalid(wait)
    end
    local code = lib.shd_queue_push(queue, text, #text, delay, wait, number)
    if code ~= OK then
        return answer(code)
    end
    return tonumber(number[0])
end

-- As a row for C: pointers, lengths, and what keeps the strings alive. Grown,
-- never shrunk; nothing yields while it is in use.
local row_size = 0
local row_data, row_lens, row_numbers, row_at, row_messages, row_leases,
      row_codes
local pushed = ffi_new("uint32_t[1]")

local function row_of(n)
    if n <= row_size then
        return
    end
    row_size = math.max(n, 2 * row_size, 64)
    row_data = ffi_new("const void *[?]", row_size)
    row_lens = ffi_new("size_t[?]", row_size)
    row_numbers = ffi_new("uint64_t[?]", row_size)
    row_at = ffi_new("size_t[?]", row_size)
    row_messages = ffi_new("struct shd_message[?]", row_size)
    row_leases = ffi_new("uint64_t[?]", row_size)
    row_codes = ffi_new("int32_t[?]", row_size)
end

-- An array of the messages' numbers. If not all went in: nil, why, the code,
-- and the numbers of the first ones, which did. options: delay, wait.
function Queue.push_many(self, texts, options)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    if type(texts) ~= "table" then
        return invalid("bad messages: table expected, got " .. type(texts))
    end
    local n = #texts
    local kept = {}
    row_of(n)
    for i = 1, n do
        local text = texts[i]
        if type(text) == "number" then
            text = tostring(text)
        elseif type(text) ~= "string" then
            return invalid(("bad message %d: string expected, got %s")
                           :format(i, type(text)))
        end
        kept[i] = text
        row_data[i - 1] = ffi.cast("const char *", text)
        row_lens[i - 1] = #text
    end
    local delay, wait = times_of(options)
    if not delay then
        return invalid(wait)
    end
    local code = lib.shd_queue_push_many(queue, n, row_data, row_lens, delay,
                                         wait, row_numbers, pushed)
    local numbers = {}
    for i = 1, pushed[0] do
        numbers[i] = tonumber(row_numbers[i - 1])
    end
    if code ~= OK then
        local _, text, name = answer(code)
        return nil, text, name, numbers
    end
    return numbers
end

local function get(self, call, wait)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    local ms, err = ms_of(wait, 0)
    if not ms then
        return invalid(err)
    end
    local code = call(queue, buf, size, ms, message)
    while code == SPACE do
        size = tonumber(message.len)
        buf = ffi_new("char[?]", size)
        code = call(queue, buf, size, ms, message)
    end
    if code ~= OK then
        return answer(code)
    end
    return ffi_string(buf, message.len)
end

-- The next message, which is gone from the queue; waits so many seconds.
function Queue.pop(self, wait)
    return get(self, lib.shd_queue_pop, wait)
end

-- The next message, its lease, how many times it has been delivered, and its
-- number.
function Queue.take(self, wait)
    local text, err, code = get(self, lib.shd_queue_take, wait)
    if not text then
        return nil, err, code
    end
    return text, message.lease, message.attempts, tonumber(message.id)
end

-- As many as the C call gives at most.
local BATCH = 64

local function get_many(self, call, max, wait)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    local ms, err = ms_of(wait, 0)
    if not ms then
        return invalid(err)
    end
    if type(max) ~= "number" or not (max >= 1) then
        return invalid("bad number of messages: a number from 1 expected")
    end
    max = math.floor(math.min(max, BATCH))
    row_of(max)
    local code = call(queue, max, buf, size, ms, row_messages, row_at, pushed)
    while code == SPACE do
        size = tonumber(row_messages[0].len)
        buf = ffi_new("char[?]", size)
        code = call(queue, max, buf, size, ms, row_messages, row_at, pushed)
    end
    if code ~= OK then
        return answer(code)
    end
    local messages = {}
    for i = 1, pushed[0] do
        local m = row_messages[i - 1]
        messages[i] = {
            data = ffi_string(buf + row_at[i - 1], m.len),
            lease = m.lease,
            attempts = m.attempts,
            id = tonumber(m.id)
        }
    end
    return messages
end

-- Up to max messages (64 at most) that are there, waiting only if there is
-- none: an array of { data, lease, attempts, id }.
function Queue.take_many(self, max, wait)
    return get_many(self, lib.shd_queue_take_many, max, wait)
end

-- The same, gone from the queue: their leases mean nothing.
function Queue.pop_many(self, max, wait)
    return get_many(self, lib.shd_queue_pop_many, max, wait)
end

local function done(code)
    if code ~= OK then
        return answer(code)
    end
    return true
end

local function is_lease(lease)
    return ffi_istype("uint64_t", lease)
end

local NO_LEASE = "bad lease: what take gave expected"

function Queue.ack(self, lease)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    if not is_lease(lease) then
        return invalid(NO_LEASE)
    end
    return done(lib.shd_queue_ack(queue, lease))
end

-- Of leases, or of messages of take_many: how many were acknowledged; the
-- others had been lost.
function Queue.ack_many(self, leases)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    if type(leases) ~= "table" then
        return invalid("bad leases: table expected, got " .. type(leases))
    end
    local n = #leases
    row_of(n)
    for i = 1, n do
        local lease = leases[i]
        if type(lease) == "table" then
            lease = lease.lease
        end
        if not is_lease(lease) then
            return invalid(NO_LEASE)
        end
        row_leases[i - 1] = lease
    end
    local code = lib.shd_queue_ack_many(queue, n, row_leases, row_codes)
    if code ~= OK and code ~= lib.SHD_LOST then
        return answer(code)
    end
    local acked = 0
    for i = 0, n - 1 do
        if row_codes[i] == OK then
            acked = acked + 1
        end
    end
    return acked
end

function Queue.nack(self, lease, delay)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    local ms, err = ms_of(delay, 0)
    if not ms or not is_lease(lease) then
        return invalid(err or NO_LEASE)
    end
    return done(lib.shd_queue_nack(queue, lease, ms))
end

-- The lease ends in so many seconds from now; 0: with this worker only.
function Queue.extend(self, lease, seconds)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    local ms, err = ms_of(seconds, 0)
    if not ms or not is_lease(lease) then
        return invalid(err or NO_LEASE)
    end
    return done(lib.shd_queue_extend(queue, lease, ms))
end

-- A number of messages, or of one of them.
local function is_count(n, least)
    return type(n) == "number" and n >= least and n < 2 ^ 53
end

local BAD_MAX = "bad max: number expected"

-- Message number index (from 1) of those that are "ready" (or as which says),
-- and what is known of it.
function Queue.peek(self, index, which)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    local kind = WHICH[which or "ready"]
    if not kind then
        return invalid("bad which: ready, delayed, leased, reserved or dead")
    end
    if not is_count(index or 1, 1) then
        return invalid("bad index: number from 1 expected")
    end
    local at = (index or 1) - 1
    local code = lib.shd_queue_peek(queue, kind, at, buf, size, message)
    while code == OK and message.len > size do
        size = tonumber(message.len)
        buf = ffi_new("char[?]", size)
        code = lib.shd_queue_peek(queue, kind, at, buf, size, message)
    end
    if code ~= OK then
        return answer(code)
    end
    return ffi_string(buf, message.len), {
        id = tonumber(message.id),
        attempts = message.attempts,
        state = STATES[message.state],
        from = tonumber(message.from),
        holder = tonumber(message.holder),
        pushed_ms = tonumber(message.pushed_ms),
        when_ms = message.when_ms >= 0 and tonumber(message.when_ms) or nil
    }
end

-- Throws away what is ready and delayed, or as which says, at most max; gives
-- the number.
function Queue.drain(self, which, max)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    local kind = which == nil and 0 or WHICH[which]
    if not kind then
        return invalid("bad which: ready, delayed or dead")
    end
    if not is_count(max or 0, 0) then
        return invalid(BAD_MAX)
    end
    local code = lib.shd_queue_drain(queue, kind, max or 0, number)
    if code ~= OK then
        return answer(code)
    end
    return tonumber(number[0])
end

-- Puts dead letters back, at most max; gives the number.
function Queue.requeue(self, max)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    if not is_count(max or 0, 0) then
        return invalid(BAD_MAX)
    end
    local code = lib.shd_queue_requeue(queue, max or 0, number)
    if code ~= OK then
        return answer(code)
    end
    return tonumber(number[0])
end

-- For an event loop: true if there is a message (with room true: room) now;
-- else false, segment:worker_fd() becomes readable when there may be, and the
-- second result is in how many seconds to look in any case, or nil.
function Queue.arm(self, room)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    local code = lib.shd_queue_arm(queue, room and 1 or 0, again)
    if code < 0 then
        return answer(code)
    end
    return code == 1, again[0] >= 0 and tonumber(again[0]) / 1000 or nil
end

function Queue.info(self)
    local queue = queue_of(self)
    if not queue then
        return closed()
    end
    local info, code = read_info(function(out)
        return lib.shd_queue_info(queue, out)
    end)
    if not info then
        return failed(code)
    end
    return info
end

-- Opens the queue for Segment.queue.
function M.open(segment_object, segment, name, options)
    if type(name) ~= "string" or name:find("\0", 1, true) then
        return invalid("bad queue name: string without NUL bytes expected")
    end
    local checked, err = library.options_of(library.QUEUE_OPTIONS, options)
    if not checked then
        return invalid(err)
    end
    local o
    if options then
        o = ffi_new("struct shd_queue_options")
        o.struct_size = ffi.sizeof(o)
        o.capacity_bytes = checked.capacity or 0
        o.message_bytes = checked.message_bytes or 0
        o.messages_max = checked.messages_max or 0
        o.deliveries_max = checked.deliveries_max or 0
        o.lease_ms = math.ceil((checked.lease or 0) * 1000)
        o.dead_to = checked.dead_to -- which lives as long as this call
    end
    local out = ffi_new("shd_queue *[1]")
    local code = lib.shd_queue_open(segment, name, o, out)
    if code ~= OK then
        return failed(code)
    end
    return M.adopt(out[0], segment_object)
end

return M
