#!lua
-- session_write: create a session's record, change it, or move it to a new key.
--
-- A record is a hash: '@' its numbers, '@u' its user, '@o' the key it began as, and ':' .. name for each field. '@' is
-- "1 version deadline expires created idle size count": times in milliseconds of the server's clock, idle in
-- milliseconds, size and count of the fields. A hash without a readable '@' is no record.
--
-- KEYS  1 record       2 from  (cycle only: the record that moves)
--       then, with a user: the user's index (sorted set: key of a record, when it began) and epoch
-- ARGV  1 mode         create | commit | cycle | succeed (create with the numbers of a record elsewhere)
--       2 expected     version, '' = any                        (commit)
--       3 idle_ms  4 absolute_ms   a new beginning; '' = as it is
--       5 user         '' = none
--       6 epoch        what the user's epoch must be, '' = any
--       7 max          most sessions of a user
--       8 hex          the record's key as it stands in the index      9 old hex   (cycle)
--      10 prefix       of the keys of records of this slot
--      11 began as     hex, '' = as it is
--      12 base         '@' of the record elsewhere               (succeed)
--      13 n, then n times ':name' value, then ':name's to delete; no name twice
-- Returns { 'done', version, expires_ms, deadline_ms } or { gone | exists | conflict | revoked | field | fields | size }
-- Complexity O(fields named), with a user O(sessions of the user). Nothing is written unless 'done'; refused as a whole
-- when out of memory. Price: the sessions that a user has too many, and those that a commit looks for to clear the
-- index, are not in KEYS (same slot).
local MAX_FIELDS, MAX_FIELD, MAX_SIZE = 256, 4096, 16384
local mode, expected, idle_arg, absolute_arg, user = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local epoch, max, hex, old_hex, prefix, began, base = ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local n = tonumber(ARGV[13])
local record = KEYS[1]
local from = mode == 'cycle' and KEYS[2] or record
local index, epoch_key = KEYS[#KEYS - 1], KEYS[#KEYS]

local function parse(raw)
  if type(raw) ~= 'string' then return nil end
  local v, d, e, c, i, s, k = string.match(raw, '^1 (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not v then return nil end
  return tonumber(v), tonumber(d), tonumber(e), tonumber(c), tonumber(i), tonumber(s), tonumber(k)
end

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

-- all that may refuse comes before anything is written
local version, deadline, expires, created, idle, size, count = 0, 0, 0, now, 0, 0, 0
local stored = mode == 'commit' or mode == 'cycle'
if stored then
  local raw = redis.pcall('HGET', from, '@')
  version, deadline, expires, created, idle, size, count = parse(raw)
  if not version then return { 'gone' } end
elseif mode == 'succeed' then
  version, deadline, expires, created, idle = parse(base)
  if not version then return { 'gone' } end
end
if mode ~= 'commit' and redis.call('EXISTS', record) == 1 then return { 'exists' } end
if expected ~= '' and tonumber(expected) ~= version then return { 'conflict' } end
if user ~= '' and epoch ~= '' and epoch ~= (redis.call('GET', epoch_key) or '0') then return { 'revoked' } end
if absolute_arg ~= '' then
  created, expires, idle, deadline = now, 0, tonumber(idle_arg), now + tonumber(absolute_arg)
end

local last_set = 13 + 2 * n
for i = 14, last_set, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if #name - 1 + #value > MAX_FIELD then return { 'field' } end
  if stored and redis.call('HEXISTS', from, name) == 1 then
    size = size + #value - redis.call('HSTRLEN', from, name)
  else
    size, count = size + #name - 1 + #value, count + 1
  end
end
for i = last_set + 1, #ARGV do
  if stored and redis.call('HEXISTS', from, ARGV[i]) == 1 then
    size, count = size - (#ARGV[i] - 1) - redis.call('HSTRLEN', from, ARGV[i]), count - 1
  end
end
if count > MAX_FIELDS then return { 'fields' } end
if size > MAX_SIZE then return { 'size' } end

version = version + 1
expires = math.max(expires, math.min(now + idle, deadline))
if mode == 'cycle' then redis.call('RENAME', from, record) end
if n > 0 then redis.call('HSET', record, unpack(ARGV, 14, last_set)) end
if #ARGV > last_set then redis.call('HDEL', record, unpack(ARGV, last_set + 1)) end
redis.call('HSET', record, '@',
  string.format('1 %.0f %.0f %.0f %.0f %.0f %.0f %.0f', version, deadline, expires, created, idle, size, count))
if user ~= '' then redis.call('HSET', record, '@u', user) end
if began ~= '' then redis.call('HSETNX', record, '@o', began) end
redis.call('PEXPIREAT', record, string.format('%.0f', expires))

if user ~= '' then
  if mode == 'cycle' then redis.call('ZREM', index, old_hex) end
  local live = {}
  for _, other in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    if other ~= hex and redis.call('EXISTS', prefix .. other) == 1 then
      live[#live + 1] = other
    else
      redis.call('ZREM', index, other)
    end
  end
  for i = 1, #live - max + 1 do
    redis.call('UNLINK', prefix .. live[i])
    redis.call('ZREM', index, live[i])
  end
  local ends = math.max(redis.call('PEXPIRETIME', index), deadline)
  redis.call('ZADD', index, string.format('%.0f', created), hex)
  redis.call('PEXPIREAT', index, string.format('%.0f', ends))
end
return { 'done', string.format('%.0f', version), string.format('%.0f', expires), string.format('%.0f', deadline) }
