#!lua flags=no-writes
-- session_list: the sessions of a user that have not ended, oldest first.
--
-- KEYS  1 index   of the user (see session_write.lua)
-- ARGV  1 prefix  of the keys of records of this slot
-- Returns the keys in hexadecimal. O(sessions of the user). Price: the records are not in KEYS (same slot).
local live = {}
for _, hex in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if redis.call('EXISTS', ARGV[1] .. hex) == 1 then live[#live + 1] = hex end
end
return live
