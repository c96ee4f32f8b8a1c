-- SPDX-License-Identifier: BSD-2-Clause
-- shdict_topic.lua - topics and subscriptions to them.
--
-- OWNS   a buffer for what is read, as large as the largest batch so far, for
--        each subscription.
-- HOLDS  what fails returns nil, a sentence, and the code's name; no answer in
--        time is nil, "timeout".
-- CRASH  see shdict.h: an event is published for all or for nobody.

local ffi = require "ffi"
local library = require "shdict_library"
local handles = require "shdict_handles"

local ffi_new = ffi.new
local ffi_string = ffi.string

local lib = library.lib
local failed = library.failed
local invalid = library.invalid
local wait_ms = handles.wait_ms

local OK = lib.SHD_OK
local NOTFOUND = lib.SHD_NOTFOUND
local SPACE = lib.SHD_SPACE

local BATCH = 256

local read_info = library.struct_reader("shd_topic_info")
local read_cursor = library.struct_reader("shd_cursor_info")

local Topic = {}
Topic.__index = Topic
local Subscription = {}
Subscription.__index = Subscription

local topics, subscriptions -- kinds of handles

local function topic_of(self)
    return topics.of(self)
end

local function subscription_of(self)
    return subscriptions.of(self)
end

local seq_out = ffi_new("uint64_t[1]")
local count_out = ffi_new("uint32_t[1]")
local missed_out = ffi_new("uint64_t[1]")
local events = ffi_new("struct shd_event[?]", BATCH)

-- ---- topics --------------------------------------------------------------

local OPTIONS = {
    create = library.of_type("boolean"),
    capacity = library.size,
    lossless = library.of_type("boolean"),
    subscribers_max = library.whole(1, 65535)
}

-- segment:topic(name, options): made if it is not there, unless create is
-- false.
local function open(segment, self, name, options)
    local checked, err = library.options_of(OPTIONS, options)
    if not checked then
        return invalid(err)
    end
    err = handles.name_error("topic", name)
    if err then
        return invalid(err)
    end
    local o = ffi_new("struct shd_topic_options")
    o.struct_size = ffi.sizeof(o)
    o.flags = checked.create == false and 0 or lib.SHD_TOPIC_CREATE
    if checked.lossless then
        o.flags = o.flags + lib.SHD_TOPIC_LOSSLESS
    end
    o.capacity_bytes = checked.capacity or 0
    o.subscribers_max = checked.subscribers_max or 0
    local out = ffi_new("shd_topic *[1]")
    local code = lib.shd_topic_open(segment, name, o, out)
    if code ~= OK then
        return failed(code)
    end
    return topics.adopt(out[0], self)
end

-- The event's number. timeout, in seconds, is for lossless topics.
function Topic.publish(self, data, timeout)
    local topic = topic_of(self)
    if type(data) ~= "string" then
        data = tostring(data)
    end
    local ms, err = wait_ms(timeout)
    if not ms then
        return invalid(err)
    end
    local code = lib.shd_topic_publish(topic, data, #data, ms, seq_out)
    if code ~= OK then
        return failed(code)
    end
    return tonumber(seq_out[0])
end

-- An array of the events' numbers; if not all were published: nil, why, the
-- code, and the numbers of the first ones, which were.
function Topic.publish_many(self, events_, timeout)
    local topic = topic_of(self)
    if type(events_) ~= "table" then
        return invalid("bad events: table expected, got " .. type(events_))
    end
    local ms, err = wait_ms(timeout)
    if not ms then
        return invalid(err)
    end
    local n = #events_
    local kept = {}
    local data = ffi_new("const void *[?]", n)
    local lens = ffi_new("size_t[?]", n)
    local seqs = ffi_new("uint64_t[?]", n)
    for i = 1, n do
        local text = events_[i]
        if type(text) ~= "string" then
            text = tostring(text)
        end
        kept[i] = text
        data[i - 1] = ffi.cast("const char *", text)
        lens[i - 1] = #text
    end
    local code = lib.shd_topic_publish_many(topic, n, data, lens, ms, seqs,
                                            count_out)
    local numbers = {}
    for i = 1, count_out[0] do
        numbers[i] = tonumber(seqs[i - 1])
    end
    if code ~= OK then
        local _, text, name = failed(code)
        return nil, text, name, numbers
    end
    return numbers
end

local SUBSCRIBE_OPTIONS = {
    name = library.of_type("string"),
    from = function(option, value)
        if value ~= "now" and value ~= "oldest" then
            return nil, ("bad %s: \"now\" or \"oldest\" expected, got %s")
                        :format(option, tostring(value))
        end
        return value
    end
}

function Topic.subscribe(self, options)
    local topic = topic_of(self)
    local checked, err = library.options_of(SUBSCRIBE_OPTIONS, options)
    if not checked then
        return invalid(err)
    end
    if checked.name then
        err = handles.name_error("cursor", checked.name)
        if err then
            return invalid(err)
        end
    end
    local out = ffi_new("shd_subscription *[1]")
    local code = lib.shd_topic_subscribe(topic, checked.name,
        checked.from == "oldest" and lib.SHD_FROM_OLDEST or lib.SHD_FROM_NOW,
        out)
    if code ~= OK then
        return failed(code)
    end
    -- The second field keeps the topic open.
    local subscription = subscriptions.adopt(out[0], self)
    subscription.size = 4096
    subscription.buffer = ffi_new("uint8_t[?]", subscription.size)
    subscription.missed = 0
    subscription.pending = {}
    return subscription
end

function Topic.forget(self, name)
    local topic = topic_of(self)
    local err = handles.name_error("cursor", name)
    if err then
        return invalid(err)
    end
    local code = lib.shd_topic_forget(topic, name)
    if code ~= OK then
        return failed(code)
    end
    return true
end

function Topic.info(self)
    local topic = topic_of(self)
    local info, code = read_info(function(out)
        return lib.shd_topic_info(topic, out)
    end)
    if not info then
        return failed(code)
    end
    info.lossless = info.lossless ~= 0
    return info
end

-- The names, and in a lossless topic all subscribers.
function Topic.cursors(self)
    local topic = topic_of(self)
    return handles.slots(read_cursor, function(slot, out)
        return lib.shd_topic_cursor(topic, slot, out)
    end)
end

function Topic.close(self)
    return topics.close(self)
end

-- ---- subscriptions -------------------------------------------------------

-- Fills `events` with up to `max`; OK, or a code. What was missed is added to
-- self.missed.
local function fetch(self, max, ms)
    local subscription = subscription_of(self)
    while true do
        local code = lib.shd_subscription_next(subscription, self.buffer,
                                               self.size, ms, events, max,
                                               count_out, missed_out)
        if code ~= OK and code ~= SPACE then
            return code
        end
        self.missed = self.missed + tonumber(missed_out[0])
        if code == SPACE then
            self.size = math.max(self.size * 2, tonumber(events[0].len))
            self.buffer = ffi_new("uint8_t[?]", self.size)
        else
            return OK
        end
    end
end

local function give_missed(self)
    local missed = self.missed
    self.missed = 0
    return missed
end

-- Up to `max` events (256), oldest first: an array of { data =, seq = }, and how
-- many were missed before the first of them. nil, "timeout": none.
function Subscription.batch(self, max, timeout)
    local ms, err = wait_ms(timeout)
    if not ms then
        return invalid(err)
    end
    max = max or BATCH
    if type(max) ~= "number" or not (max >= 1) then
        return invalid("bad max: a number from 1 expected")
    end
    max = math.min(max, BATCH)
    local code = fetch(self, max, ms)
    if code == NOTFOUND and self.missed == 0 then
        return nil, "timeout", "SHD_NOTFOUND"
    elseif code ~= OK and code ~= NOTFOUND then
        return failed(code)
    end
    local found = {}
    if code == OK then
        for i = 0, count_out[0] - 1 do
            found[i + 1] = {
                data = ffi_string(self.buffer + events[i].at, events[i].len),
                seq = tonumber(events[i].seq)
            }
        end
    end
    return found, give_missed(self)
end

-- One event: data, its number, how many were missed before it.
function Subscription.next(self, timeout)
    local ms, err = wait_ms(timeout)
    if not ms then
        return invalid(err)
    end
    repeat
        -- Something was missed, and nothing came after it yet: goes on.
        local code = fetch(self, 1, ms)
        if code == NOTFOUND then
            return nil, "timeout", "SHD_NOTFOUND"
        elseif code ~= OK then
            return failed(code)
        end
    until count_out[0] > 0
    return ffi_string(self.buffer + events[0].at, events[0].len),
           tonumber(events[0].seq), give_missed(self)
end

function Subscription.acknowledge(self)
    local code = lib.shd_subscription_acknowledge(subscription_of(self))
    if code ~= OK then
        return failed(code)
    end
    return true
end

-- true: the worker's bell will ring once there is something. false: there is.
function Subscription.arm(self)
    local code = lib.shd_subscription_arm(subscription_of(self))
    if code < 0 then
        return failed(code)
    end
    return code == OK
end

function Subscription.close(self)
    return subscriptions.close(self)
end

topics = handles.kind("shd_topic", lib.shd_topic_close, Topic)
subscriptions = handles.kind("shd_subscription", lib.shd_subscription_close,
                             Subscription)

return { open = open }
