#!lua flags=allow-oom
-- session_touch: move the end of a record to its idle time from now; never earlier, never beyond its deadline.
--
-- KEYS  1 record (see session_write.lua)
-- Returns 1, or 0 if there is no record. O(1). Works when memory is full: a number is replaced by another.
local raw = redis.pcall('HGET', KEYS[1], '@')
local v, d, e, c, i, rest
if type(raw) == 'string' then v, d, e, c, i, rest = string.match(raw, '^1 (%d+) (%d+) (%d+) (%d+) (%d+) (%d+ %d+)$') end
if not v then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local expires = math.min(now + tonumber(i), tonumber(d))
if expires > tonumber(e) then
  local ends = string.format('%.0f', expires)
  redis.call('HSET', KEYS[1], '@', '1 ' .. v .. ' ' .. d .. ' ' .. ends .. ' ' .. c .. ' ' .. i .. ' ' .. rest)
  redis.call('PEXPIREAT', KEYS[1], ends)
end
return 1
