#!lua flags=no-writes
-- look: an MGET that leaves out the entries that the caller has.
--
-- KEYS  what to read, in the order of the answer
-- ARGV  for each entry that the caller has: its place in KEYS, and its stamp, which is what it has from byte 8 on
-- Returns the value of each key, and in place of an entry that the caller has
--       1   it is the one with this stamp
--       0   it is another one, and there is no room for it: what is copied in and out of Lua holds up all others. Ask for
--           it by MGET
-- Complexity O(keys). At most 4,000 keys: they are the arguments of one call.
local values, others, places = {}, {}, {}
local room = 262144
for i = 1, #ARGV, 2 do
  local place, known = tonumber(ARGV[i]), ARGV[i + 1]
  -- pcall: what is of another type reads as nil, as in MGET
  local stamp = redis.pcall('GETRANGE', KEYS[place], 8, 7 + #known)
  if stamp == known then
    values[place] = 1
  elseif type(stamp) == 'string' then
    local length = redis.call('STRLEN', KEYS[place])
    if length > room then values[place] = 0 else room = room - length end
  end
end
for place = 1, #KEYS do
  if not values[place] then
    others[#others + 1], places[#places + 1] = KEYS[place], place
  end
end
for i, value in ipairs(redis.call('MGET', unpack(others))) do values[places[i]] = value end
return values
