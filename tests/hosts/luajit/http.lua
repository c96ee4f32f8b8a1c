-- SPDX-License-Identifier: BSD-2-Clause
--
-- http.lua - HTTP/1.1 on libuv (lua-luv), for one worker of many.
--
-- parse()  one request out of a byte buffer, strictly, within limits
-- serve()  accepts from a listening socket it may share with other workers;
--          keep-alive, pipelining, timeouts, and a drain that loses nothing
--
-- Strict means: what a proxy in front might read in another way is refused
-- (bare LF, folded lines, white space before a colon, two Content-Length,
-- Transfer-Encoding). Bodies come with Content-Length; a chunked request
-- gets 411, which RFC 9112 allows.

local uv = require "luv"

local http = {}

local find, match, sub, lower = string.find, string.match, string.sub,
                                string.lower
local format = string.format

http.limits = {
    header_bytes = 8192,   -- request line and headers: 414, 431
    header_lines = 100,    -- 431
    body_bytes = 65536,    -- 413
    request_s = 10,        -- from a request's first byte to its last: 408
    idle_s = 60,           -- between requests
    queue_bytes = 1048576, -- answers the client has not read yet: stop
                           -- reading its requests
}

local REASONS = {
    [200] = "OK", [201] = "Created", [202] = "Accepted",
    [204] = "No Content",
    [400] = "Bad Request", [404] = "Not Found",
    [405] = "Method Not Allowed", [408] = "Request Timeout",
    [411] = "Length Required", [413] = "Content Too Large",
    [414] = "URI Too Long", [429] = "Too Many Requests",
    [431] = "Request Header Fields Too Large",
    [500] = "Internal Server Error", [503] = "Service Unavailable",
    [505] = "HTTP Version Not Supported", [507] = "Insufficient Storage",
}

local TOKEN = "[%w!#$%%&'*+%-.^_`|~]+"
local REQUEST_LINE = "^(" .. TOKEN .. ") ([^%s%c]+) HTTP/(%d)%.(%d)$"
local HEADER_LINE = "^(" .. TOKEN .. "):[ \t]*(.-)[ \t]*$"

-- Headers that may come once only: two of them are an attack or a bug.
local ONCE = { host = true, ["content-length"] = true }

local function unescape(text)
    return (text:gsub("%%(%x%x)", function(hex)
        return string.char(tonumber(hex, 16))
    end))
end

-- Headers from first..last of buf. Returns the table, or nil and a status.
local function parse_headers(buf, first, last, limits)
    local headers, lines, pos = {}, 0, first
    while pos <= last do
        local eol = find(buf, "\r\n", pos, true)
        local name, value = match(sub(buf, pos, eol - 1), HEADER_LINE)
        if not name or find(value, "[%z\1-\8\10-\31\127]") then
            return nil, 400
        end
        lines = lines + 1
        if lines > limits.header_lines then
            return nil, 431
        end
        name = lower(name)
        if not headers[name] then
            headers[name] = value
        elseif ONCE[name] then
            return nil, 400
        else
            headers[name] = headers[name] .. ", " .. value
        end
        pos = eol + 2
    end
    return headers
end

local function has_token(list, token)
    return list and find("," .. lower(list):gsub("[ \t]", "") .. ",",
                         "," .. token .. ",", 1, true) ~= nil
end

-- Length of the body, or nil and a status.
local function body_length(headers, limits)
    if headers["transfer-encoding"] then
        return nil, headers["content-length"] and 400 or 411
    end
    local text = headers["content-length"]
    if not text then
        return 0
    end
    if not find(text, "^%d+$") then
        return nil, 400
    end
    -- a number of 30 digits is well formed, and too large
    local length = tonumber(text)
    if length > limits.body_bytes then
        return nil, 413
    end
    return length
end

-- Where the request at pos ends its headers: the position of the blank
-- line, false when more bytes are needed, nil and a status on an error.
local function find_head(buf, pos, limits)
    local stop = find(buf, "\r\n\r\n", pos, true)
    local length = (stop or #buf) - pos + 1
    if length > limits.header_bytes then
        local eol = find(buf, "\r\n", pos, true)
        local line = (eol or #buf) - pos + 1
        return nil, line > limits.header_bytes and 414 or 431
    end
    local bare = find(buf, "\n", pos, true)
    while bare and bare <= (stop or #buf) do
        if sub(buf, bare - 1, bare - 1) ~= "\r" then
            return nil, 400
        end
        bare = find(buf, "\n", bare + 1, true)
    end
    return stop or false
end

-- Parses the request that starts at pos of buf.
--   request, next_pos           a whole request
--   nil, nil, wants_continue    more bytes are needed
--   nil, status                 it cannot be one: answer, then close
function http.parse(buf, pos, limits)
    while sub(buf, pos, pos + 1) == "\r\n" do -- RFC 9112 2.2
        pos = pos + 2
    end
    if pos > #buf then
        return nil
    end
    local stop, status = find_head(buf, pos, limits)
    if not stop then
        return nil, status
    end

    local eol = find(buf, "\r\n", pos, true)
    local method, target, major, minor =
        match(sub(buf, pos, eol - 1), REQUEST_LINE)
    if not method then
        return nil, 400
    end
    if major ~= "1" then
        return nil, 505
    end
    target = match(target, "^https?://[^/?]+(/.*)$") or target
    if sub(target, 1, 1) ~= "/" then
        return nil, 400
    end

    local headers
    headers, status = parse_headers(buf, eol + 2, stop + 1, limits)
    if not headers then
        return nil, status
    end
    if minor ~= "0" and not headers.host then
        return nil, 400
    end
    local length
    length, status = body_length(headers, limits)
    if not length then
        return nil, status
    end
    if #buf < stop + 3 + length then
        return nil, nil, has_token(headers.expect, "100-continue")
    end

    local path, query = match(target, "^([^?#]*)%??([^#]*)")
    local connection = headers.connection
    local keep = not has_token(connection, "close") and
                 (minor ~= "0" or has_token(connection, "keep-alive"))
    return {
        method = method,
        path = unescape(path),
        query = query,
        headers = headers,
        body = sub(buf, stop + 4, stop + 3 + length),
        keep_alive = keep or false,
        minor = minor,
    }, stop + 4 + length
end

-- ---- a connection ------------------------------------------------------

local Connection = {}
Connection.__index = Connection

function Connection:close()
    if not self.tcp:is_closing() then
        self.tcp:close()
    end
    if not self.closed then
        self.closed = true
        self.server:forget(self)
    end
end

-- Says goodbye so that the client can read the last answer: a close with
-- unread bytes in the socket would be a reset, which may overtake it.
function Connection:linger()
    self.lingering = true
    self.buffer = ""
    self.deadline = uv.now() + 1000
    local ok = self.tcp:shutdown(function()
        if self.eof then
            self:close()
        end
    end)
    if not ok then
        self:close()
    end
end

function Connection:flush()
    local out = self.out
    if #out > 0 then
        self.out = {}
        self.tcp:write(out, function(err)
            if err then
                self:close()
            elseif self.blocked and not self.closed then
                self.blocked = false
                self:read_start()
                self:process()
            end
        end)
    end
    if self.last and not self.busy and not self.lingering then
        self:linger()
    end
end

-- Queues the answer to the request in hand. fields: header lines, each
-- with its CRLF, or nil.
function Connection:answer(request, status, body, fields)
    local drain = self.server.draining
    local keep = request and request.keep_alive and not drain
    local connection = ""
    if not keep then
        connection = "Connection: close\r\n"
        self.last = true
    elseif request.minor == "0" then
        connection = "Connection: keep-alive\r\n"
    end
    local length = status == 204 and "" or
                   format("Content-Length: %d\r\n", #body)
    local out = self.out
    out[#out + 1] = format("HTTP/1.1 %d %s\r\n%s%s%s\r\n", status,
                           REASONS[status] or "Unknown", length,
                           fields or "", connection)
    if body ~= "" and status ~= 204 and
       not (request and request.method == "HEAD") then
        out[#out + 1] = body
    end
end

function Connection:refuse(status)
    self:answer(nil, status, (REASONS[status] or "") .. "\n",
                "Content-Type: text/plain\r\n")
end

-- Hands one request to the handler. The answer may come at once or from a
-- later event; the next request of this connection waits for it, so that
-- pipelined answers keep their order.
function Connection:dispatch(request)
    self.busy = true
    local answered = false
    local function reply(status, body, fields)
        assert(not answered, "a request has one answer")
        answered = true
        self.busy = false
        if self.closed then
            return -- the client went away
        end
        self:answer(request, status, body, fields)
        if self.held then
            self.held = false
            self:read_start()
        end
        if not self.processing then
            self:process()
        end
    end
    local ok, err = xpcall(self.server.handler, debug.traceback, request,
                           reply, self.peer)
    if not ok then
        io.stderr:write("request failed: ", tostring(err), "\n")
        if not answered then
            reply(500, "internal error\n")
        end
    end
end

-- Answers what has arrived, as far as it goes.
function Connection:process()
    if self.processing or self.lingering then
        return
    end
    self.processing = true
    local pos = 1
    while not self.busy and not self.last and not self.blocked do
        local request, next_pos, wants_continue =
            http.parse(self.buffer, pos, self.server.limits)
        if request then
            pos = next_pos
            self.continued = false
            self.deadline = nil
            self:dispatch(request)
        elseif next_pos then
            self:refuse(next_pos)
        else
            if wants_continue and not self.continued then
                self.continued = true
                self.out[#self.out + 1] = "HTTP/1.1 100 Continue\r\n\r\n"
            end
            break
        end
        if #self.out > 64 then
            self:flush()
        end
        self:throttle()
    end
    if pos > 1 then
        self.buffer = sub(self.buffer, pos)
    end
    self.processing = false
    if not self.closed then
        self:set_deadline()
        self:flush()
    end
end

-- A client that sends requests and reads no answers is not read from.
function Connection:throttle()
    local queued = self.tcp:get_write_queue_size()
    if queued > self.server.limits.queue_bytes then
        self.blocked = true
        self.tcp:read_stop()
    end
end

function Connection:set_deadline()
    local limits, now = self.server.limits, uv.now()
    if self.busy then
        self.deadline = nil -- the handler has its own bounds
    elseif self.buffer == "" then
        self.partial = false
        self.deadline = now + (self.server.draining and
                               self.server.grace_ms or
                               limits.idle_s * 1000)
    elseif not self.partial or not self.deadline then
        self.partial = true -- from the first byte; more bytes buy no time
        self.deadline = now + limits.request_s * 1000
    end
end

function Connection:expire()
    if self.partial and not self.lingering then
        self.partial = false
        self:refuse(408)
        self:flush()
    else
        self:close()
    end
end

function Connection:read(err, chunk)
    if err then
        self:close()
    elseif not chunk then
        -- End of input: what was asked before still gets its answer.
        self.eof = true
        self.last = true
        if self.lingering then
            self:close()
        else
            self:flush()
        end
    elseif not self.lingering then
        self.buffer = self.buffer == "" and chunk or self.buffer .. chunk
        if not self.busy then
            self:process()
        elseif #self.buffer > self.server.limits.queue_bytes then
            self.held = true -- until the request in hand is answered
            self.tcp:read_stop()
        end
    end
end

function Connection:read_start()
    self.tcp:read_start(function(err, chunk)
        self:read(err, chunk)
    end)
end

-- ---- the server --------------------------------------------------------

local Server = {}
Server.__index = Server

function Server:forget(connection)
    if self.connections[connection] then
        self.connections[connection] = nil
        self.count = self.count - 1
    end
    if self.draining and self.count == 0 then
        self:finish()
    end
end

function Server:finish()
    if not self.finished then
        self.finished = true
        self.sweeper:close()
        self.on_drained()
    end
end

function Server:accept()
    local tcp = uv.new_tcp()
    if not self.listener:accept(tcp) then
        tcp:close()
        return
    end
    tcp:nodelay(true)
    local peer = tcp:getpeername()
    local connection = setmetatable({
        server = self,
        tcp = tcp,
        peer = peer and peer.ip or "unknown",
        buffer = "",
        out = {},
    }, Connection)
    self.connections[connection] = true
    self.count = self.count + 1
    connection:set_deadline()
    connection:read_start()
end

function Server:sweep()
    local now, late = uv.now(), {}
    for connection in pairs(self.connections) do
        if connection.deadline and connection.deadline <= now then
            late[#late + 1] = connection
        end
    end
    for _, connection in ipairs(late) do
        connection:expire()
    end
end

-- Stops accepting (the socket stays open in the other workers), and answers
-- each connection once more, with `Connection: close`. One that stays silent
-- for grace_ms is closed. Then calls on_drained.
function Server:drain(grace_ms, on_drained)
    if self.draining then
        return
    end
    self.draining = true
    self.grace_ms = grace_ms
    self.on_drained = on_drained
    self.listener:close()
    self.sweeper:set_repeat(20)
    self.sweeper:again()
    for connection in pairs(self.connections) do
        connection:set_deadline()
    end
    if self.count == 0 then
        self:finish()
    end
end

-- options.fd or options.host and options.port; options.handler(request,
-- reply, peer_address) calls reply(status, body, header_lines) once, now or
-- later; options.limits overrides http.limits.
function http.serve(options)
    -- Workers that share a socket: take one connection at a time, so that
    -- a burst is spread over all.
    uv.os_setenv("UV_TCP_SINGLE_ACCEPT", "1")
    local listener = uv.new_tcp()
    if options.fd then
        assert(listener:open(options.fd))
    else
        assert(listener:bind(options.host, options.port))
    end
    local self = setmetatable({
        handler = options.handler,
        limits = setmetatable(options.limits or {},
                              { __index = http.limits }),
        listener = listener,
        connections = {},
        count = 0,
        sweeper = uv.new_timer(),
    }, Server)
    assert(listener:listen(1024, function(err)
        if not err then
            self:accept()
        end
    end))
    self.sweeper:start(250, 250, function()
        self:sweep()
    end)
    return self
end

return http
