-- ARGV: 8 run, 9... stages. Answers with those that an offer would take.
local run, ready, unknown = ARGV[8], {}, {}
for _, member in ipairs(redis.call('ZRANGE', ARGV[1] .. run, 0, -1)) do
    ready[string.sub(member, -64)] = true
end
for i = 9, #ARGV do
    if not ready[ARGV[i]] and not is_leased(ARGV[3] .. ARGV[i], tonumber(ARGV[7]))
        and redis.call('HEXISTS', ARGV[2] .. run, ARGV[i]) == 0 then
        unknown[#unknown + 1] = ARGV[i]
    end
end
return answer(unknown)
