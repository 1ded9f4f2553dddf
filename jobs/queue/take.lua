-- ARGV: 7 run, 8 stage. The stage left the queue; another takes its place. Answers with its key.
local entry = redis.call('HGET', ARGV[2] .. ARGV[7], ARGV[8])
redis.call('HDEL', ARGV[2] .. ARGV[7], ARGV[8])
redis.call('ZADD', KEYS[8], now, ARGV[8])
redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', now - 10 * tonumber(ARGV[5]))
redis.call('EXPIRE', KEYS[8], 60)
pump()
return entry and string.match(entry, ' (%S+)$') or ''
