#!lua flags=allow-oom
-- mark: a write that WAIT can be asked for, after all that was written before it. Allowed when out of memory, as an
-- invalidation is; the key takes some 100 bytes for a minute.
--
-- KEYS  1 a   a key of the bucket
-- Returns 1. Complexity O(1).
redis.call('SET', KEYS[1], '1', 'PX', 60000)
return 1
