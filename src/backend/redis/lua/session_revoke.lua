#!lua flags=allow-oom
-- session_revoke: end all sessions of a user, and every login that is under way.
--
-- KEYS  1 index   2 epoch   of the user (see session_write.lua)
-- ARGV  1 prefix  of the keys of records of this slot
--       2 ms      life of the epoch: longer than a login takes
-- Returns how many sessions there were. O(sessions of the user). Works when memory is full: it makes room.
-- Price: the records are not in KEYS (same slot).
local ended = 0
for _, hex in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  ended = ended + redis.call('UNLINK', ARGV[1] .. hex)
end
redis.call('DEL', KEYS[1])
-- never the same twice, also after it was forgotten
local t = redis.call('TIME')
local epoch = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, t[1] * 1000000 + t[2])
redis.call('SET', KEYS[2], string.format('%.0f', epoch), 'PX', ARGV[2])
return ended
