-- SPDX-License-Identifier: BSD-2-Clause
-- Every call of contract_cases.lua answers as ngx.shared.DICT did when
-- record_original ran it.

package.path = (debug.getinfo(1, "S").source:match("^@(.*/)") or "./")
    .. "?.lua;" .. package.path

local support = require "support"
local contract = require "contract_cases"
local original = require "original"

describe("the contract of ngx.shared.DICT:", function()
    local dict

    setup(function()
        dict = support.dict { capacity = 1048576 }
    end)
    teardown(support.clean)

    for _, case in ipairs(contract.cases) do
        it(case.name, function()
            local lines = contract.run(case, dict, support.sleep)
            assert.is_table(original[case.name])
            assert.same(original[case.name], lines)
        end)
    end

    it("has an answer for no case that is not run", function()
        for name in pairs(original) do
            assert.is_true(contract.cases[name])
        end
    end)

    it("would see a difference", function()
        local changed = setmetatable({
            get = function(_, ...)
                local value = dict:get(...)
                return value, nil
            end
        }, { __index = function(_, name)
            return function(_, ...)
                return dict[name](dict, ...)
            end
        end })
        for _, case in ipairs(contract.cases) do
            if case.name == "get: what is not there" then
                local lines = contract.run(case, changed, support.sleep)
                assert.is_not.same(original[case.name], lines)
            end
        end
    end)
end)
