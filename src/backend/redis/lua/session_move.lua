#!lua flags=allow-oom
-- session_move: read a record that is to be created anew in another slot; then remove it, if it has not changed.
--
-- KEYS  1 record (see session_write.lua)
-- ARGV  nothing to read it; to remove it:
--       1 version   2 until_ms: from then on nobody waits for it any more, and the record stays
-- Returns, read: { now_ms, field, value, … }, only the time if there is no record; removed: 1, or 0 if there is no
-- record, -1 if it has another version, -2 if it is too late. O(fields). Works when memory is full: it makes room.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if #ARGV == 0 then
  local record = redis.pcall('HGETALL', KEYS[1])
  if record.err then record = {} end
  table.insert(record, 1, string.format('%.0f', now))
  return record
end
local raw = redis.pcall('HGET', KEYS[1], '@')
local version = type(raw) == 'string' and string.match(raw, '^1 (%d+) ')
if not version then return 0 end
if version ~= ARGV[1] then return -1 end
if now >= tonumber(ARGV[2]) then return -2 end
redis.call('UNLINK', KEYS[1])
return 1
