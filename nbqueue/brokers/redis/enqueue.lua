-- Publishes messages.
-- KEYS  1 the queue (list of ids)  2 its messages (hash: id -> bytes)
-- ARGV  id, bytes, id, bytes, ...
-- Reply how many were published.
-- Invariants  Bytes are there before their id is in the list. A call that is sent again after a lost reply
-- publishes nothing twice: an id whose bytes wait already is left alone.
local function demand(key, kind)
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
        return redis.error_reply('WRONGTYPE ' .. key .. ' should be a ' .. kind .. ' and is a ' .. found)
    end
end
local wrong = demand(KEYS[1], 'list') or demand(KEYS[2], 'hash')
if wrong then
    return wrong
end

local ids = {}
for i = 1, #ARGV, 2 do
    if redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) == 1 then
        ids[#ids + 1] = ARGV[i]
    end
end
for first = 1, #ids, 1000 do
    redis.call('RPUSH', KEYS[1], unpack(ids, first, math.min(first + 999, #ids)))
end
return #ids
