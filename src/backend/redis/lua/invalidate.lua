#!lua flags=allow-oom
-- invalidate: every response that carries one of these cells, in this bucket. A tag needs one call in
-- each bucket; a URL (all its variants) one call in its own, with the primary cell as the only cell.
--
-- KEYS  1 c  bucket clock     2.. t or p cells (none for the 'all' modes; at most 1000 a call)
-- ARGV  1 mode     hard | soft | all-hard | all-soft
--       2 channel  sharded channel for process-local caches, '' = none; gets "<previous tick>:<tick>"
-- The tick is above every tick read before: an entry is dead iff its ticket F < the hard of one of its cells.
-- Returns the tick of the invalidation, or 0 when the bucket has no clock: then nothing in it can be
-- served and no outstanding ticket can be committed, so there is nothing to do.
-- Complexity O(cells), whatever the number of entries. Allowed when out of memory: values only change
-- in place, no key is created. An absent cell needs no write: it stands for c.hard_inv / c.soft_inv.
-- The clock, five numbers; anything that is not 40 bytes, or not whole numbers below 2^53, counts as absent.
local function parse_clock(raw)
  if type(raw) ~= 'string' or #raw ~= 40 then return nil end
  local tick, born, hard_inv, soft_inv, all_soft = struct.unpack('<ddddd', raw)
  if not (tick >= 0 and tick < 2 ^ 53 and tick % 1 == 0) then return nil end
  if not (born >= 0 and born < 2 ^ 53 and born % 1 == 0) then return nil end
  return tick, born, hard_inv, soft_inv, all_soft
end

local c, mode = KEYS[1], ARGV[1]
if mode ~= 'hard' and mode ~= 'soft' and mode ~= 'all-hard' and mode ~= 'all-soft' then
  return redis.error_reply('ERR invalidate: unknown mode')
end
local tick, born, hard_inv, soft_inv, all_soft = parse_clock(redis.pcall('GET', c))
if not tick then return 0 end
local hard_was, soft_was, prev = hard_inv, soft_inv, tick

local t = redis.call('TIME')
tick = math.max(tick + 1, t[1] * 1000000 + t[2])
if mode == 'hard' then hard_inv = tick
elseif mode == 'soft' then soft_inv = tick
elseif mode == 'all-hard' then born = tick        -- no entry and no ticket has this birth date
else all_soft = tick end
redis.call('SET', c, struct.pack('<ddddd', tick, born, hard_inv, soft_inv, all_soft))

if #KEYS > 1 and (mode == 'hard' or mode == 'soft') then
  local cells = redis.call('MGET', unpack(KEYS, 2))
  for i = 1, #cells do
    local v = cells[i]
    if v and #v >= 16 then
      local hard, soft = struct.unpack('<dd', v)
      if not (hard <= prev and soft <= prev) then hard, soft = hard_was, soft_was end
      if mode == 'hard' then hard = tick else soft = tick end
      redis.call('SET', KEYS[1 + i], struct.pack('<dd', hard, soft) .. string.sub(v, 17), 'XX', 'KEEPTTL')
    end
  end
end
if ARGV[2] ~= '' then redis.call('SPUBLISH', ARGV[2], string.format('%.0f:%.0f', prev, tick)) end
return tick
