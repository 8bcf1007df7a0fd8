-- Stores a result and tells those who wait for it.
-- KEYS  1 the result (list of one element)
-- ARGV  1 its bytes  2 milliseconds for which it is kept  3 '1' if it is small
-- Invariants  A small one is published itself, and is stored on a server whose memory is full, too: the first
-- write is one that a full server allows, and those behind it are allowed then. Its message can so be worked
-- off, which frees about as much. A large one is refused there.
local small = ARGV[3] == '1'
if small then
    redis.call('DEL', KEYS[1])
    redis.call('LPUSH', KEYS[1], ARGV[1])
else
    redis.call('LPUSH', KEYS[1], ARGV[1])
    redis.call('LTRIM', KEYS[1], 0, 0)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', KEYS[1], small and ARGV[1] or '')
