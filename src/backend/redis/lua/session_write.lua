#!lua
-- session_write: create a session's record, change it, or move it to a new key.
--
-- A record is one string, so that it is read by MGET, many at once, and never in parts:
--   <u8 form=1><d version><d expires><d deadline><d created><d idle>
--   <u16 n> n bytes: its user, or none   <u8 n> n bytes: the key as which it began, 16 bytes, or none
--   then for each field <u16 n> n bytes of name <u16 n> n bytes of value
-- little-endian, d a double; times in milliseconds of the server's clock, idle in milliseconds. What cannot be read so is
-- no record (of one whose fields are cut off, session_touch and session_move see the head only).
--
-- KEYS  1 record       2 from  (cycle only: the record that moves)
--       then, with a user: the user's index (sorted set: key of a record, when it began) and epoch
-- ARGV  1 mode         create | commit | cycle | succeed (create with the numbers of a record elsewhere)
--       2 expected     version, '' = any                        (commit)
--         until_ms     from then on nobody waits for it any more, and nothing is done      (others)
--       3 idle_ms  4 absolute_ms   a new beginning; '' = as it is
--       5 user         '' = none
--       6 epoch        what the user's epoch must be, '' = any
--       7 max          most sessions of a user
--       8 hex          the record's key as it stands in the index      9 old hex   (cycle)
--      10 prefix       of the keys of records of this slot
--      11 began as     16 bytes, '' = as it is
--      12 base         the record elsewhere, without fields       (succeed)
--      13 n, then n times name value, of which the last of a name counts, then names to delete
-- Returns { 'done', version, expires_ms, deadline_ms } or { gone | exists | conflict | revoked | field | fields | size } or
-- { 'late', now_ms }
-- Complexity O(size of the record), with a user O(sessions of the user). Nothing is written unless 'done'; refused as a
-- whole when out of memory. Price: the sessions that a user has too many, and those that a commit looks for to clear the
-- index, are not in KEYS (same slot).
local MAX_FIELDS, MAX_FIELD, MAX_SIZE = 256, 4096, 16384
local HEAD, FIELD = '<BdddddI2c0Bc0', '<I2c0I2c0'
local mode, expected, idle_arg, absolute_arg, user = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local epoch, max, hex, old_hex, prefix, began, base = ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local last_set = 13 + 2 * tonumber(ARGV[13])
local record = KEYS[1]
local from = mode == 'cycle' and KEYS[2] or record
local index, epoch_key = KEYS[#KEYS - 1], KEYS[#KEYS]

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

if mode ~= 'commit' then
  if now >= tonumber(expected) then return { 'late', string.format('%.0f', now) } end
  expected = ''
end

-- all that may refuse comes before anything is written
local changed = {}
for i = 14, last_set, 2 do changed[ARGV[i]] = i end
for i = last_set + 1, #ARGV do changed[ARGV[i]] = i end

local version, expires, deadline, created, idle, owner = 0, 0, 0, now, 0, ''
local fields, count, size = {}, 0, 0
if mode ~= 'create' then
  local raw = mode == 'succeed' and base or redis.pcall('GET', from)
  -- what is none of ours raises an error
  local is_record = pcall(function()
    local form, origin, at
    form, version, expires, deadline, created, idle, owner, origin, at = struct.unpack(HEAD, raw)
    assert(form == 1 and (#origin == 0 or #origin == 16))
    if origin ~= '' then began = origin end
    while at <= #raw do
      local name, value, after = struct.unpack(FIELD, raw, at)
      if not changed[name] then
        count, size = count + 1, size + #name + #value
        fields[count] = string.sub(raw, at, after - 1)
      end
      at = after
    end
  end)
  if not is_record then return { 'gone' } end
end
if mode ~= 'commit' and redis.call('EXISTS', record) == 1 then return { 'exists' } end
if expected ~= '' and tonumber(expected) ~= version then return { 'conflict' } end
if user ~= '' and epoch ~= '' and epoch ~= (redis.call('GET', epoch_key) or '0') then return { 'revoked' } end
if absolute_arg ~= '' then
  created, expires, idle, deadline = now, 0, tonumber(idle_arg), now + tonumber(absolute_arg)
end
for i = 14, last_set, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if #name + #value > MAX_FIELD then return { 'field' } end
  if changed[name] == i then
    count, size = count + 1, size + #name + #value
    fields[count] = struct.pack(FIELD, #name, name, #value, value)
  end
end
if count > MAX_FIELDS then return { 'fields' } end
if size > MAX_SIZE then return { 'size' } end

version = version + 1
expires = math.max(expires, math.min(now + idle, deadline))
if user ~= '' then owner = user end
local head = struct.pack(HEAD, 1, version, expires, deadline, created, idle, #owner, owner, #began, began)
redis.call('SET', record, head .. table.concat(fields), 'PXAT', string.format('%.0f', expires))
if mode == 'cycle' then redis.call('UNLINK', from) end

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
