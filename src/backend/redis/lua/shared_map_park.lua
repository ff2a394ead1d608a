#!lua flags=allow-oom
-- shared_map_park: put a map aside so that it can be moved to another slot, or drop what was put aside.
--
-- KEYS  1 map (see shared_map.lua)   2 where it is put aside, same slot
-- ARGV  1 park | drop
--       park: 2 ttl_ms     how long it is kept aside
--       drop: 2 version    which one
-- Returns park: field, value, ... of what is aside, '@v' included (nothing if there is neither); drop: 1 or 0.
-- O(fields). Until it is dropped, everybody who parks gets the same.
local map, parked = KEYS[1], KEYS[2]
if ARGV[1] == 'drop' then
  if redis.call('HGET', parked, '@v') ~= ARGV[2] then return 0 end
  return redis.call('DEL', parked)
end
if redis.call('EXISTS', parked) == 0 then
  if redis.call('EXISTS', map) == 0 then return {} end
  redis.call('RENAME', map, parked)
  redis.call('PEXPIRE', parked, ARGV[2])
end
return redis.call('HGETALL', parked)
