-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_mailbox.lua - mailboxes: segment:mailbox(name, options).
--
-- OWNS   an object around a handle of shdict.h, and a buffer that all
--        mailboxes of the process share: nothing yields while it is in use.
-- HOLDS  what fails returns nil, a sentence, and the code's name. Times are
--        seconds; workers are incarnations, or logical ids by find.
-- CRASH  see shdict.h: who asks a worker that dies gets nil, "dead".

local ffi = require "ffi"
local library = require "shdict_library"
local handles = require "shdict_handles"

local ffi_istype = ffi.istype
local ffi_new = ffi.new
local ffi_string = ffi.string

local lib = library.lib
local failed = library.failed
local invalid = library.invalid
local wait_ms = handles.wait_ms

local OK = lib.SHD_OK
local SPACE = lib.SHD_SPACE
local NOTFOUND = lib.SHD_NOTFOUND

-- What is an answer rather than a failure has no details.
local texts = {
    [lib.SHD_FULL] = { "full", "SHD_FULL" },
    [lib.SHD_DEAD] = { "dead", "SHD_DEAD" },
    [lib.SHD_LOST] = { "lost", "SHD_LOST" },
    [lib.SHD_NOTFOUND] = { "not found", "SHD_NOTFOUND" },
    [lib.SHD_BUSY] = { "timeout", "SHD_BUSY" }
}

local function answer(code)
    local text = texts[code]
    if text then
        return nil, text[1], text[2]
    end
    return failed(code)
end

local read_info = library.struct_reader("shd_mailbox_info")
local read_box = library.struct_reader("shd_box_info")

local Mailbox = {}
Mailbox.__index = Mailbox

local mailboxes -- kind of handles

local function mailbox_of(self)
    return mailboxes.of(self)
end

local mail = ffi_new("struct shd_mail")
local number = ffi_new("uint64_t[1]")
local count = ffi_new("uint32_t[1]")
local size = 65536
local buf = ffi_new("char[?]", size)

local function grow()
    size = tonumber(mail.len)
    buf = ffi_new("char[?]", size)
end

local OPTIONS = {
    create = library.of_type("boolean"),
    capacity = library.QUEUE_OPTIONS.capacity,
    message_bytes = library.QUEUE_OPTIONS.message_bytes,
    box = library.QUEUE_OPTIONS.capacity
}

-- Made if it is not there, unless create is false.
local function open(segment, self, name, options)
    local checked, err = library.options_of(OPTIONS, options)
    if not checked then
        return invalid(err)
    end
    err = handles.name_error("mailbox", name)
    if err then
        return invalid(err)
    end
    local o
    if checked.create ~= false then
        o = ffi_new("struct shd_mailbox_options")
        o.struct_size = ffi.sizeof(o)
        o.capacity_bytes = checked.capacity or 0
        o.message_bytes = checked.message_bytes or 0
        o.box_bytes = checked.box or 0
    end
    local out = ffi_new("shd_mailbox *[1]")
    local code = lib.shd_mailbox_open(segment, name, o, out)
    if code ~= OK then
        return failed(code)
    end
    return mailboxes.adopt(out[0], self)
end

local function is_incarnation(to)
    return type(to) == "number" and to >= 1 and to < 2 ^ 53 and to % 1 == 0
end

local function bytes_of(text)
    if type(text) == "number" then
        return tostring(text)
    elseif type(text) ~= "string" then
        return nil, "bad message: string expected, got " .. type(text)
    end
    return text
end

-- Checks what all that send take: the text, and the ms.
local function sending(to, text, timeout)
    if not is_incarnation(to) then
        return nil, "bad worker: an incarnation expected, as find gives it"
    end
    local bytes, err = bytes_of(text)
    if not bytes then
        return nil, err
    end
    local ms
    ms, err = wait_ms(timeout)
    if not ms then
        return nil, err
    end
    return bytes, ms
end

local function done(code)
    if code ~= OK then
        return answer(code)
    end
    return true
end

-- This worker can be sent to from now on; receive says so, too.
function Mailbox.listen(self)
    return done(lib.shd_mailbox_listen(mailbox_of(self)))
end

function Mailbox.leave(self)
    return done(lib.shd_mailbox_leave(mailbox_of(self)))
end

-- The incarnation of the worker with that logical id.
function Mailbox.find(self, worker_id)
    local mailbox = mailbox_of(self)
    if type(worker_id) ~= "number" or worker_id % 1 ~= 0 or worker_id < 0 or
        worker_id >= 2 ^ 31 then
        return invalid("bad worker id: whole number expected")
    end
    local code = lib.shd_mailbox_find(mailbox, worker_id, number)
    if code ~= OK then
        return answer(code)
    end
    return tonumber(number[0])
end

-- The message's number. timeout: seconds to wait for room.
function Mailbox.post(self, to, text, timeout)
    local mailbox = mailbox_of(self)
    local bytes, ms = sending(to, text, timeout)
    if not bytes then
        return invalid(ms)
    end
    local code = lib.shd_mailbox_post(mailbox, to, bytes, #bytes, ms, number)
    if code ~= OK then
        return answer(code)
    end
    return tonumber(number[0])
end

-- How many workers it was sent to; and "full" if others had no room.
function Mailbox.post_all(self, text, timeout)
    local mailbox = mailbox_of(self)
    local bytes, ms = sending(1, text, timeout)
    if not bytes then
        return invalid(ms)
    end
    local code = lib.shd_mailbox_post_all(mailbox, bytes, #bytes, ms, count)
    if code == lib.SHD_FULL then
        return count[0], "full"
    elseif code ~= OK then
        return answer(code)
    end
    return count[0]
end

-- The next message, the incarnation of its sender, and for a request what
-- answer and decline want.
function Mailbox.receive(self, timeout)
    local mailbox = mailbox_of(self)
    local ms, err = wait_ms(timeout)
    if not ms then
        return invalid(err)
    end
    local code = lib.shd_mailbox_receive(mailbox, buf, size, ms, mail)
    while code == SPACE do
        grow()
        code = lib.shd_mailbox_receive(mailbox, buf, size, ms, mail)
    end
    if code == NOTFOUND then
        return nil, "timeout", "SHD_NOTFOUND"
    elseif code ~= OK then
        return answer(code)
    end
    local request
    if mail.request ~= 0 then
        request = mail.request
    end
    return ffi_string(buf, mail.len), tonumber(mail.from), request
end

local NO_REQUEST = "bad request: what receive or request gave expected"

local function is_request(request)
    return ffi_istype("uint64_t", request)
end

function Mailbox.answer(self, request, text, timeout)
    local mailbox = mailbox_of(self)
    local bytes, ms = sending(1, text, timeout)
    if not bytes or not is_request(request) then
        return invalid(bytes and NO_REQUEST or ms)
    end
    return done(lib.shd_mailbox_answer(mailbox, request, bytes, #bytes, ms))
end

function Mailbox.decline(self, request)
    local mailbox = mailbox_of(self)
    if not is_request(request) then
        return invalid(NO_REQUEST)
    end
    return done(lib.shd_mailbox_decline(mailbox, request))
end

-- Asks, and does not wait for the answer: what poll and cancel want.
-- answer_bytes: room for an answer of so many bytes.
function Mailbox.request(self, to, text, timeout, answer_bytes)
    local mailbox = mailbox_of(self)
    local bytes, ms = sending(to, text, timeout)
    if not bytes then
        return invalid(ms)
    end
    if answer_bytes ~= nil and (type(answer_bytes) ~= "number" or
        not (answer_bytes >= 0 and answer_bytes < 2 ^ 32)) then
        return invalid("bad answer_bytes: number expected")
    end
    local code = lib.shd_mailbox_request(mailbox, to, bytes, #bytes,
                                         answer_bytes or 0, ms, number)
    if code ~= OK then
        return answer(code)
    end
    return number[0]
end

-- The answer that lies in the buffer, or what became of the request.
local function answered(mailbox, code, ms)
    while code == SPACE do
        grow()
        code = lib.shd_mailbox_await(mailbox, mail.request, buf, size, ms,
                                     mail)
    end
    if code > OK then
        return false
    elseif code == lib.SHD_DEAD then
        -- It may have done half of it, or it had not seen it.
        return nil, "dead", "SHD_DEAD", mail.received ~= 0
    elseif code ~= OK then
        return answer(code)
    end
    return ffi_string(buf, mail.len)
end

-- The answer; false: not yet; nil, "dead" or "lost" (declined).
function Mailbox.poll(self, request, timeout)
    local mailbox = mailbox_of(self)
    local ms, err = wait_ms(timeout)
    if not ms or not is_request(request) then
        return invalid(err or NO_REQUEST)
    end
    return answered(mailbox, lib.shd_mailbox_await(mailbox, request, buf,
                                                   size, ms, mail), ms)
end

function Mailbox.cancel(self, request)
    local mailbox = mailbox_of(self)
    if not is_request(request) then
        return invalid(NO_REQUEST)
    end
    return done(lib.shd_mailbox_cancel(mailbox, request))
end

-- Asks, and waits for the answer: nil, "timeout".
function Mailbox.call(self, to, text, timeout)
    local mailbox = mailbox_of(self)
    local bytes, ms = sending(to, text, timeout)
    if not bytes then
        return invalid(ms)
    end
    mail.received = 0
    return answered(mailbox, lib.shd_mailbox_call(mailbox, to, bytes, #bytes,
                                                  buf, size, ms, mail), ms)
end

-- For event loops: true if there is a message or an answer now; else false,
-- and segment:worker_fd() becomes readable when there is.
function Mailbox.arm(self)
    local code = lib.shd_mailbox_arm(mailbox_of(self))
    if code < OK then
        return answer(code)
    end
    return code == 1
end

-- The same for room to send so many bytes to that worker.
function Mailbox.arm_room(self, to, bytes)
    local mailbox = mailbox_of(self)
    if not is_incarnation(to) or type(bytes or 0) ~= "number" then
        return invalid("bad worker, or number of bytes")
    end
    local code = lib.shd_mailbox_arm_room(mailbox, to, bytes or 0)
    if code < OK then
        return answer(code)
    end
    return code == 1
end

function Mailbox.info(self)
    local mailbox = mailbox_of(self)
    local info, code = read_info(function(out)
        return lib.shd_mailbox_info(mailbox, out)
    end)
    if not info then
        return failed(code)
    end
    return info
end

-- An array: whose boxes there are, and what is in them.
function Mailbox.boxes(self)
    local mailbox = mailbox_of(self)
    return handles.slots(read_box, function(slot, out)
        return lib.shd_mailbox_box(mailbox, slot, out)
    end, function(box)
        box.listening = box.listening ~= 0
    end)
end

-- Message number index (from 1) of those that wait for that worker, which stays,
-- and a table about it.
function Mailbox.peek(self, to, index)
    local mailbox = mailbox_of(self)
    local at = index == nil and 0 or index - 1
    if not is_incarnation(to) or not (at >= 0 and at < 2 ^ 32) then
        return invalid("bad worker, or index")
    end
    local slot, code = 0, NOTFOUND
    while code == NOTFOUND do
        local box
        box, code = read_box(function(out)
            return lib.shd_mailbox_box(mailbox, slot, out)
        end)
        if box and box.owner == to then
            code = lib.shd_mailbox_peek(mailbox, slot, at, buf, size, mail)
            while code == OK and mail.len > size do
                grow()
                code = lib.shd_mailbox_peek(mailbox, slot, at, buf, size,
                                            mail)
            end
            break
        end
        code = box and NOTFOUND or code
        slot = slot + 1
    end
    -- Past the last slot: nobody's box.
    if code ~= OK then
        return answer(code == lib.SHD_INVAL and NOTFOUND or code)
    end
    return ffi_string(buf, mail.len), {
        id = tonumber(mail.id),
        from = tonumber(mail.from),
        to = tonumber(mail.to),
        request = mail.request ~= 0,
        sent_ms = tonumber(mail.sent_ms)
    }
end

function Mailbox.close(self)
    return mailboxes.close(self)
end

mailboxes = handles.kind("shd_mailbox", lib.shd_mailbox_close, Mailbox)

return { open = open }
