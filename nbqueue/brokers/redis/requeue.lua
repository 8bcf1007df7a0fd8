-- Gives back messages that were not run, to the head of their queue and in their order.
-- KEYS  1 the queue (list of ids)  2 its messages (hash: id -> bytes)  3 ids this consumer holds (set)
-- ARGV  the ids
-- Invariants  An id is in the list before it is no longer held.
redis.call('PERSIST', KEYS[1])
for i = #ARGV, 1, -1 do
    if redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 1 then
        if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then
            redis.call('LPUSH', KEYS[1], ARGV[i])
        end
        redis.call('SREM', KEYS[3], ARGV[i])
    end
end
