-- Takes the first stage of the run that has waited longest and is not held. Answers with the run and the stage as
-- `order key digest`, or with false if no stage is ready. A stage that is being computed is dropped: if its worker
-- dies, the reconciler offers it again.
for _, run in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local ready, is_held = ARGV[1] .. run, redis.call('HEXISTS', KEYS[3], run) == 1
    local entry = not is_held and redis.call('ZPOPMIN', ready)[1]
    while entry and is_computed(string.sub(entry, -64)) do entry = redis.call('ZPOPMIN', ready)[1] end
    if entry then
        redis.call('ZADD', KEYS[2], seconds, string.sub(entry, -64))
        redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', seconds - 10 * tonumber(ARGV[4]))
        redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. seconds, '+inf')
        redis.call('EXPIRE', KEYS[2], 60)
    end
    if redis.call('EXISTS', ready) == 0 then redis.call('ZREM', KEYS[1], run) elseif entry then queue_up(run) end
    if entry then return answer({ run, entry }) end
end
return answer(false)
