#!lua
-- limit_rate: takes from one counter of one key, a rate: what limit.lua does, for what is asked for most.
--
-- KEYS  1 one string
-- ARGV  1 numbers, as limit.lua takes them (see there): the mode is not looked at, and there is one counter
-- Returns a string of little-endian doubles, as limit.lua does.
--
-- One command for the time, one to read, one to write. Complexity: O(1).
local VERSION = 1
local _, _, now, _, _, a, b, c, units = struct.unpack('<BddHBdddd', ARGV[1])
local spare = 3600000
if now < 0 then
  local time = redis.call('TIME')
  now, spare = time[1] * 1000000 + time[2], 0
end

local raw, version, at, level = redis.pcall('GET', KEYS[1])
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
    redis.call('SET', KEYS[1], value, 'PX', math.ceil(refilled / 1000) + 1 + spare)
  else
    redis.call('DEL', KEYS[1])
  end
end
return struct.pack('<ddddd', wait == 0 and 1 or 0, now, wait, left, refilled)
