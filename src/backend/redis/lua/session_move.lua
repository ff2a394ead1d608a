#!lua flags=allow-oom
-- session_move: read a record that is to be created anew in another slot; then remove it, if it has not changed.
--
-- KEYS  1 record (see session_write.lua)
-- ARGV  nothing to read it; to remove it:
--       1 version   2 until_ms: from then on nobody waits for it any more, and the record stays
-- Returns, read: { now_ms, record }, only the time if there is no record; removed: 1, or 0 if there is no record, -1 if it
-- has another version, -2 if it is too late. O(1). Works when memory is full: it makes room.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if #ARGV == 0 then
  local record = redis.pcall('GET', KEYS[1])
  return { string.format('%.0f', now), type(record) == 'string' and record or nil }
end
local raw = redis.pcall('GETRANGE', KEYS[1], 0, 8)
if type(raw) ~= 'string' or #raw ~= 9 then return 0 end
local form, version = struct.unpack('<Bd', raw)
if form ~= 1 then return 0 end
if string.format('%.0f', version) ~= ARGV[1] then return -1 end
if now >= tonumber(ARGV[2]) then return -2 end
redis.call('UNLINK', KEYS[1])
return 1
