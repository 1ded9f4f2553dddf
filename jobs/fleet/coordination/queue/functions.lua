-- Prepended to each script of the queue; they share their keys and first arguments:
-- KEYS: 1 turns, 2 taken, 3 held, 4 bases, 5 passed
-- ARGV: 1 ready (prefix), 2 lease (prefix), 3 how long the longest lease lasts, 4 grace in seconds

local function is_computed(stage) return is_leased(ARGV[2] .. stage, tonumber(ARGV[3])) end

-- Whether a stage was taken a moment ago. A time ahead was written before Redis' clock was set back.
local function was_taken(stage)
    local taken = tonumber(redis.call('ZSCORE', KEYS[2], stage) or -1)
    return taken <= seconds and seconds - taken <= tonumber(ARGV[4])
end

-- Gives a run the last turn.
local function queue_up(run)
    bound_scores(KEYS[1], 0, 1e15, 0)
    local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
    redis.call('ZADD', KEYS[1], (last or 0) + 1, run)
end
