#!lua
-- limit: takes from counters, from all or from none; or corrects what was taken.
--
-- KEYS  1.. n   one string per key, all of one bucket
-- ARGV  1 numbers, packed: bytes (B), 16 bits (H) and doubles (d), all little-endian
--         B mode   1: take `units` from every counter of every key, or nothing
--                  2: settle: charge `units` whether they are there or not; below 0, give back (one key)
--         d taken  settle: when it was taken, microseconds
--         d now    microseconds, or -1: this server's time (anything else is for tests)
--         then for each key: H the number of its counters, and for each counter
--           B kind  1: one unit every `a` ns, `b` ns of them at once, levels are cut at `c` ns (GCRA)
--                   2: `a` units in each window of `b` microseconds
--           d a, d b, d c, d units
-- Returns little-endian doubles: admitted (1 or 0), now, then for each counter: microseconds to wait (0: it had what
--         was asked for; -1: it never will), units left, microseconds until it is refilled.
--
-- A string is a version byte and little-endian doubles: the time of the last change, and the level of each counter:
-- nanoseconds until it is refilled (1), or units taken in the window of that time (2). Whatever else is found counts
-- as absent and is overwritten. All numbers are whole and below 2^53, so that this decides exactly like the memory
-- backend. Every write has an expiry: when all is refilled. A clock that was set back neither gives nor takes.
-- Complexity: O(counters).
local VERSION, TAKE, RATE, MAX = 1, 1, 1, 4503599627370496
local COUNTER, HEAD = '<Bdddd', 18
local pack, parse, floor, ceil, max, min = struct.pack, struct.unpack, math.floor, math.ceil, math.max, math.min
local numbers = ARGV[1]
local mode, taken, now, p = parse('<Bdd', numbers)
local taking, spare = mode == TAKE, 3600000 -- time stands still for a test, but not for the expiry
if now < 0 then
  local time = redis.call('TIME')
  now, spare = time[1] * 1000000 + time[2], 0
end

local admitted, set_back, levels, out, i = 1, {}, {}, {0, now}, 0
for k = 1, #KEYS do
  local n, at, state
  n, p = parse('<H', numbers, p)
  local raw = redis.pcall('GET', KEYS[k])
  if type(raw) == 'string' and #raw == 9 + 8 * n and raw:byte(1) == VERSION then
    state = {parse('<' .. string.rep('d', n + 1), raw, 2)}
    at = state[1]
  end
  if not (at and at >= 0) then at = now end
  set_back[k] = at > now
  for j = 1, n do
    local kind, a, b, c, units
    kind, a, b, c, units, p = parse(COUNTER, numbers, p)
    local level, wait = state and state[j + 1], 0
    if not (level and level >= 0) then level = 0 end
    if kind == RATE then
      level = min(level, c)
      if at < now then level = max(0, level - (now - at) * 1000) end
      if taking and units > 0 then
        local need = units * a
        if need > b then wait = -1
        elseif level + need > b then wait = ceil((level + need - b) / 1000) end
      end
    else
      level = min(level, MAX)
      if floor(now / b) > floor(at / b) then level = 0 end
      if taking and units > 0 and level + units > a then
        wait = units > a and -1 or b - now % b
      end
    end
    if wait ~= 0 then admitted = 0 end
    i = i + 1
    levels[i], out[3 * i] = level, wait
  end
end

out[1], p, i = admitted, HEAD, 0
for k = 1, #KEYS do
  local n, first, longest, changed = 0, i + 1, 0, set_back[k]
  n, p = parse('<H', numbers, p)
  for _ = 1, n do
    local kind, a, b, c, units, left, refilled
    kind, a, b, c, units, p = parse(COUNTER, numbers, p)
    i = i + 1
    local level = levels[i]
    if admitted == 1 and units ~= 0 then
      changed = true
      if kind == RATE then
        if units > 0 then level = min(c, level + units * a)
        else level = max(0, level - max(0, -units * a - max(0, now - taken) * 1000)) end
      elseif units > 0 then level = min(MAX, level + units)
      elseif floor(now / b) == floor(taken / b) then level = max(0, level + units) end
    end
    if kind == RATE then
      left, refilled = floor(max(0, b - level) / a), ceil(level / 1000)
    else
      left, refilled = max(0, a - level), level > 0 and b - now % b or 0
    end
    levels[i], longest = level, max(longest, refilled)
    out[3 * i + 1], out[3 * i + 2] = left, refilled
  end
  if changed then
    if longest > 0 then
      local value = pack('<B' .. string.rep('d', n + 1), VERSION, now, unpack(levels, first, i))
      redis.call('SET', KEYS[k], value, 'PX', ceil(longest / 1000) + 1 + spare)
    else
      redis.call('DEL', KEYS[k])
    end
  end
end
return pack('<' .. string.rep('d', #out), unpack(out))
