-- Runs one small command without which a queue can't be worked off, on a server whose memory is full.
-- KEYS  1 when each broker was last heard of (zset)  2... the command's keys
-- ARGV  1 the command  2... what follows its keys
-- Reply that of the command.
-- Invariants  The first write is one that a full server allows; those behind it are allowed then, too.
redis.call('PERSIST', KEYS[1])
local command = {ARGV[1]}
for i = 2, #KEYS do
    command[#command + 1] = KEYS[i]
end
for i = 2, #ARGV do
    command[#command + 1] = ARGV[i]
end
return redis.call(unpack(command))
