-- Moves messages that are due, rewritten, from the delayed ones into their queue.
-- KEYS  1 ids this consumer holds of the `.DQ` (set)  2 the delayed messages (hash: id -> bytes)
--       3 returned ids of the `.DQ` (hash)  4 the queue (list of ids)  5 its messages (hash: id -> bytes)
-- ARGV  old id, new id, new bytes, old id, new id, new bytes, ...
-- Reply how many were moved: those that the consumer still holds.
-- Invariants  The new message is in its queue before the old one goes.
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
redis.call('PERSIST', KEYS[1])
local moved = 0
for i = 1, #ARGV, 3 do
    if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1 then
        redis.call('HSET', KEYS[5], ARGV[i + 1], ARGV[i + 2])
        redis.call('RPUSH', KEYS[4], ARGV[i + 1])
        redis.call('SREM', KEYS[1], ARGV[i])
        redis.call('HDEL', KEYS[2], ARGV[i])
        redis.call('HDEL', KEYS[3], ARGV[i])
        moved = moved + 1
    end
end
return moved
