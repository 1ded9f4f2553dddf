-- ARGV: 8 run, 9... stages as `order key digest`. Answers with how many were news.
local run, news = ARGV[8], 0
for i = 9, #ARGV do
    local stage = string.sub(ARGV[i], -64)
    if not is_leased(ARGV[3] .. stage, tonumber(ARGV[7]))
        and redis.call('HEXISTS', ARGV[2] .. run, stage) == 0
        and not was_taken(stage)
        and redis.call('ZCARD', ARGV[1] .. run) < tonumber(ARGV[6]) then
        news = news + redis.call('ZADD', ARGV[1] .. run, 0, ARGV[i])
        if not redis.call('ZSCORE', KEYS[7], run) then
            local turn = tonumber(redis.call('GET', KEYS[6]) or 0)
            redis.call('ZADD', KEYS[7], turn == turn and turn or 0, run)
        end
    end
end
pump()
return answer(news)
