-- Takes delayed messages that are due.
-- KEYS  1 delayed ids (zset: id -> due, ms)  2 their messages (hash: id -> bytes)  3 ids this consumer holds (set)
--       4 nearest due of each queue (zset)      5 when each broker was last heard of (zset: broker id -> ms)
-- ARGV  1 now, ms  2 how many at most  3 the `.DQ` queue's name  4 the consumer's broker id
-- Reply {id, bytes, ...}, how many ids this consumer holds now, when the next one is due (or nothing)
-- Invariants  An id is held before it leaves the delayed ones.
redis.call('PERSIST', KEYS[1])
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local taken = {}
if #ids > 0 then
    redis.call('ZADD', KEYS[5], 'NX', ARGV[1], ARGV[4])
    local bodies = redis.call('HMGET', KEYS[2], unpack(ids))
    for i, id in ipairs(ids) do
        if bodies[i] then
            redis.call('SADD', KEYS[3], id)
            taken[#taken + 1] = id
            taken[#taken + 1] = bodies[i]
        end
    end
    redis.call('ZREM', KEYS[1], unpack(ids))
end
local nearest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if nearest[2] then
    redis.call('ZADD', KEYS[4], nearest[2], ARGV[3])
    return {taken, redis.call('SCARD', KEYS[3]), nearest[2]}
end
redis.call('ZREM', KEYS[4], ARGV[3])
return {taken, redis.call('SCARD', KEYS[3])}
