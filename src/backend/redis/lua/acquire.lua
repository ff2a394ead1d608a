#!lua
-- acquire: ask for the right to fetch (a lease), or create the bucket's clock. A reader that has read the clock
-- holds a ticket already (its tick and its birth) and calls this only to coalesce; one that found no clock must
-- call it, with lease_ms = 0 if it does not coalesce. The ticket is had BEFORE the origin request is sent.
--
-- KEYS  1 l   lease hash        2 e  entry        3 c  bucket clock
--       4.. p, t...   cells to pin (optional): created now if absent, so that an invalidation of
--                     some OTHER tag during the fill cannot make the commit 'unsure'
-- ARGV  1 owner     unique for each attempt (16 random bytes)
--       2 lease_ms  0 = no lease, never waits
--       3 since_F   F of the entry the caller saw and cannot use (0 = saw none)
--       4 pin_ms    life of pinned cells (longest fill)
-- Returns an array; times are microseconds of the server's clock, lefts are milliseconds
--       granted     F born now           the lease is the caller's; F is new: younger than every ticket before it
--       ticket      F born now           no lease (lease_ms = 0); F is the clock's tick, as a look-up would read it
--       uncacheable F born now left      no lease: everybody may fetch
--       filled      F                    a newer entry was committed meanwhile: look up again
--       held        left F born          somebody else fetches with this ticket; he will wake us. F = 0: that fill
--                                        was under way when something was invalidated, its answer is not for you
--       error       left                 the origin failed a moment ago: stale or error, no fetch
-- Complexity O(cells). Never reads more than 24 bytes of the entry.
-- Refused as a whole (nothing written) when out of memory or on a replica: fetch without storing.
-- The clock, five numbers; anything that is not 40 bytes, or not whole numbers below 2^53, counts as absent.
local function parse_clock(raw)
  if type(raw) ~= 'string' or #raw ~= 40 then return nil end
  local tick, born, hard_inv, soft_inv, all_soft = struct.unpack('<ddddd', raw)
  if not (tick >= 0 and tick < 2 ^ 53 and tick % 1 == 0) then return nil end
  if not (born >= 0 and born < 2 ^ 53 and born % 1 == 0) then return nil end
  return tick, born, hard_inv, soft_inv, all_soft
end

local l, e, c = KEYS[1], KEYS[2], KEYS[3]
local owner, lease_ms, since_F, pin_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]

local tick, born, hard_inv, soft_inv, all_soft = parse_clock(redis.pcall('GET', c))

-- has somebody committed meanwhile? (only an entry of the present clock counts)
local head = redis.pcall('GETRANGE', e, 0, 23)
if tick and type(head) == 'string' and #head == 24 then
  local ver, _, _, _, F, b = struct.unpack('<BBHIdd', head)
  if ver == 1 and b == born and F <= tick and F > since_F then return { 'filled', F } end
end

-- the lease
local state, left = 'ticket', nil
if lease_ms > 0 then
  -- o owner, f b ticket, s start, x end, k kind; live from s to x: a clock that stepped back must not prolong it
  local h = redis.pcall('HMGET', l, 'o', 's', 'x', 'k', 'f', 'b')
  if h.err then redis.call('DEL', l) h = {} end
  local s, x = tonumber(h[2] or ''), tonumber(h[3] or '')
  local live = s and x and s <= now and now < x
  left = live and math.ceil((x - now) / 1000)
  if live and h[4] == 'e' then return { 'error', left } end
  if live and h[4] == 'u' then
    state = 'uncacheable'
  elseif live and h[1] and h[1] ~= owner then
    redis.call('HSET', l, 'w', '1')
    local F, b = tonumber(h[5] or ''), tonumber(h[6] or '')
    if F and b and b == born and F <= tick and F >= math.max(hard_inv, soft_inv, all_soft) then
      return { 'held', left, F, b }
    end
    return { 'held', left, 0, 0 }
  else
    state = 'granted'
  end
end

-- the ticket: a lease gets a tick of its own, so that what a paused leader commits is older than its successor's
local was = tick
if not tick then tick, born, hard_inv, soft_inv, all_soft = now, now, now, now, now end
if state == 'granted' then
  tick = math.max(tick + 1, now)
  redis.call('HSET', l, 'o', owner, 's', string.format('%.0f', now), 'x', string.format('%.0f', now + lease_ms * 1000),
    'f', string.format('%.0f', tick), 'b', string.format('%.0f', born))
  redis.call('HDEL', l, 'k')                         -- w stays: followers of a dead leader still wait
  redis.call('PEXPIRE', l, 2 * lease_ms + 1000)
end
if tick ~= was then redis.call('SET', c, struct.pack('<ddddd', tick, born, hard_inv, soft_inv, all_soft)) end

-- pin: a cell may be created by anybody at any time, with the values an absent cell stands for
if #KEYS > 3 then
  local cells = redis.call('MGET', unpack(KEYS, 4))
  for i = 1, #cells do
    if not (cells[i] and #cells[i] >= 16) then
      redis.call('SET', KEYS[3 + i], struct.pack('<dd', hard_inv, soft_inv), 'PX', pin_ms)
    end
  end
end
if state == 'uncacheable' then return { state, tick, born, now, left } end
return { state, tick, born, now }
