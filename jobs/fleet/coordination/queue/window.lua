-- Moves stages that are ready into apalis's queue, as far as the window allows. Comes before each of the
-- other scripts, which share its keys:
-- KEYS: 1 data, 2 meta (prefix), 3 active, 4 scheduled, 5 workers, 6 generation, 7 turns, 8 taken, 9 held
-- ARGV: 1 ready (prefix), 2 window (prefix), 3 lease (prefix), 4 most tasks of a queue, 5 now and then,
--       6 most stages kept ready for a run, 7 how long the longest lease lasts

-- Whether a stage was taken a moment ago. A time that is ahead is from before Redis' clock was set back.
local function was_taken(stage)
    local taken = tonumber(redis.call('ZSCORE', KEYS[8], stage) or -1)
    return taken <= seconds and seconds - taken <= tonumber(ARGV[5])
end

-- One stage becomes a task. The id is fresh because apalis drops an id that it ever knew.
local function push(run, member)
    local stage, key = string.sub(member, -64), string.match(member, ' (%S+) ')
    if not key then return note(ARGV[1] .. run .. ' held ' .. shown(member) .. ', which no agrpo writes; dropped') end
    local generation = count_on(KEYS[6])
    local id = string.format('%015d', generation) .. '.' .. stage
    redis.call('HSET', KEYS[1], id, '{"run":"' .. run .. '","stage":"' .. stage .. '"}')
    redis.call('HSET', KEYS[2] .. ':' .. id, 'attempts', 0, 'max_attempts', 25, 'status', 'Pending',
        'idempotency_key', '')
    redis.call('RPUSH', KEYS[3], id)
    redis.call('HSET', ARGV[2] .. run, stage, id .. ' ' .. key)
    redis.call('ZADD', KEYS[7], generation, run)
end

-- Runs take turns, one stage each, as long as one of them is below its share of the window.
local function pump()
    local waiting = redis.call('LLEN', KEYS[3]) + redis.call('ZCARD', KEYS[4])
    local limit = math.max(4, 2 * redis.call('ZCARD', KEYS[5]) + 2)
    local open, rivals = {}, 0
    for _, run in ipairs(redis.call('ZRANGE', KEYS[7], 0, -1)) do
        local ready = redis.call('ZCARD', ARGV[1] .. run)
        local offered = redis.call('HLEN', ARGV[2] .. run)
        if ready + offered == 0 then
            redis.call('ZREM', KEYS[7], run)
        elseif redis.call('HEXISTS', KEYS[9], run) == 0 then
            rivals = rivals + 1
            if ready > 0 then open[#open + 1] = { run = run, offered = offered } end
        end
    end
    local share = math.max(2, math.ceil(limit / math.max(1, rivals)))
    repeat
        local moved = false
        for _, turn in ipairs(open) do
            if turn.offered < share and waiting < tonumber(ARGV[4]) then
                local member = redis.call('ZPOPMIN', ARGV[1] .. turn.run)[1]
                if member then
                    push(turn.run, member)
                    turn.offered, waiting, moved = turn.offered + 1, waiting + 1, true
                end
            end
        end
    until not moved
end
