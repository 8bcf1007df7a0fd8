-- Puts dead letters back into their queue, rewritten for a fresh start.
-- KEYS  1 dead ids (zset: id -> ms)  2 dead messages (hash: id -> bytes)  3 why they died (hash: id -> JSON)
--       4 the queue (list of ids)    5 its messages (hash: id -> bytes)
-- ARGV  dead id, new id, new bytes, ...
-- Reply how many were put back: those that were still dead.
-- Invariants  The new message is in its queue before the dead one goes.
local function demand(key, kind)
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
        return redis.error_reply('WRONGTYPE ' .. key .. ' should be a ' .. kind .. ' and is a ' .. found)
    end
end
local wrong = demand(KEYS[4], 'list') or demand(KEYS[5], 'hash')
if wrong then
    return wrong
end
local count = 0
for i = 1, #ARGV, 3 do
    if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
        redis.call('HSET', KEYS[5], ARGV[i + 1], ARGV[i + 2])
        redis.call('RPUSH', KEYS[4], ARGV[i + 1])
        redis.call('ZREM', KEYS[1], ARGV[i])
        redis.call('HDEL', KEYS[2], ARGV[i])
        redis.call('HDEL', KEYS[3], ARGV[i])
        count = count + 1
    end
end
return count
