-- Forgets dead letters that are older than they are kept.
-- KEYS  1 dead ids (zset: id -> ms)  2 dead messages (hash: id -> bytes)  3 why they died (hash: id -> JSON)
-- ARGV  1 ms, the latest that is too old
-- Reply how many were forgotten.
local count = 0
while true do
    local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1000)
    if #ids == 0 then
        return count
    end
    redis.call('HDEL', KEYS[2], unpack(ids))
    redis.call('HDEL', KEYS[3], unpack(ids))
    redis.call('ZREM', KEYS[1], unpack(ids))
    count = count + #ids
end
