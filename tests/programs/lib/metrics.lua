-- SPDX-License-Identifier: BSD-2-Clause
-- metrics.lua - counters, gauges and histograms of all workers, in a shared
-- dictionary, and their text in the format that Prometheus reads.
--
--     local metrics = metrics.new("metrics")
--     metrics:counter("requests", { "host" }):inc(1, { "a" })
--     metrics:histogram("seconds", {}, { 0.1, 1 }):observe(0.3, {})
--     metrics:text()

local M = {}

local Metrics = {}
Metrics.__index = Metrics

local Metric = {}
Metric.__index = Metric

function M.new(name)
    return setmetatable({ dict = ngx.shared[name], kinds = {} }, Metrics)
end

local function escaped(text)
    return (tostring(text):gsub('[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"',
                                             ["\n"] = "\\n" }))
end

local function full_name(name, names, values, more)
    local labels = {}
    for i, label in ipairs(names) do
        labels[i] = ('%s="%s"'):format(label, escaped(values[i]))
    end
    labels[#labels + 1] = more
    if #labels == 0 then
        return name
    end
    return name .. "{" .. table.concat(labels, ",") .. "}"
end

function Metrics:register(kind, name, labels, buckets)
    local metric = setmetatable({ dict = self.dict, name = name,
                                  labels = labels or {}, buckets = buckets },
                                Metric)
    self.kinds[name] = kind
    return metric
end

function Metrics:counter(name, labels)
    return self:register("counter", name, labels)
end

function Metrics:gauge(name, labels)
    return self:register("gauge", name, labels)
end

function Metrics:histogram(name, labels, buckets)
    return self:register("histogram", name, labels, buckets)
end

local function add(dict, key, by)
    -- A key of the first time is not expected to be there.
    local ok, err = dict:incr(key, by)
    if ok then
        return ok
    elseif err == "not found" then
        ok, err = dict:add(key, by)
        if not ok and err == "exists" then
            ok, err = dict:incr(key, by)
        end
    end
    if not ok then
        return nil, err
    end
    return ok
end

function Metric:inc(by, values)
    return add(self.dict, full_name(self.name, self.labels, values), by)
end

function Metric:set(value, values)
    return self.dict:set(full_name(self.name, self.labels, values), value)
end

function Metric:del(values)
    return self.dict:delete(full_name(self.name, self.labels, values))
end

function Metric:observe(value, values)
    for _, bound in ipairs(self.buckets) do
        if value <= bound then
            local le = ('le="%g"'):format(bound)
            local ok, err = add(self.dict, full_name(
                self.name .. "_bucket", self.labels, values, le), 1)
            if not ok then
                return nil, err
            end
        end
    end
    add(self.dict, full_name(self.name .. "_bucket", self.labels, values,
                             'le="+Inf"'), 1)
    add(self.dict, full_name(self.name .. "_count", self.labels, values), 1)
    return add(self.dict, full_name(self.name .. "_sum", self.labels, values),
               value)
end

function Metrics:text()
    local keys = self.dict:get_keys(0)
    table.sort(keys)
    local lines, described = {}, {}
    for _, key in ipairs(keys) do
        local value = self.dict:get(key)
        if value then -- else it was deleted in between
            local name = key:match("^[^{]+")
            local base = name:gsub("_bucket$", ""):gsub("_count$", "")
                :gsub("_sum$", "")
            local kind = self.kinds[name] or self.kinds[base]
            base = self.kinds[name] and name or base
            if kind and not described[base] then
                described[base] = true
                lines[#lines + 1] = ("# TYPE %s %s"):format(base, kind)
            end
            lines[#lines + 1] = ("%s %.17g"):format(key, value)
        end
    end
    return table.concat(lines, "\n") .. "\n"
end

return M
