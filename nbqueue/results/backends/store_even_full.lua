-- Stores a small result on a server whose memory is full, so that its message can be worked off.
-- KEYS  1 the result (list of one element)
-- ARGV  1 its bytes  2 milliseconds for which it is kept
-- Invariants  The first write is one that a full server allows; those behind it are allowed then, too.
redis.call('DEL', KEYS[1])
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[1])
