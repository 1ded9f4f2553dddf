-- Prepended to every script of agrpo. Another program may have written a value, or Redis' clock may have been ahead
-- when agrpo wrote it: scripts read each value by one of these functions, which correct it and note that they did.
local notes = {}
local function note(text) notes[#notes + 1] = text end
local function answer(value) return { value, notes } end
local function shown(value) return (string.gsub(string.sub(tostring(value), 1, 40), '%c', '?')) end

local time = redis.call('TIME')
local seconds = tonumber(time[1])
local now = seconds * 1000 + math.floor(tonumber(time[2]) / 1000)

-- The stored time if it lies from 0 to `most`, otherwise `most`. Exceeding it by up to `second` is not noted.
local function bounded(name, stored, most, second)
    local time = tonumber(stored)
    if time and time >= 0 and time <= most then return time end
    if not (time and time >= 0 and time <= most + second) then
        note(name .. ' was ' .. shown(stored) .. ': the clock of Redis was ahead, or another program wrote it; agrpo corrected it')
    end
    return most
end

-- Sets the scores of a sorted set that are no times from 0 to `most` to `now`; tolerates `second` more.
local function bound_scores(key, now, most, second)
    for _, range in ipairs({ { '(' .. (most + second), '+inf' }, { '-inf', '(0' } }) do
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, range[1], range[2])) do
            redis.call('ZADD', key, now, member)
            note('a time in ' .. key .. ' was out of bounds: the clock of Redis was ahead, or another program wrote it; agrpo corrected it')
        end
    end
end

-- Whether a lease is held. No lease of agrpo lasts longer than `most`: a longer one is shortened, and its holder
-- renews it if it is alive.
local function is_leased(key, most)
    local left = redis.call('PTTL', key)
    if left == -2 then return false end
    -- Fails on a key of another type, which then gets no expiry.
    redis.call('GET', key)
    if left == -1 or left > most + 1000 then
        redis.call('PEXPIRE', key, most)
        note(key .. (left == -1 and ' had no expiry' or ' expired too late') .. ': another program wrote it, or the clock of Redis was ahead; unless its holder renews it, it expires within ' .. math.ceil(most / 1000) .. ' s')
    end
    return true
end

-- Increments a counter. Replaces a value that is no counter by the time in ms, which is above every counter of agrpo.
local function count_on(key)
    local count = redis.pcall('INCR', key)
    if type(count) == 'number' and count > 0 then return count end
    if type(count) == 'table' and not string.find(count.err, 'integer') and not string.find(count.err, 'overflow') then
        return redis.call('INCR', key)
    end
    local stored = redis.call('GET', key)
    redis.call('SET', key, now)
    note(key .. ' was ' .. shown(stored) .. ', which agrpo never writes; the count begins again')
    return now
end
