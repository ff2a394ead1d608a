#!lua
-- limit_rate: takes from one counter of each key, a rate: what limit.lua does, for what is asked for most; and each
-- take by itself, whatever becomes of the others.
--
-- KEYS  1.. n   one string per key, all of one bucket; the same one may come several times
-- ARGV  1 numbers, as limit.lua takes them (see there): the mode is not looked at, and each key has one counter
-- Returns a string of little-endian doubles: for each key what limit.lua returns for one.
--
-- One command for the time; for each key one to read, one to write. Complexity: O(keys).
local VERSION = 1
local n, numbers, out = #KEYS, ARGV[1], nil
local _, _, now, _, _, a, b, c, units, p = struct.unpack('<BddHBdddd', numbers)
local spare = 3600000
if now < 0 then
  local time = redis.call('TIME')
  now, spare = time[1] * 1000000 + time[2], 0
end

for k = 1, n do
  local key = KEYS[k]
  if k > 1 then _, _, a, b, c, units, p = struct.unpack('<HBdddd', numbers, p) end
  local raw, version, at, level = redis.pcall('GET', key)
  if type(raw) == 'string' and #raw == 17 then version, at, level = struct.unpack('<Bdd', raw) end
  if version ~= VERSION then at, level = now, 0 end
  if not (at >= 0) then at = now end
  if not (level >= 0) then level = 0 end
  local set_back = at > now
  if level > c then level = c end
  if at < now then
    level = level - (now - at) * 1000
    if level < 0 then level = 0 end
  end

  local need, wait = units * a, 0
  if units > 0 and level + need > b then
    if need > b then wait = -1 else wait = math.ceil((level + need - b) / 1000) end
  end
  local taking = wait == 0 and units > 0
  if taking then
    level = level + need
    if level > c then level = c end
  end
  local left, refilled = 0, math.ceil(level / 1000)
  if level < b then left = math.floor((b - level) / a) end
  if taking or set_back then
    if refilled > 0 then
      local value = struct.pack('<Bdd', VERSION, now, level)
      redis.call('SET', key, value, 'PX', math.ceil(refilled / 1000) + 1 + spare)
    else
      redis.call('DEL', key)
    end
  end
  local answer = struct.pack('<ddddd', wait == 0 and 1 or 0, now, wait, left, refilled)
  if n == 1 then return answer end
  out = out or {}
  out[k] = answer
end
return table.concat(out)
