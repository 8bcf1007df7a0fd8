-- Marks messages as to be cancelled, if they have not ended, and tells those who listen.
--
-- KEYS[1]  the zset of the marks
-- KEYS[2…] the records, one a message
-- ARGV[1]  the namespace
-- ARGV[2]  ms for which a record is kept
-- ARGV[3]  the steps of the states: "pending=0 running=1 done=2 …"; 1 is running, 2 is final
-- ARGV[4]  1 when those that run are to be cancelled, too
-- ARGV[5…] the ids as JSON, one a message
-- Returns  the numbers of the messages that were marked, from 1.
--
-- Invariants: the mark is in the record and in the zset before anybody is told. A message that is not known
-- gets a record in which it is pending. Marking again changes nothing but times, and says the same.
local namespace, ttl = ARGV[1], tonumber(ARGV[2])
local steps = {}
for state, step in string.gmatch(ARGV[3], '(%w+)=(%d+)') do
    steps[state] = tonumber(step)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local marked, published = {}, {}
for number = 1, #KEYS - 1 do
    local key = KEYS[number + 1]
    local id = string.sub(key, #namespace + 2)
    local kept = redis.call('HMGET', key, 'state', 'queue_name', 'eta')
    local state, queue, eta = kept[1] or 'pending', kept[2] or '', tonumber(kept[3] or 0) or 0
    local step = steps[state] or 0
    if step == 0 or (step == 1 and ARGV[4] == '1') then
        local expires = math.max(now, math.floor(eta)) + ttl
        redis.call('HSET', key, 'state', state, 'cancel_requested', 'true')
        redis.call('PEXPIREAT', key, expires)
        redis.call('ZADD', KEYS[1], expires, id)
        local live = namespace .. ':__live__:' .. state .. ':' .. queue
        redis.call('ZADD', live, expires, id)
        if redis.call('PTTL', live) < expires - now then
            redis.call('PEXPIREAT', live, expires)
        end
        marked[#marked + 1] = number
        published[#published + 1] = ARGV[number + 4]
    end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if #marked > 0 then
    redis.call('PUBLISH', namespace .. ':__cancel__', '[' .. table.concat(published, ',') .. ']')
end
return marked
