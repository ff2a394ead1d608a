#!lua flags=no-writes
-- session_read: read the records of several sessions at once.
--
-- KEYS  records (see session_write.lua)
-- Returns, in one string of MessagePack, for each { field, value, … }, nothing in it if there is no record, or the
-- error as text. O(fields). One string, because what a reply consists of costs whoever reads it far more than its bytes.
local records = {}
for i, key in ipairs(KEYS) do
  local record = redis.pcall('HGETALL', key)
  records[i] = record.err or record
end
return cmsgpack.pack(records)
