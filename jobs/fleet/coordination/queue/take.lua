-- ARGV: 5 the base that the worker holds or '', 6 how long a run may be passed over in ms, 7 '1' if stages of that
-- base may follow at once. Answers with a run and its first stage as `order key digest`, or with false.
--
-- The turn is of the run that has waited longest, is not held and has a stage that no worker computes: such a stage is
-- dropped, and if its worker dies, the reconciler offers it again. A worker that holds a checkpoint's base passes over
-- runs of other bases, since it would have to read theirs, as long as a run of its own has a stage, or a result of its
-- own is on its way, from which one follows. No run starves: it is passed over by all workers together for ARGV[6]
-- from the first time on, and then has its turn again like any other. Runs without a checkpoint are never passed over,
-- and a worker that holds no base passes over none.
local base = ARGV[5]
if base ~= '' then bound_scores(KEYS[5], now, now, 1000) end

local function is_passed_over(run)
    local other = base ~= '' and redis.call('HGET', KEYS[4], run)
    if not other or other == base then return false end
    local since = tonumber(redis.call('ZSCORE', KEYS[5], run) or now)
    return now - since < tonumber(ARGV[6])
end

-- The first stage of a run that no worker computes.
local function take(run)
    local ready = ARGV[1] .. run
    local entry = redis.call('ZPOPMIN', ready)[1]
    while entry and is_computed(string.sub(entry, -64)) do entry = redis.call('ZPOPMIN', ready)[1] end
    if entry then
        redis.call('ZADD', KEYS[2], seconds, string.sub(entry, -64))
        redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', seconds - 10 * tonumber(ARGV[4]))
        redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. seconds, '+inf')
        redis.call('EXPIRE', KEYS[2], 60)
    end
    redis.call('ZREM', KEYS[5], run)
    if redis.call('EXISTS', ready) == 0 then redis.call('ZREM', KEYS[1], run) elseif entry then queue_up(run) end
    return entry
end

local others = {}
local function pass_over()
    for _, run in ipairs(others) do
        if not redis.call('ZSCORE', KEYS[5], run) then redis.call('ZADD', KEYS[5], now, run) end
    end
end
for _, run in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if redis.call('HEXISTS', KEYS[3], run) == 1 then
        if redis.call('EXISTS', ARGV[1] .. run) == 0 then redis.call('ZREM', KEYS[1], run) end
    elseif is_passed_over(run) then
        others[#others + 1] = run
    else
        local entry = take(run)
        if entry then
            pass_over()
            return answer({ run, entry })
        end
    end
end
if ARGV[7] == '1' then
    pass_over()
    return answer(false)
end
for _, run in ipairs(others) do
    local entry = take(run)
    if entry then return answer({ run, entry }) end
end
return answer(false)
