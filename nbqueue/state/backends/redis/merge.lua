-- Merges updates into records: those with a state only when it leads forward, and the first final one stays.
--
-- KEYS     the records, one a message
-- ARGV[1]  the namespace
-- ARGV[2]  ms for which a record is kept after the last write, or after it is due
-- ARGV[3]  the steps of the states: "pending=0 running=1 done=2 …"; 2 is final
-- ARGV[4…] per message: the number of its updates, and for each of them
--          state or "", retries or "", number of fields, field and value…, number of fields that go, field…
-- Returns  the positions in KEYS of what is no record and was left alone.
--
-- Invariants: a message counts in exactly one place, by the state and queue in its record: in the zset of a
-- live state, or in the counters once it ended. Merging the same updates again changes nothing, so what was
-- sent can be sent again. Values are never looked into, but for state, retries, queue_name and eta.
-- The keys of the counts follow from the records, so they can't be named in KEYS: in a cluster the namespace
-- has a hash tag, which puts all of them into one slot.
local namespace, ttl = ARGV[1], tonumber(ARGV[2])
local steps = {}
for state, step in string.gmatch(ARGV[3], '(%w+)=(%d+)') do
    steps[state] = tonumber(step)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local trimmed = {}

local function is_final(state)
    return steps[state] == 2
end

local function live_key(state, queue)
    return namespace .. ':__live__:' .. state .. ':' .. queue
end

local function count(id, state, queue, expires)
    if is_final(state) then
        redis.call('HINCRBY', namespace .. ':__counters__:' .. queue, state, 1)
        return
    end
    local key = live_key(state, queue)
    if not trimmed[key] then
        trimmed[key] = true
        redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    end
    redis.call('ZADD', key, expires, id)
    if redis.call('PTTL', key) < expires - now then
        redis.call('PEXPIREAT', key, expires)
    end
end

local function discount(id, state, queue)
    if is_final(state) then
        redis.call('HINCRBY', namespace .. ':__counters__:' .. queue, state, -1)
    else
        redis.call('ZREM', live_key(state, queue), id)
    end
end

local at = 4
local function next_argument()
    at = at + 1
    return ARGV[at - 1]
end

local refused = {}
for position, key in ipairs(KEYS) do
    local id = string.sub(key, #namespace + 2)
    local kept = redis.pcall('HMGET', key, 'state', 'retries', 'queue_name', 'eta')
    local usable = not kept.err
    local state = usable and kept[1] or false
    local retries = usable and tonumber(kept[2] or 0) or 0
    local queue = usable and kept[3] or ''
    local eta = usable and tonumber(kept[4] or 0) or 0
    local old_state, old_queue = state, queue
    local changes = {}
    for _ = 1, tonumber(next_argument()) do
        local new_state, new_retries = next_argument(), tonumber(next_argument()) or retries
        local forward = true
        if new_state ~= '' and state then
            local old_step, new_step = steps[state] or 0, steps[new_state] or 0
            forward = not is_final(state)
                and (retries < new_retries or (retries == new_retries and old_step <= new_step))
        end
        for _ = 1, tonumber(next_argument()) do
            local field, value = next_argument(), next_argument()
            if forward then
                changes[field] = value
            end
        end
        for _ = 1, tonumber(next_argument()) do
            local field = next_argument()
            if forward then
                changes[field] = false
            end
        end
        if forward then
            if new_state ~= '' then
                state = new_state
            end
            retries = new_retries
            if changes['queue_name'] ~= nil then
                queue = changes['queue_name'] or ''
            end
            if changes['eta'] ~= nil then
                eta = tonumber(changes['eta'] or 0) or 0
            end
        end
    end
    if not usable then
        refused[#refused + 1] = position
    elseif state or next(changes) then
        state = state or 'pending'
        local sets, gone = { 'state', state }, {}
        for field, value in pairs(changes) do
            if value then
                sets[#sets + 1] = field
                sets[#sets + 1] = value
            else
                gone[#gone + 1] = field
            end
        end
        local expires = math.max(now, math.floor(eta)) + ttl
        -- The record goes first: should the server end in between, only a count is off.
        redis.call('HSET', key, unpack(sets))
        if #gone > 0 then
            redis.call('HDEL', key, unpack(gone))
        end
        redis.call('PEXPIREAT', key, expires)
        local moved = state ~= old_state or queue ~= old_queue
        if moved and old_state then
            discount(id, old_state, old_queue)
        end
        if moved or not is_final(state) then
            count(id, state, queue, expires)
        end
    end
end
return refused
