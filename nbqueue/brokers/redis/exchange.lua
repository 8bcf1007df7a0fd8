-- Settles what a consumer has finished and takes more, in one exchange.
-- KEYS  1 the queue (list of ids)        2 its messages (hash: id -> bytes)  3 ids this consumer holds (set)
--       4 its inbox (list of ids)        5 dead ids (zset: id -> ms)         6 dead messages (hash: id -> bytes)
--       7 why they died (hash: id -> JSON)                                   8 returned ids (hash: id -> "returns deaths started")
--       9 when each broker was last heard of (zset: broker id -> ms)
-- ARGV  1 now, ms with decimals  2 how many to take  3 how many are acknowledged  4 how many are rejected
--       5 milliseconds for which reasons are kept  6 the consumer's broker id
--       7... the acknowledged ids, then id, reason of each rejected one
-- Reply {id, bytes, id, bytes, ...}, ids without bytes, what is known of returned ids (or nothing),
--       how many ids this consumer holds now
-- Invariants  Only what the consumer still holds is settled: what was taken back from it belongs to another.
-- Bytes are with the dead before they leave the messages; an id is held before it leaves the list. Who holds
-- something is among the brokers that were heard of, where it is looked for should it die.
local function demand(key, kind)
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
        return redis.error_reply('WRONGTYPE ' .. key .. ' should be a ' .. kind .. ' and is a ' .. found)
    end
end
local wrong = demand(KEYS[1], 'list') or demand(KEYS[2], 'hash') or demand(KEYS[3], 'set') or demand(KEYS[4], 'list')
local returned = redis.call('TYPE', KEYS[8]).ok
if returned == 'none' then
    returned = nil
else
    wrong = wrong or demand(KEYS[8], 'hash')
end
if not wrong and ARGV[4] ~= '0' then
    wrong = demand(KEYS[5], 'zset') or demand(KEYS[6], 'hash') or demand(KEYS[7], 'hash')
end
if wrong then
    return wrong
end
-- A write that is allowed when memory is full: those behind it are allowed then, too, so that a queue can
-- be worked off a full server.
redis.call('PERSIST', KEYS[1])

local now, want, acked, rejected = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local position = 7
local gone = {}
for i = position, position + acked - 1 do
    if redis.call('SREM', KEYS[3], ARGV[i]) == 1 then
        gone[#gone + 1] = ARGV[i]
    end
end
position = position + acked
if rejected > 0 then
    for i = position, position + 2 * rejected - 1, 2 do
        local id = ARGV[i]
        if redis.call('SISMEMBER', KEYS[3], id) == 1 then
            local data = redis.call('HGET', KEYS[2], id)
            if data then
                redis.call('HSET', KEYS[6], id, data)
                -- in the order in which they were rejected
                redis.call('ZADD', KEYS[5], string.format('%.4f', now + (i - position) * 0.0002), id)
                if ARGV[i + 1] ~= '' then
                    redis.call('HSET', KEYS[7], id, ARGV[i + 1])
                    redis.call('PEXPIRE', KEYS[7], ARGV[5])
                end
            end
            redis.call('SREM', KEYS[3], id)
            gone[#gone + 1] = id
        end
    end
end
for first = 1, #gone, 1000 do
    local last = math.min(first + 999, #gone)
    redis.call('HDEL', KEYS[2], unpack(gone, first, last))
    if returned then
        redis.call('HDEL', KEYS[8], unpack(gone, first, last))
    end
end

local taken, missing, known = {}, {}, {}
local function take(list)
    while want > 0 do
        local ids = redis.call('LRANGE', list, 0, math.min(want, 1000) - 1)
        if #ids == 0 then
            return
        end
        local bodies = redis.call('HMGET', KEYS[2], unpack(ids))
        local held = {}
        for i, id in ipairs(ids) do
            if bodies[i] then
                held[#held + 1] = id
                taken[#taken + 1] = id
                taken[#taken + 1] = bodies[i]
            else
                missing[#missing + 1] = id
            end
        end
        if #held > 0 then
            redis.call('SADD', KEYS[3], unpack(held))
            if returned then
                for _, value in ipairs(redis.call('HMGET', KEYS[8], unpack(held))) do
                    known[#known + 1] = value or ''
                end
            end
        end
        redis.call('LTRIM', list, #ids, -1)
        want = want - #held
    end
end
if want > 0 then
    redis.call('ZADD', KEYS[9], 'NX', string.format('%.0f', now), ARGV[6])
end
take(KEYS[4])
take(KEYS[1])
return {taken, missing, known, redis.call('SCARD', KEYS[3])}
