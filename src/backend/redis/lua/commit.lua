#!lua
-- commit: store a fetched response, refresh the head of a stored one after a 304, or drop a stored one because
-- the origin's newer answer must not be reused.
--
-- The response itself never passes through Lua (a copy in and a copy out: 100 us for 64 KiB, 1.4 ms for
-- 1 MiB, in which nothing else runs). The caller sends, in one pipeline, SET s <blob> PX 60000 and then this
-- script, which checks the ticket and renames s to e.
--
-- KEYS  1 e  entry   2 p  primary cell   3 c  bucket clock   4 l  lease (the one acquired)
--       5 s  staged blob, a name of its own for each attempt; for refresh and drop: e once more
--       6.. t1..tk   tag cells, in the order of the digests in the head; each key ends in its digest (drop: none)
--       One key more may be unlinked, of the same slot: the entry of the oldest variant, see 'variant'.
-- ARGV  1 owner    as given to acquire ('' = no lease)
--       2 life_ms  how long the key is kept (dead_at - now, at least 1)
--       3 vary     Vary spec for the primary cell; '' = leave as it is
--       4 variant  8 bytes, the end of e after a ':'; '' = the response does not vary. The primary cell lists
--                  the 16 variants committed last; the entry of the one that falls off the list is unlinked.
--       5 channel  sharded pub/sub channel of the bucket, in its slot
--       6 mode     store    rename s to e
--                  refresh  put the new head on the stored entry that has base_F
--                  drop     unlink e unless it is newer than the ticket
--       7 base_F   refresh: F of the stored entry. store: 0, or the F of the entry that must be stored at present,
--                  when a refreshed head has outgrown its room and is stored with its body like a new response
--       8 head     refresh: exactly as long as the body_off of the stored entry; drop: a head without tags
--       blob = <u8 ver=1><u8 flags><u16 ntags><u32 body_off><d F><d born><d fresh_at><d dead_at>
--              ntags*8 digest bytes, header block, padding up to body_off, body;  head = blob without body
--       p    = <d hard><d soft><u16 spec length><u16 variants> Vary spec, variants*8 digest bytes (oldest first);
--              16 bytes (hard, soft) = spec not known; any other length counts as absent
-- Returns one of
--       stored | refreshed | dropped   (dropped: nothing older than the ticket is there now)
--       superseded   an entry with F >= this F is there (drop: F > this F). Equal F: the first stays, because
--                    base_F names an entry by its F
--       gone         the entry that has base_F is not there any more
--       unstaged     the staged blob is not there (it was redirected, or this is an attempt too many)
--       misfit       the body of the stored entry does not begin where the new head ends: store it with its body
--       invalidated  a tag or the primary was invalidated after the ticket was read
--       unsure       a cell is absent and something in this bucket was invalidated since the ticket;
--                    the cells exist from now on, so the next fill will be decided exactly
--       clock_lost   the clock was lost or everything purged since the ticket was read
--       malformed    blob and keys do not fit together: a bug of the caller
-- Complexity O(tags); a refresh O(head). Nothing depends on the size of the body.
-- Refused as a whole when out of memory or on a replica: then call release.
-- The clock, five numbers; anything that is not 40 bytes, or not whole numbers below 2^53, counts as absent.
local function parse_clock(raw)
  if type(raw) ~= 'string' or #raw ~= 40 then return nil end
  local tick, born, hard_inv, soft_inv, all_soft = struct.unpack('<ddddd', raw)
  if not (tick >= 0 and tick < 2 ^ 53 and tick % 1 == 0) then return nil end
  if not (born >= 0 and born < 2 ^ 53 and born % 1 == 0) then return nil end
  return tick, born, hard_inv, soft_inv, all_soft
end

local e, p, c, l, s = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local owner, life_ms, vary, variant, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local mode, base_F = ARGV[6], tonumber(ARGV[7])
local PREFIX, NTAGS, MAX_VARIANTS = 40, #KEYS - 5, 16

-- primary cell -> hard, soft, spec, variants; nil when it is none
local function primary(v)
  if not v or #v < 16 then return nil end
  local hard, soft = struct.unpack('<dd', v)
  if #v == 16 then return hard, soft, '', '' end
  if #v < 20 then return nil end
  local spec_len, n = struct.unpack('<HH', string.sub(v, 17, 20))
  if #v ~= 20 + spec_len + 8 * n then return nil end
  return hard, soft, string.sub(v, 21, 20 + spec_len), string.sub(v, 21 + spec_len)
end

local function decide()
  -- the new head: prefix and digests
  local head, len = ARGV[8], 0
  if mode == 'store' then
    head = redis.pcall('GETRANGE', s, 0, PREFIX + 8 * NTAGS - 1)
    if type(head) ~= 'string' or head == '' then return 'unstaged' end
    len = redis.call('STRLEN', s)
  elseif mode == 'refresh' or mode == 'drop' then
    len = #head
  else
    return 'malformed'
  end
  if #head < PREFIX + 8 * NTAGS then return 'malformed' end
  local ver, _, ntags, off, F, born0 = struct.unpack('<BBHIdd', head)
  if ver ~= 1 or ntags ~= NTAGS or off < PREFIX + 8 * NTAGS or off > len then return 'malformed' end
  for i = 1, NTAGS do
    if string.sub(head, 33 + 8 * i, 40 + 8 * i) ~= string.sub(KEYS[5 + i], -8) then return 'malformed' end
  end
  if variant ~= '' and (#variant ~= 8 or string.sub(e, -9) ~= ':' .. variant) then return 'malformed' end

  -- the ticket must come from the clock that is there now
  local tick, born, hard_inv, soft_inv, all_soft = parse_clock(redis.pcall('GET', c))
  if not tick then return 'clock_lost' end
  if born ~= born0 or not (F <= tick) then return 'clock_lost' end

  -- what is stored now? (an entry of another clock counts as none)
  local old, F1, off1 = redis.pcall('GETRANGE', e, 0, 23), nil, nil
  if type(old) == 'string' and #old == 24 then
    local v1, b1
    v1, _, _, off1, F1, b1 = struct.unpack('<BBHIdd', old)
    if v1 ~= 1 or b1 ~= born or F1 > tick then F1 = nil end
  end
  if mode == 'drop' then
    if F1 and F1 > F then return 'superseded' end
    redis.call('UNLINK', e)
    return 'dropped'
  end
  if F1 and F1 >= F then return 'superseded' end
  if base_F > 0 and F1 ~= base_F then return 'gone' end
  if mode == 'refresh' and off1 ~= off then return 'misfit' end
  if mode == 'refresh' and len ~= off then return 'malformed' end

  -- cells: p, t1..tk. An absent (short, foreign) cell stands for the last invalidation of anything.
  -- A value above the clock is left over from a lost clock: it says nothing about this one.
  local keys = { p, unpack(KEYS, 6) }
  local cells = redis.call('MGET', unpack(keys))
  local verdict, p_hard, p_soft, spec, variants = 'stored', primary(cells[1])
  for i = 1, #keys do
    local v, hard, soft = cells[i], p_hard, p_soft
    if i > 1 and v and #v == 16 then hard, soft = struct.unpack('<dd', v) elseif i > 1 then hard = nil end
    if hard and not (hard <= tick and soft <= tick) then hard = nil end
    if hard then
      if not (F >= hard) then verdict = 'invalidated' end
    else
      if not (F >= hard_inv) and verdict == 'stored' then verdict = 'unsure' end
      if i > 1 then
        redis.call('SET', keys[i], struct.pack('<dd', hard_inv, soft_inv), 'PX', life_ms)
      else
        p_hard = nil
      end
    end
  end

  -- the primary cell: spec, and (when stored) this variant at the end of the list
  local fresh = not p_hard
  if fresh then p_hard, p_soft, spec, variants = hard_inv, soft_inv, '', '' end
  if vary ~= '' then spec = vary end
  if variant ~= '' and verdict == 'stored' then
    for i = 1, #variants, 8 do
      if string.sub(variants, i, i + 7) == variant then
        variants = string.sub(variants, 1, i - 1) .. string.sub(variants, i + 8)
        break
      end
    end
    variants = variants .. variant
    while #variants > 8 * MAX_VARIANTS do
      -- pcall: a cluster that is moving the slot may refuse the key; it then lives until it expires
      redis.pcall('UNLINK', string.sub(e, 1, -9) .. string.sub(variants, 1, 8))
      variants = string.sub(variants, 9)
    end
  end
  local cell = struct.pack('<ddHH', p_hard, p_soft, #spec, #variants / 8) .. spec .. variants
  if fresh then
    redis.call('SET', p, cell, 'PX', life_ms)
  elseif cell ~= cells[1] then
    redis.call('SET', p, cell, 'KEEPTTL')
  end
  if verdict ~= 'stored' then return verdict end

  for i = 1, #keys do redis.call('PEXPIRE', keys[i], life_ms, 'GT') end
  if mode == 'store' then
    redis.call('RENAME', s, e)
  else
    redis.call('SETRANGE', e, 0, head)
    verdict = 'refreshed'
  end
  redis.call('PEXPIRE', e, life_ms)
  -- who sees this entry has a ticket younger than it
  redis.call('SET', c, struct.pack('<ddddd', tick + 1, born, hard_inv, soft_inv, all_soft))
  return verdict
end

local verdict = decide()
if mode == 'store' and verdict ~= 'stored' then redis.call('UNLINK', s) end
-- the lease: drop it if it is the caller's; wake followers whenever something changed for them
local h = redis.pcall('HMGET', l, 'o', 'w')
if not h.err then
  local mine = owner ~= '' and h[1] == owner
  if mine then redis.call('DEL', l) end
  if h[2] and (mine or verdict == 'stored' or verdict == 'refreshed') then
    if not mine then redis.call('HDEL', l, 'w') end
    redis.call('SPUBLISH', channel, l)
  end
end
return verdict
