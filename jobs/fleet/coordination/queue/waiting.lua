-- Answers with how many stages are ready, of runs that are not held.
local waiting = 0
for _, run in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if redis.call('HEXISTS', KEYS[3], run) == 0 then waiting = waiting + redis.call('ZCARD', ARGV[1] .. run) end
end
return answer(waiting)
