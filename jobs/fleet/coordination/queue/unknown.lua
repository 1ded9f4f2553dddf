-- ARGV: 5 run, 6... stages. Answers with those that an offer would take.
local run, ready, unknown = ARGV[5], {}, {}
for _, entry in ipairs(redis.call('ZRANGE', ARGV[1] .. run, 0, -1)) do ready[string.sub(entry, -64)] = true end
for i = 6, #ARGV do
    local stage = ARGV[i]
    if not ready[stage] and not is_computed(stage) and not was_taken(stage) then unknown[#unknown + 1] = stage end
end
-- If the turns were lost, the ready stages would never be taken.
if next(ready) and not redis.call('ZSCORE', KEYS[1], run) then queue_up(run) end
return answer(unknown)
