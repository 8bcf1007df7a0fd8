-- Puts delayed messages that wait by their due time back on the list of their `.DQ`.
-- KEYS  1 delayed ids (zset: id -> due, ms)  2 the `.DQ` (list of ids)  3 nearest due of each queue (zset)
-- ARGV  1 the `.DQ` queue's name  2 how many at most
-- Reply how many were put back
-- Invariants  An id is in the list before it leaves the delayed ones.
local ids = redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[2]) - 1)
if #ids > 0 then
    redis.call('RPUSH', KEYS[2], unpack(ids))
    redis.call('ZREM', KEYS[1], unpack(ids))
end
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('ZREM', KEYS[3], ARGV[1])
end
return #ids
