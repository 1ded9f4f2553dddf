-- KEYS: 6 runs that are not done. Forgets the bases of all others: a run is active before its base is noted, and
-- whatever ends it (its last stage, a failure, a cancellation, a lost record) ends that.
for _, run in ipairs(redis.call('HKEYS', KEYS[4])) do
    if redis.call('SISMEMBER', KEYS[6], run) == 0 then
        redis.call('HDEL', KEYS[4], run)
        redis.call('ZREM', KEYS[5], run)
    end
end
return answer(false)
