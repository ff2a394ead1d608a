#!lua flags=no-writes
-- look: an MGET that leaves out the entries that the caller has.
--
-- KEYS  what to read, in the order of the answer
-- ARGV  for each entry that the caller has: its place in KEYS, and its stamp (bytes 8 to 39: F, born, fresh_at, dead_at)
-- Returns the value of each key, and in place of an entry that the caller has
--       1   it is the one with this stamp
--       0   it is another one, too long to be copied in and out of Lua with those before it: ask for it by MGET
-- Complexity O(keys). At most 4,000 keys: they are the arguments of one call.
local ROOM = 262144

local values, others, places = {}, {}, {}
local room = ROOM
for i = 1, #ARGV, 2 do
  local place = tonumber(ARGV[i])
  -- pcall: what is of another type reads as nil, as in MGET
  local stamp = redis.pcall('GETRANGE', KEYS[place], 8, 39)
  if stamp == ARGV[i + 1] then
    values[place] = 1
  elseif type(stamp) == 'string' and stamp ~= '' then
    room = room - redis.call('STRLEN', KEYS[place])
    if room < 0 then values[place] = 0 end
  end
end
for place = 1, #KEYS do
  if not values[place] then
    others[#others + 1], places[#places + 1] = KEYS[place], place
  end
end
for i, value in ipairs(redis.call('MGET', unpack(others))) do values[places[i]] = value end
return values
