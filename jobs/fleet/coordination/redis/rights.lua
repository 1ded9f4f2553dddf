-- Runs every command of agrpo's scripts and answers with the refused ones: command, reason. ARGV names a string, a
-- hash, a set and a sorted set, which it deletes; as KEYS, Redis would refuse the whole script to a user who may only
-- read them. Without the shared functions of the other scripts, since those run commands as well.
local refused = {}
for _, words in ipairs({
    { 'TIME' },
    { 'SET', ARGV[1], 1, 'PX', 60000 }, { 'GET', ARGV[1] }, { 'INCR', ARGV[1] }, { 'EXISTS', ARGV[1] },
    { 'PTTL', ARGV[1] }, { 'PEXPIRE', ARGV[1], 60000 }, { 'EXPIRE', ARGV[1], 60 },
    { 'HSET', ARGV[2], 'a', 1 }, { 'HGET', ARGV[2], 'a' }, { 'HMGET', ARGV[2], 'a' }, { 'HGETALL', ARGV[2] },
    { 'HKEYS', ARGV[2] }, { 'HEXISTS', ARGV[2], 'a' }, { 'HDEL', ARGV[2], 'a' },
    { 'SADD', ARGV[3], 'a', 'b' }, { 'SMEMBERS', ARGV[3] }, { 'SISMEMBER', ARGV[3], 'a' },
    { 'SCARD', ARGV[3] }, { 'SREM', ARGV[3], 'a' },
    { 'ZADD', ARGV[4], 1, 'a', 2, 'b' }, { 'ZSCORE', ARGV[4], 'a' }, { 'ZCARD', ARGV[4] }, { 'ZRANGE', ARGV[4], 0, -1 },
    { 'ZRANGEBYSCORE', ARGV[4], 0, 1 }, { 'ZREMRANGEBYSCORE', ARGV[4], 9, 9 }, { 'ZPOPMIN', ARGV[4] },
    { 'ZREM', ARGV[4], 'b' },
    { 'INFO', 'server' },
    { 'DEL', ARGV[1], ARGV[2], ARGV[3], ARGV[4] },
}) do
    local answer = redis.pcall(unpack(words))
    if type(answer) == 'table' and answer.err then refused[#refused + 1] = { words[1], answer.err } end
end
return refused
