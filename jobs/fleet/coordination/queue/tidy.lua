-- KEYS: 10 done, 11 dead, 12 inflight (prefix). ARGV: 8 how many finished tasks to forget.
-- A worker or a task whose time is ahead would be waited for until the clock is there; workers' own clocks
-- may differ a little.
bound_scores(KEYS[5], seconds, seconds, 60)
bound_scores(KEYS[4], seconds, seconds, 60)
for _, set in ipairs({ KEYS[10], KEYS[11] }) do
    for _, id in ipairs(redis.call('SPOP', set, ARGV[8])) do
        redis.call('HDEL', KEYS[1], id)
        redis.call('DEL', KEYS[2] .. ':' .. id)
    end
end
-- What neither waits nor is in a worker's hands was lost: it may be offered again. A task that has lost
-- its data would end every worker that fetches it.
local alive = {}
local function keep(ids) for _, id in ipairs(ids) do alive[id] = true end end
for _, id in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
    alive[id] = redis.call('HEXISTS', KEYS[1], id) == 1 or nil
    if not alive[id] then redis.call('LREM', KEYS[3], 1, id) end
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    alive[id] = redis.call('HEXISTS', KEYS[1], id) == 1 or nil
    if not alive[id] then redis.call('ZREM', KEYS[4], id) end
end
for _, worker in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
    keep(redis.call('SMEMBERS', KEYS[12] .. ':' .. worker))
end
local lost = 0
for _, run in ipairs(redis.call('ZRANGE', KEYS[7], 0, -1)) do
    local offered = redis.call('HGETALL', ARGV[2] .. run)
    for i = 1, #offered, 2 do
        local id = string.match(offered[i + 1], '^%S+') or ''
        if not alive[id] or redis.call('HEXISTS', KEYS[1], id) == 0 then
            redis.call('HDEL', ARGV[2] .. run, offered[i])
            redis.call('HDEL', KEYS[1], id)
            redis.call('DEL', KEYS[2] .. ':' .. id)
            lost = lost + 1
        end
    end
end
for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
    if not alive[id] and redis.call('SISMEMBER', KEYS[10], id) == 0
        and redis.call('SISMEMBER', KEYS[11], id) == 0 then
        redis.call('HDEL', KEYS[1], id)
        redis.call('DEL', KEYS[2] .. ':' .. id)
    end
end
pump()
return answer(lost)
