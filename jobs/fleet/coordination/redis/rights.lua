-- KEYS: 1 string, 2 hash, 3 list, 4 set, 5 sorted set, of which nothing is left. Every command that a script of
-- ours or of apalis uses. Answers with those that are refused: command, key, reason. By itself, without the
-- functions that all scripts share, since those use commands as well.
local refused = {}
for _, words in ipairs({
    { 'TIME' },
    { 'SET', KEYS[1], 1, 'PX', 60000 }, { 'GET', KEYS[1] }, { 'INCR', KEYS[1] }, { 'EXISTS', KEYS[1] },
    { 'PTTL', KEYS[1] }, { 'PEXPIRE', KEYS[1], 60000 }, { 'EXPIRE', KEYS[1], 60 },
    { 'HSET', KEYS[2], 'a', 1 }, { 'HMSET', KEYS[2], 'a', 1 }, { 'HSETNX', KEYS[2], 'b', 1 }, { 'HGET', KEYS[2], 'a' },
    { 'HMGET', KEYS[2], 'a' }, { 'HGETALL', KEYS[2] }, { 'HKEYS', KEYS[2] }, { 'HLEN', KEYS[2] },
    { 'HEXISTS', KEYS[2], 'a' }, { 'HDEL', KEYS[2], 'a' },
    { 'RPUSH', KEYS[3], 'a', 'b', 'c' }, { 'LPUSH', KEYS[3], 'd' }, { 'LLEN', KEYS[3] }, { 'LRANGE', KEYS[3], 0, -1 },
    { 'LTRIM', KEYS[3], 1, -1 }, { 'LREM', KEYS[3], 1, 'a' },
    { 'SADD', KEYS[4], 'a', 'b' }, { 'SMEMBERS', KEYS[4] }, { 'SISMEMBER', KEYS[4], 'a' }, { 'SCARD', KEYS[4] },
    { 'SREM', KEYS[4], 'a' }, { 'SPOP', KEYS[4], 1 },
    { 'ZADD', KEYS[5], 1, 'a', 2, 'b' }, { 'ZSCORE', KEYS[5], 'a' }, { 'ZCARD', KEYS[5] }, { 'ZRANGE', KEYS[5], 0, -1 },
    { 'ZRANGEBYSCORE', KEYS[5], 0, 1 }, { 'ZREMRANGEBYSCORE', KEYS[5], 9, 9 }, { 'ZPOPMIN', KEYS[5] },
    { 'ZREM', KEYS[5], 'b' },
    -- apalis names this key itself, in no script's KEYS.
    { 'ZADD', 'core:apalis:queues:list', 'GT', 0, KEYS[5] }, { 'ZREM', 'core:apalis:queues:list', KEYS[5] },
    { 'INFO', 'server' },
    { 'DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5] },
}) do
    local told = redis.pcall(unpack(words))
    if type(told) == 'table' and told.err then refused[#refused + 1] = { words[1], words[2] or '', told.err } end
end
return refused
