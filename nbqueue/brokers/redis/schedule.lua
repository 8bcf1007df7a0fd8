-- Keeps delayed messages that a consumer has taken from its `.DQ` by the time at which they are due.
-- KEYS  1 ids this consumer holds (set)  2 delayed ids (zset: id -> due, ms)  3 nearest due of each queue (zset)
-- ARGV  1 the `.DQ` queue's name  2... due ms, id, due ms, id, ...
-- Invariants  An id is among the delayed before it is no longer held.
redis.call('PERSIST', KEYS[1])
for i = 2, #ARGV, 2 do
    if redis.call('SISMEMBER', KEYS[1], ARGV[i + 1]) == 1 then
        redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i + 1])
        redis.call('SREM', KEYS[1], ARGV[i + 1])
    end
end
local nearest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if nearest[2] then
    redis.call('ZADD', KEYS[3], nearest[2], ARGV[1])
end
return nearest[2]
