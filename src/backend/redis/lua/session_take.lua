#!lua flags=allow-oom
-- session_take: remove a record and return it, to be created anew in another slot.
--
-- KEYS  1 record (see session_write.lua)
-- Returns field, value, …; nothing if there is no record. O(fields).
local all = redis.pcall('HGETALL', KEYS[1])
if all.err then return {} end
redis.call('DEL', KEYS[1])
return all
