-- Counts the messages of a queue by state.
--
-- KEYS[1]  the hash of those that ended
-- KEYS[2…] the zsets of those in the live states
-- Returns  the number in each of these zsets, then the fields and values of the hash.
--
-- Invariants: what has expired is dropped first, by the server's clock, which also set the times.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counts = {}
for number = 2, #KEYS do
    redis.call('ZREMRANGEBYSCORE', KEYS[number], '-inf', now)
    counts[#counts + 1] = redis.call('ZCARD', KEYS[number])
end
for _, value in ipairs(redis.call('HGETALL', KEYS[1])) do
    counts[#counts + 1] = value
end
return counts
