-- ARGV: 5 run, 6 most ready stages of a run, 7... stages as `order key digest`. Answers with how many are new.
local run, ready, new = ARGV[5], ARGV[1] .. ARGV[5], 0
for i = 7, #ARGV do
    local stage = string.sub(ARGV[i], -64)
    if not is_computed(stage) and not was_taken(stage) and redis.call('ZCARD', ready) < tonumber(ARGV[6]) then
        new = new + redis.call('ZADD', ready, 0, ARGV[i])
    end
end
if redis.call('EXISTS', ready) == 1 and not redis.call('ZSCORE', KEYS[1], run) then queue_up(run) end
return answer(new)
