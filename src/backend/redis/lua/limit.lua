#!lua
-- limit: takes from counters, from all or from none; or corrects what was taken.
--
-- KEYS  1.. n   one string per key, all of one bucket
-- ARGV  1 mode  take      take `units` from every counter of every key, or nothing
--               settle    charge `units` whether they are there or not; below 0, give back (one key)
--       2 taken settle: when it was taken, microseconds
--       3 now   microseconds, or empty: this server's time (anything else is for tests)
--       then for each key: the number of its counters, and for each counter
--         kind  r: one unit every `a` ns, `b` ns of them at once, levels are cut at `c` ns (GCRA)
--               w: `a` units in each window of `b` microseconds
--         a, b, c, units
-- Returns admitted (1 or 0), now, then for each counter: microseconds to wait (0: it had what was asked for; -1: it
--         never will), units left, microseconds until it is refilled.
--
-- A string is a version byte and little-endian doubles: the time of the last change, and the level of each counter:
-- nanoseconds until it is refilled (r), or units taken in the window of that time (w). Whatever else is found counts
-- as absent and is overwritten. All numbers are whole and below 2^53, so that this decides exactly like the memory
-- backend. Every write has an expiry: when all is refilled. A clock that was set back neither gives nor takes.
-- Complexity: O(counters).
local VERSION, MAX = 1, 4503599627370496
local taking, taken, now = ARGV[1] == 'take', tonumber(ARGV[2]), tonumber(ARGV[3])
local spare = 0
if now then
  spare = 3600000 -- time stands still for a test, but not for the expiry
else
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local admitted, set_back, counters, p = true, {}, {}, 4
for k = 1, #KEYS do
  local n = tonumber(ARGV[p])
  p = p + 1
  local raw = redis.pcall('GET', KEYS[k])
  local state = {}
  if type(raw) == 'string' and #raw == 9 + 8 * n and raw:byte(1) == VERSION then
    state = {struct.unpack('<' .. string.rep('d', n + 1), raw, 2)}
  end
  local at = state[1]
  if not (at and at >= 0) then at = now end
  set_back[k] = at > now
  for i = 1, n do
    local kind, a, b, c = ARGV[p], tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3])
    local units, level, wait = tonumber(ARGV[p + 4]), state[i + 1], 0
    p = p + 5
    if not (level and level >= 0) then level = 0 end
    if kind == 'r' then
      level = math.min(level, c)
      if at < now then level = math.max(0, level - (now - at) * 1000) end
      if taking and units > 0 then
        local need = units * a
        if need > b then wait = -1
        elseif level + need > b then wait = math.ceil((level + need - b) / 1000) end
      end
    else
      level = math.min(level, MAX)
      if math.floor(now / b) > math.floor(at / b) then level = 0 end
      if taking and units > 0 and level + units > a then
        wait = units > a and -1 or b - now % b
      end
    end
    if wait ~= 0 then admitted = false end
    counters[#counters + 1] = {kind, a, b, c, units, level, wait}
  end
  set_back[-k] = n
end

local out, next = {admitted and 1 or 0, now}, 1
for k = 1, #KEYS do
  local levels, longest, changed = {}, 0, set_back[k]
  for i = 1, set_back[-k] do
    local counter = counters[next]
    local kind, a, b, c, units, level = unpack(counter)
    next = next + 1
    if admitted and units ~= 0 then
      changed = true
      if kind == 'r' then
        if units > 0 then level = math.min(c, level + units * a)
        else level = math.max(0, level - math.max(0, -units * a - math.max(0, now - taken) * 1000)) end
      elseif units > 0 then level = math.min(MAX, level + units)
      elseif math.floor(now / b) == math.floor(taken / b) then level = math.max(0, level + units) end
    end
    local left, refilled
    if kind == 'r' then
      left, refilled = math.floor(math.max(0, b - level) / a), math.ceil(level / 1000)
    else
      left, refilled = math.max(0, a - level), level > 0 and b - now % b or 0
    end
    levels[i], longest = level, math.max(longest, refilled)
    local o = #out
    out[o + 1], out[o + 2], out[o + 3] = counter[7], left, refilled
  end
  if changed then
    if longest > 0 then
      local value = string.char(VERSION) .. struct.pack('<' .. string.rep('d', #levels + 1), now, unpack(levels))
      redis.call('SET', KEYS[k], value, 'PX', math.ceil(longest / 1000) + 1 + spare)
    else
      redis.call('DEL', KEYS[k])
    end
  end
end
return out
