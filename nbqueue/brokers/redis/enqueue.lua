-- Publishes messages.
-- KEYS  1 the queue (list of ids)  2 its messages (hash: id -> bytes)
-- ARGV  id, bytes, id, bytes, ...
-- Reply how many were published.
-- Invariants  Bytes are there before their id is in the list. A call that is sent again after a lost reply
-- publishes nothing twice: an id whose bytes wait already is left alone. What the list can't take (a key of
-- another type) leaves no bytes behind.
local ids = {}
for i = 1, #ARGV, 2 do
    if redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) == 1 then
        ids[#ids + 1] = ARGV[i]
    end
end
for first = 1, #ids, 1000 do
    local last = math.min(first + 999, #ids)
    local pushed = redis.pcall('RPUSH', KEYS[1], unpack(ids, first, last))
    if type(pushed) == 'table' and pushed.err then
        for rest = first, #ids, 1000 do
            redis.call('HDEL', KEYS[2], unpack(ids, rest, math.min(rest + 999, #ids)))
        end
        return pushed
    end
end
return #ids
