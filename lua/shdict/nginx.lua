-- SPDX-License-Identifier: BSD-2-Clause
-- shdict/nginx.lua - lua_shared_dict zones as dicts of a segment.
--
-- OWNS   the segment of this nginx: which one it is, when it is made, when it
--        is removed. lua/nginx/README.md is the manual.
-- HOLDS  one segment belongs to the processes of one running nginx, unless the
--        configuration names it: `nginx -t`, `nginx -s`, and a second nginx on
--        the same configuration do not touch it.
-- CRASH  what a killed master leaves is found unused by the next start.
--
-- When what happens. ngx_lua makes a Lua VM while the configuration is read,
-- in the process that is or becomes the master:
--
--   start            a fresh segment; every zone is made at once
--   HUP              this process holds the segment already: the same one
--   USR2             the parent maps it: the same one
--   fork of workers  the library's handler opens the file again in the child,
--                    which has the master's rights still: the file stays the
--                    master's, mode 0600, whatever user the workers run as
--   VM in a worker   (lua_code_cache off) it is held there as well
--   end of a VM      in a master, once nobody uses the segment: its name goes
--
-- Who uses a segment is told by a shared flock on a descriptor that the master
-- opens and the workers inherit: it lasts exactly as long as any of them does.

local ffi = require "ffi"
local shdict = require "shdict"
local dicts = require "shdict_dict"
local settings_of = require "shdict.nginx_settings"

local fail = settings_of.fail
local C = ffi.C

-- Under names of our own, so that they fit beside what others declare.
ffi.cdef [[
uintptr_t shdict_ngx_process __asm__("ngx_process");
uintptr_t shdict_ngx_test_config __asm__("ngx_test_config");
uintptr_t shdict_ngx_inherited __asm__("ngx_inherited");
int shdict_ngx_quit __asm__("ngx_quit");
int shdict_ngx_terminate __asm__("ngx_terminate");
int shdict_ngx_argc __asm__("ngx_argc");
char **shdict_ngx_argv __asm__("ngx_argv");
int shdict_c_open(const char *path, int flags, ...) __asm__("open");
int shdict_c_close(int fd) __asm__("close");
int shdict_c_flock(int fd, int operation) __asm__("flock");
int shdict_c_getppid(void) __asm__("getppid");
int shdict_c_poll(void *fds, unsigned long n, int timeout_ms) __asm__("poll");
struct shdict_c_statvfs {
    unsigned long bsize, frsize;
    uint64_t blocks, bfree, bavail, files, ffree, favail;
    unsigned long rest[64];
};
struct shdict_c_statx {
    uint32_t head[8];
    uint64_t ino;
    uint32_t middle[24];
    uint32_t dev_major, dev_minor;
    uint32_t rest[28];
};
int shdict_c_statx(int directory, const char *path, int flags,
                   unsigned mask, struct shdict_c_statx *out)
    __asm__("statx");
int shdict_c_statvfs(const char *path, struct shdict_c_statvfs *out)
    __asm__("statvfs");
]]

-- What lies there may be anybody's: no link is followed, no pipe waited for.
local O_RDONLY, O_NONBLOCK, O_CLOEXEC = 0, 0x800, 0x80000
local O_NOFOLLOW = ffi.arch == "arm64" and 0x8000 or 0x20000
local AT_FDCWD, AT_SYMLINK_NOFOLLOW, STATX_INO = -100, 0x100, 0x100
local LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN = 1, 2, 4, 8
local ENOENT = 2

-- The values of ngx_process.
local SINGLE, MASTER, SIGNALLER = 0, 1, 2

local TMPFS = "/dev/shm"
local FILE_PREFIX = TMPFS .. "/shdict-"
local INSTANCES_MAX = 64
local STARTERS_WAIT_MS = 2000
local RESERVE_FROM = 65536
local RESERVE = 67108864
local DICT_NAME_MAX = 63

local function log(level, ...)
    ngx.log(level, "shdict: ", ...)
end

-- ---- the name of this nginx's segment -----------------------------------

-- The values of -p and -c, as nginx reads its command line.
local function command_line()
    local found = {}
    local argc, argv = C.shdict_ngx_argc, C.shdict_ngx_argv
    local i = 1
    while i < argc do
        local word = ffi.string(argv[i])
        local at = word:sub(1, 1) == "-" and 2 or #word + 1
        while at <= #word do
            local letter = word:sub(at, at)
            at = at + 1
            if letter:find("[pcgse]") then
                local value = word:sub(at)
                if value == "" and i + 1 < argc then
                    i = i + 1
                    value = ffi.string(argv[i])
                end
                found[letter] = value
                at = #word + 1
            end
        end
        i = i + 1
    end
    return found.p, found.c
end

-- "nginx" for the one that is started without -p and -c, else with the path of
-- its configuration: what is left when two get the same is the number that
-- acquire() appends.
local function instance_name()
    local prefix, configuration = command_line()
    if not prefix and not configuration then
        return "nginx"
    end
    local path = configuration or ""
    if path:sub(1, 1) ~= "/" then
        path = ngx.config.prefix() .. path
    end
    path = path:gsub("^/+", ""):gsub("/+$", ""):gsub("/+", "-")
               :gsub("[^%w._-]", "_")
    return "nginx-" .. path:sub(-150)
end

local function candidate(name, number)
    return number == 1 and name or name .. "." .. number
end

-- ---- who uses it --------------------------------------------------------

-- One nginx at a time decides what is used and what is not. If somebody sits
-- on the lock (anybody may), it is done without after a while.
local function one_at_a_time(decide, ...)
    local fd = C.shdict_c_open(TMPFS, O_RDONLY + O_CLOEXEC)
    local waited = 0
    while fd >= 0 and C.shdict_c_flock(fd, LOCK_EX + LOCK_NB) ~= 0
        and waited < STARTERS_WAIT_MS do
        C.shdict_c_poll(nil, 0, 10)
        waited = waited + 10
    end
    local ok, result, detail = pcall(decide, ...)
    if fd >= 0 then
        C.shdict_c_close(fd)
    end
    if not ok then
        error(result, 0)
    end
    return result, detail
end

-- "absent", "used" (or not ours to judge), or "left" by somebody.
local function state_of(name)
    local fd = C.shdict_c_open(FILE_PREFIX .. name, O_RDONLY + O_NONBLOCK
                                                    + O_CLOEXEC + O_NOFOLLOW)
    if fd < 0 then
        return ffi.errno() == ENOENT and "absent" or "used"
    end
    local free = C.shdict_c_flock(fd, LOCK_EX + LOCK_NB) == 0
    C.shdict_c_close(fd)
    return free and "left" or "used"
end

local function mark_used(segment)
    local fd, err = segment:fd()
    if not fd or C.shdict_c_flock(fd, LOCK_SH + LOCK_NB) ~= 0 then
        fail("cannot mark the segment as used: ", err or "flock failed")
    end
    return segment
end

-- The device and inode of the segment's file, as /proc/PID/maps has them; its
-- path does not tell: it is mapped before it has its name.
local function identity(name)
    local st = ffi.new("struct shdict_c_statx")
    if C.shdict_c_statx(AT_FDCWD, FILE_PREFIX .. name, AT_SYMLINK_NOFOLLOW,
                        STATX_INO, st) ~= 0 then
        return nil
    end
    return ("%02x:%02x %d"):format(st.dev_major, st.dev_minor,
                                   tonumber(st.ino))
end

-- What that process ("self", or a pid) maps, as a set of identities.
local function mapped_by(process)
    local set = {}
    local file = io.open("/proc/" .. process .. "/maps", "rb")
    for line in file and file:lines() or function() end do
        set[line:match("^%S+ %S+ %S+ (%x+:%x+ %d+)") or ""] = true
    end
    if file then
        file:close()
    end
    return set
end

-- The segment of the process that became this one, or of its master: another
-- copy of the library (a newer one, after an upgrade) may be the one that holds
-- it here; a new binary is the child of the master it takes over from.
local function shared_by(process, name, options)
    local mapped = mapped_by(process)
    for i = 1, INSTANCES_MAX do
        local tried = candidate(name, i)
        local id = identity(tried)
        if id and mapped[id] then
            local segment, err = shdict.open(tried, options)
            if segment then
                return mark_used(segment), tried
            end
            log(ngx.ERR, "cannot share segment \"", tried, "\" with the ",
                "running nginx, and begins with an empty one: ", err)
        end
    end
end

local function made(name, options)
    local o = { exclusive = true }
    for key, value in pairs(options) do
        o[key] = value
    end
    return shdict.open(name, o)
end

-- A segment that nobody uses, under the first name that is to be had.
local function unused(name, options, keep)
    local err
    for i = 1, INSTANCES_MAX do
        local tried = candidate(name, i)
        local state = state_of(tried)
        local segment
        if state == "left" and keep then
            segment, err = shdict.open(tried, options)
            if not segment then
                log(ngx.ERR, "cannot keep segment \"", tried, "\", and ",
                    "begins with an empty one: ", err)
            end
        end
        if state == "left" and not segment then
            state, err = shdict.destroy(tried)
            state = state and "absent" or "used"
        end
        if state == "absent" then
            segment, err = made(tried, options)
        end
        if segment then
            if i > 1 then
                log(ngx.WARN, "segment \"", name, "\" is in use by another ",
                    "nginx, or by workers of a killed one; this one uses \"",
                    tried, "\"")
            end
            return mark_used(segment), tried
        end
        if state == "absent" then
            fail("cannot make segment \"", tried, "\": ", err)
        end
    end
    fail("segments \"", name, "\" to \"", candidate(name, INSTANCES_MAX),
         "\" are all in use", err and ": " .. err or "")
end

-- The segment of this nginx, and its name.
local function acquire(settings)
    local options = settings.options or {}
    local process = tonumber(C.shdict_ngx_process)
    local named = settings.segment
    local name = named or instance_name()
    local segment, used_name, err
    for i = 1, named and 1 or INSTANCES_MAX do
        used_name = candidate(name, i)
        segment = shdict.open(used_name, { held = true })
        if segment then
            return segment, used_name
        end
    end
    if process ~= SINGLE and process ~= MASTER then
        fail("this worker does not hold segment \"", name, "\"")
    end
    if named then
        segment, err = shdict.open(name, options)
        if not segment then
            fail("cannot open segment \"", name, "\": ", err)
        end
        return segment, name
    end
    segment, used_name = shared_by("self", name, options)
    if not segment and C.shdict_ngx_inherited ~= 0 then
        segment, used_name = shared_by(C.shdict_c_getppid(), name, options)
    end
    if not segment then
        segment, used_name = one_at_a_time(unused, name, options,
                                           settings.keep)
    end
    return segment, used_name
end

-- ---- removing it --------------------------------------------------------

local function remove(name)
    if state_of(name) == "left" then
        shdict.destroy(name)
    end
end

-- Runs when the VM ends: in a worker, in a master that has read a new
-- configuration or that gave one up, and in a master that ends. Only there is
-- nobody left who uses the segment.
local function remove_at_end(segment, name)
    local ending = newproxy(true)
    getmetatable(ending).__gc = function()
        local process = tonumber(C.shdict_ngx_process)
        -- A single process ends with the VMs of its earlier configurations,
        -- which would use it still.
        if process == SINGLE
            and C.shdict_ngx_quit + C.shdict_ngx_terminate ~= 0 then
            C.shdict_c_flock(segment:fd() or -1, LOCK_UN)
        end
        segment:close()
        if process == SINGLE or process == MASTER then
            one_at_a_time(remove, name)
        end
    end
    return ending
end

-- ---- zones --------------------------------------------------------------

local function resize(dict, name, to)
    local from = dict:capacity()
    if from == to then
        return
    end
    local ok, err, code = dict:resize(to)
    if ok then
        log(ngx.NOTICE, "zone \"", name, "\" resized from ", from, " to ", to,
            " bytes")
    elseif code == "SHD_BUSY" then
        log(ngx.NOTICE, "zone \"", name, "\" is being resized by another ",
            "worker: ", err)
    else
        log(ngx.ERR, "zone \"", name, "\" has ", dict:capacity(), " bytes, ",
            "and its data: it could not be resized to ", to, ": ", err)
    end
end

-- The configuration that is being read may be given up yet, and then nothing
-- must have happened: so its first user, in init_by_lua or in a worker, does
-- the resizing. A worker that comes after finds it done.
local function resize_before_use(dict, name, size)
    local from = dict:capacity()
    if from == size then
        return
    end
    if not dict.resize then
        log(ngx.ERR, "zone \"", name, "\" keeps its ", from, " bytes and its ",
            "data: this version cannot resize it to the ", size, " of the ",
            "configuration; it has them when nginx has been stopped and ",
            "started")
        return
    end
    dicts.before_use(dict, function()
        resize(dict, name, size)
    end)
end

-- The name of a zone's dict: its own, but for what a dict's name cannot have
-- (a slash, a control byte, more than 63 bytes). Different zones have different
-- ones then too: a hash of the zone's name follows.
local function dict_name(zone)
    if #zone <= DICT_NAME_MAX and not zone:find("[%c/]") then
        return zone
    end
    local hash = 5381
    for i = 1, #zone do
        hash = (hash * 33 + zone:byte(i)) % 2 ^ 32
    end
    local text = zone:gsub("[%c/]", "_")
    return ("%s-%08x"):format(text:sub(1, 50), hash)
end

-- Address room for the sizes that later configurations may give a zone. The
-- library reserves as much for larger ones by itself; a smaller one has no page
-- to spare for it.
local function reserve(size)
    if size >= RESERVE_FROM and size < RESERVE then
        return RESERVE
    end
end

local function zone_open(segment, zone, size, options)
    local name = dict_name(zone)
    local o = { capacity = size, capacity_max = reserve(size) }
    for key, value in pairs(options or {}) do
        o[key] = value
    end
    local dict, err, code = segment:dict(name, o)
    if not dict and code == "SHD_NOMEM" then
        -- A segment of a small size: what the library reserves by itself.
        o.capacity_max = options and options.capacity_max
        dict, err, code = segment:dict(name, o)
    end
    if not dict and code == "SHD_MISMATCH" then
        dict, err = segment:dict(name)
        if dict then
            resize_before_use(dict, zone, size)
        end
    end
    if not dict then
        fail("cannot make zone \"", zone, "\" of ", size, " bytes: ", err)
    end
    return dict
end

-- A zone that is not configured any more may still be in use by workers that
-- are shutting down, and come back with the next HUP.
local function tell_removed(segment, segment_name, zones)
    local known = {}
    for zone in pairs(zones) do
        known[dict_name(zone)] = true
    end
    for _, object in ipairs(segment:objects() or {}) do
        if not known[object.name] then
            log(ngx.NOTICE, "zone \"", object.name, "\" is not configured any ",
                "more: its data stays until nginx stops; `shdict rm ",
                segment_name, " ", object.name, "` frees it now")
        end
    end
end

-- The memory of a full file system is missed when it is written to: so say at
-- the start that it will not do.
local function tell_room(path, bytes)
    local directory = path:match("^(.*)/[^/]*$")
    local fs = ffi.new("struct shdict_c_statvfs")
    if not directory or C.shdict_c_statvfs(directory, fs) ~= 0 then
        return
    end
    local room = tonumber(fs.bavail) * tonumber(fs.frsize)
    if room < bytes then
        log(ngx.WARN, directory, " has room for ", room, " bytes, the zones ",
            "may need ", bytes, ": stores will answer \"no memory\" when it ",
            "is full; enlarge it (docker: --shm-size), or choose a segment ",
            "elsewhere")
    end
end

local function chosen(shared, settings)
    local zones = {}
    local some = false
    for name, stock in pairs(shared) do
        if (not settings.zones or settings.zones[name])
            and not (settings.exclude and settings.exclude[name]) then
            zones[name] = stock:capacity()
            some = true
        end
    end
    for _, list in pairs { settings.zones or {}, settings.exclude or {} } do
        for name in pairs(list) do
            if not shared[name] then
                log(ngx.WARN, "the settings name zone \"", name,
                    "\", which is not configured")
            end
        end
    end
    return some and zones
end

local M = {}

-- Puts dicts of ours in the place of the chosen objects of `shared`, which is
-- ngx.shared. Raises what keeps nginx from starting, or from taking over a new
-- configuration.
function M.take_over(shared)
    local process = tonumber(C.shdict_ngx_process)
    -- A test of the configuration, and who only sends a signal, run no code
    -- that needs the data: they keep the stock zones, which are theirs alone.
    if C.shdict_ngx_test_config ~= 0 or process == SIGNALLER then
        return
    end
    local settings = settings_of.read()
    local zones = chosen(shared, settings)
    if not zones then
        return
    end
    local segment, name = acquire(settings)
    M.segment, M.segment_name = segment, name
    if not settings.segment and not settings.keep then
        M.ending = remove_at_end(segment, name)
    end
    local before = segment:info()
    local objects, bytes = {}, 0
    for zone, size in pairs(zones) do
        objects[zone] = zone_open(segment, zone, size,
                                  (settings.dicts or {})[zone])
        bytes = bytes + size
    end
    for zone, dict in pairs(objects) do
        shared[zone] = dict
    end
    if process == SINGLE or process == MASTER then
        -- Whoever starts in the background forks now and is gone: no worker.
        segment:leave()
        if not settings.segment then
            tell_removed(segment, name, zones)
        end
        tell_room(before.path, bytes - before.committed_bytes)
        log(ngx.INFO, "zones are in segment \"", name, "\" (", before.path,
            ")")
    end
end

return M
