-- Changes a counter by an amount, if it stays within bounds, and renews its time.
--
-- KEYS[1]  the counter: a decimal string, absent counts as 0
-- KEYS[2…] counters whose sum plus the amount may not exceed the maximum either
-- ARGV[1]  the amount; negative to take
-- ARGV[2]  the minimum, or "" for none
-- ARGV[3]  the maximum, or "" for none
-- ARGV[4]  the time to live in ms
-- Returns  1 when it was changed, 0 when it was not.
--
-- Invariants: the only write is the last command, so there is nothing to undo; values stay exact up to 2^53
-- and are written as compatible programs write them.
local amount = tonumber(ARGV[1])
local minimum, maximum = tonumber(ARGV[2]), tonumber(ARGV[3])

local function count(key)
    return tonumber(redis.call('GET', key) or 0)
end

local value = count(KEYS[1])
if not value then
    return redis.error_reply('ERR the value at ' .. KEYS[1] .. ' is not a number')
end
value = value + amount
if (minimum and value < minimum) or (maximum and value > maximum) then
    return 0
end
if #KEYS > 1 then
    local sum = amount
    for i = 2, #KEYS do
        sum = sum + (count(KEYS[i]) or 0)
    end
    if sum > maximum then
        return 0
    end
end
redis.call('SET', KEYS[1], string.format('%.0f', value), 'PX', ARGV[4])
return 1
