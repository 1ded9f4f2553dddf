-- ARGV: 7 run, 8... stages as `order key digest`. Answers with how many were news.
local run, news = ARGV[7], 0
for i = 8, #ARGV do
    local stage = string.sub(ARGV[i], -64)
    local taken = redis.call('ZSCORE', KEYS[8], stage)
    if redis.call('EXISTS', ARGV[3] .. stage) == 0
        and redis.call('HEXISTS', ARGV[2] .. run, stage) == 0
        and not (taken and now - tonumber(taken) <= tonumber(ARGV[5]))
        and redis.call('ZCARD', ARGV[1] .. run) < tonumber(ARGV[6]) then
        news = news + redis.call('ZADD', ARGV[1] .. run, 0, ARGV[i])
        if not redis.call('ZSCORE', KEYS[7], run) then
            redis.call('ZADD', KEYS[7], redis.call('GET', KEYS[6]) or 0, run)
        end
    end
end
pump()
return news
