#!lua flags=allow-oom
-- session_touch: move the end of a record to its idle time from now; never earlier, never beyond its deadline.
--
-- KEYS  1 record (see session_write.lua)
-- Returns 1, or 0 if there is no record. O(1). Works when memory is full: a number is replaced by another.
local raw = redis.pcall('GETRANGE', KEYS[1], 0, 40)
if type(raw) ~= 'string' or #raw ~= 41 then return 0 end
local form, _, expires, deadline, _, idle = struct.unpack('<Bddddd', raw)
if form ~= 1 then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ends = math.min(now + idle, deadline)
if ends > expires then
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends))
  redis.call('SETRANGE', KEYS[1], 9, struct.pack('<d', ends))
end
return 1
