-- Takes back what a dead worker held of a queue.
-- KEYS  1 the queue (list of ids)   2 its messages (hash: id -> bytes)   3 ids the dead one held (set)
--       4 its inbox (list of ids)   5 dead ids (zset: id -> ms)          6 dead messages (hash: id -> bytes)
--       7 why they died (hash: id -> JSON)                               8 returned ids (hash: id -> "returns deaths started")
-- ARGV  1 now, ms  2 deaths while running after which a message is dead, 0 for never
--       3 the reason for those (JSON)  4 milliseconds for which reasons are kept
-- Reply how many went back, how many are dead
-- Invariants  An id is in the queue, or with the dead, before it is no longer held. Deaths count only for
-- messages that are known to have been running: those noted as started after an earlier return.
redis.call('PERSIST', KEYS[1])
local inbox = redis.call('LRANGE', KEYS[4], 0, -1)
for i = #inbox, 1, -1 do
    redis.call('LPUSH', KEYS[1], inbox[i])
end
redis.call('DEL', KEYS[4])

local most = tonumber(ARGV[2])
local back, dead = #inbox, 0
for _, id in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    local data = redis.call('HGET', KEYS[2], id)
    if data then
        local returns, deaths, started = 0, 0, 0
        local known = redis.call('HGET', KEYS[8], id)
        if known then
            returns, deaths, started = string.match(known, '(%d+) (%d+) (%d+)')
            deaths = tonumber(deaths) + tonumber(started)
        end
        if most > 0 and deaths >= most then
            redis.call('HSET', KEYS[6], id, data)
            redis.call('ZADD', KEYS[5], ARGV[1], id)
            redis.call('HSET', KEYS[7], id, ARGV[3])
            redis.call('PEXPIRE', KEYS[7], ARGV[4])
            redis.call('HDEL', KEYS[2], id)
            redis.call('HDEL', KEYS[8], id)
            dead = dead + 1
        else
            redis.call('HSET', KEYS[8], id, string.format('%d %d 0', tonumber(returns) + 1, deaths))
            redis.call('RPUSH', KEYS[1], id)
            back = back + 1
        end
    end
    redis.call('SREM', KEYS[3], id)
end
return {back, dead}
