-- ARGV: 8 run, 9 stage. The stage left the queue; another takes its place. Answers with its key.
local entry = redis.call('HGET', ARGV[2] .. ARGV[8], ARGV[9])
redis.call('HDEL', ARGV[2] .. ARGV[8], ARGV[9])
redis.call('ZADD', KEYS[8], seconds, ARGV[9])
redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', seconds - 10 * tonumber(ARGV[5]))
redis.call('ZREMRANGEBYSCORE', KEYS[8], '(' .. seconds, '+inf')
redis.call('EXPIRE', KEYS[8], 60)
pump()
return answer(entry and string.match(entry, ' (%S+)$') or '')
