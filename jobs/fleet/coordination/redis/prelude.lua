-- Comes before every script of ours. What stands in Redis may have been written by another program, or while
-- its clock was ahead: each value is read by one of these functions, which set it right and say so.
local notes = {}
local function note(text) notes[#notes + 1] = text end
local function answer(value) return { value, notes } end
local function shown(value) return (string.gsub(string.sub(tostring(value), 1, 40), '%c', '?')) end

local time = redis.call('TIME')
local seconds = tonumber(time[1])
local now = seconds * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A time counts as one from 0 to `most`, whatever stands there. Nothing is said of a second or less.
local function bounded(name, stored, most, second)
    local time = tonumber(stored)
    if time and time >= 0 and time <= most then return time end
    if not (time and time >= 0 and time <= most + second) then
        note(name .. ' was ' .. shown(stored) .. ': the clock of Redis was ahead, or another program wrote it; set right')
    end
    return most
end

-- The times in a sorted set, likewise: what is out of bounds counts as now.
local function bound_scores(key, now, most, second)
    for _, range in ipairs({ { '(' .. (most + second), '+inf' }, { '-inf', '(0' } }) do
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, range[1], range[2])) do
            redis.call('ZADD', key, now, member)
            note('a time in ' .. key .. ' was out of bounds: the clock of Redis was ahead, or another program wrote it; set right')
        end
    end
end

-- Whether a lease is held. None of ours lasts longer than `most`: one that would is cut, and a holder
-- who lives renews it.
local function is_leased(key, most)
    local left = redis.call('PTTL', key)
    if left == -2 then return false end
    -- What is no lease is refused as another's, and given no expiry.
    redis.call('GET', key)
    if left == -1 or left > most + 1000 then
        redis.call('PEXPIRE', key, most)
        note(key .. (left == -1 and ' had no expiry' or ' expired too late') .. ': another program wrote it, or the clock of Redis was ahead; unless its holder renews it, it expires within ' .. math.ceil(most / 1000) .. ' s')
    end
    return true
end

-- Counts on; what is no counter begins anew with the time, which no counter of ours has reached.
local function count_on(key)
    local count = redis.pcall('INCR', key)
    if type(count) == 'number' and count > 0 then return count end
    if type(count) == 'table' and not string.find(count.err, 'integer') and not string.find(count.err, 'overflow') then
        return redis.call('INCR', key)
    end
    local stored = redis.call('GET', key)
    redis.call('SET', key, now)
    note(key .. ' was ' .. shown(stored) .. ', which no agrpo writes; it begins anew')
    return now
end
