-- SPDX-License-Identifier: BSD-2-Clause
-- rules.lua - the differences between the two dicts that are there on
-- purpose, each with its name, what README or contract says of it, and the
-- exact situation. Both answers have been found to be the right ones of their
-- sides' states (model.lua) before a rule is asked; a rule says why the
-- states may differ.
--
-- when(x): x.c the call, x.n it normalized (nil: it cannot be done), x.a and
-- x.b the answers of stock and ours, x.s and x.o what the two sides held
-- before: { expires, expired, over, flushed, flushed_all } or nil, x.s_gone
-- and x.o_gone whether the call has shown that it had been dropped, x.world,
-- x.now, x.floored (the original sweeps nothing), x.partly_flushed.

local rules = {}

local function rule(name, says, when)
    rules[#rules + 1] = { name = name, says = says, when = when, count = 0 }
end

local EXPIRED_SEEN_BY = { get_stale = true, ttl = true, expire = true }

local function is_not_found(method, got)
    return got[1] == nil and (method == "get_stale" and got.n == 1
                              or got.n == 2 and got[2] == "not found")
end

-- ---- what nobody can do ---------------------------------------------------

rule("a failed conversion names the C function",
     "README: where flags cannot be converted",
     function(x)
    local from = "'ngx_http_lua_ffi_shdict_%w+'"
    local short = "'ngx_lua_ffi_shdict_%w+'"
    return x.a.raised and x.b.raised
        and x.a[1]:find("^<library>: bad argument #%d+ to '[%w_]+' %(cannot")
        and x.a[1]:gsub(from, "F"):gsub(short, "F")
            == (x.b[1]:gsub("'shd_%w+'", "F"))
end)

rule("incr of what is no number raises in its caller",
     "README: the original in a line of its own",
     function(x)
    return x.c.m == "incr" and x.a.raised and x.b.raised
        and x.a[1] == "<library>: cannot convert 'nil' to 'double'"
        and x.b[1]:gsub("^program:2: ", "")
            == "cannot convert 'nil' to 'double'"
end)

rule("a wrong self of get_keys and flush_expired",
     "README: bad \"zone\" argument, as of the other methods",
     function(x)
    return (x.c.m == "get_keys" or x.c.m == "flush_expired") and x.c.odd_self
        and x.a.raised and x.b.raised
        and (x.a[1]:find("bad user data for the ngx_shm_zone_t pointer$")
             or x.a[1]:find("%(table expected, got %a+%)$")
             or x.a[1]:find("calling '[%w_]+' on bad self"))
        and x.b[1]:find("^%a*:?%d*:? ?bad \"zone\" argument$")
end)

-- ---- one key --------------------------------------------------------------

rule("the last millisecond of an entry",
     "README: an entry has expired when its time is reached",
     function(x)
    local o_has = x.o and not x.o_gone
    return x.n and x.n.key and x.s and x.s.expires == x.now
        and not x.s.expired
        and (o_has and x.o.expires == x.now and x.o.expired
             or not o_has and x.s.flushed)
end)

rule("the original freed an expired entry",
     "README: expired entries stay until their room is needed",
     function(x)
    return x.n and EXPIRED_SEEN_BY[x.n.m] and x.o and x.o.expired
        and not x.o.flushed_all and not x.floored
        and (x.s == nil or x.s_gone) and is_not_found(x.n.m, x.a)
end)

rule("5 ms after its end",
     "README: the original's ttl says not found just then",
     function(x)
    return x.n and x.n.m == "ttl" and x.s and x.s.expires == x.now - 5
        and x.o and x.o.expires == x.s.expires and x.a.n == 2
        and x.b.n == 1 and x.b[1] == -0.005
end)

rule("flush_expired(n) frees others",
     "README: flush_expired(n) frees any n of the expired",
     function(x)
    local s_has = x.s and not x.s_gone
    local o_has = x.o and not x.o_gone
    return x.n and EXPIRED_SEEN_BY[x.n.m] and (s_has or o_has)
        and not (s_has and not x.s.over)
        and not (o_has and not x.o.over)
        and (x.s and x.s.flushed or x.o and x.o.flushed)
        and (is_not_found(x.n.m, x.a) or is_not_found(x.n.m, x.b))
end)

rule("flush_all of the original frees three at once",
     "README: the original frees three at a flush_all",
     function(x)
    return x.n and EXPIRED_SEEN_BY[x.n.m] and x.o and x.o.expired
        and x.o.flushed_all and (x.s == nil or x.s_gone)
        and is_not_found(x.n.m, x.a)
end)

rule("how long ago flush_all ended it",
     "README: ttl counts from the flush_all, not from 1970",
     function(x)
    return x.n and x.n.m == "ttl" and x.s and x.o
        and x.s.flushed_all and x.o.flushed_all
        and x.a.n == 1 and x.b.n == 1 and x.a[1] < x.b[1] and x.b[1] < 0
end)

rule("an expiry after some 8,900 years",
     "README: an expiry after the year 10000 is none",
     function(x)
    return x.n and x.n.m == "ttl" and x.s and x.o and not x.o.expires
        and x.s.expires and x.s.expires > 2 ^ 48 - 1 and x.b[1] == 0
end)

-- ---- the whole dict -------------------------------------------------------

rule("a count of more than 2^31",
     "README: the original takes it for an int",
     function(x)
    local n = x.n and x.n.int and x.a[1]
    return n and (x.n.m == "get_keys" and #n <= 1
                  or x.n.m == "flush_expired" and n <= 1)
end)

rule("get_keys of a dict of many shards",
     "README: in a dict of many shards one order within each",
     function(x)
    return x.n and x.n.m == "get_keys" and x.world.sharded
        and #x.a[1] == #x.b[1]
end)

rule("get_keys in order of use",
     "README: in order of the last write",
     function(x)
    return x.n and x.n.m == "get_keys" and not x.world.small
        and #x.a[1] == #x.b[1]
end)

rule("flush_expired(n) left others",
     "README: flush_expired(n) frees any n of the expired",
     function(x)
    return x.n and x.n.m == "flush_expired" and x.partly_flushed
end)

rule("flush_expired finds what the original has freed before",
     "README: expired entries stay until their room is needed",
     function(x)
    return x.n and x.n.m == "flush_expired"
        and not x.floored and not x.partly_flushed
        and (x.world.small or x.a[1] <= x.b[1])
end)

rule("free_space",
     "contract: counts real free bytes, not only wholly free pages",
     function(x)
    return x.n and x.n.m == "free_space"
end)

-- ---- where there is no room for all ---------------------------------------

rule("other entries were evicted",
     "contract: another overhead, another order of eviction",
     function(x)
    return x.world.small and x.n
        and (x.n.key and ((x.s == nil or x.s_gone)
                          ~= (x.o == nil or x.o_gone))
             or x.n.m == "get_keys")
end)

rule("a store evicted where the other did not",
     "contract: another overhead",
     function(x)
    return x.world.small and x.n and x.n.key and x.a.n == 3 and x.b.n == 3
        and (x.a[1] == x.b[1] or x.a[1] ~= x.a[1] and x.b[1] ~= x.b[1])
        and x.a[2] == x.b[2]
        and type(x.a[3]) == "boolean" and type(x.b[3]) == "boolean"
end)

local function no_memory(got)
    return got[2] == "no memory"
end

rule("a plain store that fits does not fail",
     "contract: the original gives up after 30 evictions",
     function(x)
    return x.world.small and x.n and no_memory(x.a) and not no_memory(x.b)
        and x.n.m ~= "lpush" and x.n.m ~= "rpush"
        and x.n.m ~= "safe_set" and x.n.m ~= "safe_add"
end)

rule("what evicts nothing has room where the other has none",
     "contract: another overhead",
     function(x)
    return x.world.small and x.n and no_memory(x.a) ~= no_memory(x.b)
        and (x.n.m == "lpush" or x.n.m == "rpush" or x.n.m == "safe_set"
             or x.n.m == "safe_add")
end)

rule("a list's header does not fit",
     "contract: nil, where the original returns false",
     function(x)
    return x.world.small and x.n and (x.n.m == "lpush" or x.n.m == "rpush")
        and no_memory(x.a) and no_memory(x.b)
        and x.a[1] == false and x.b[1] == nil
end)

return rules
