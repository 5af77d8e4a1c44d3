-- book_close.lua: close a lease on one book, the second step of reclaiming it: from here on nothing is spent of it.
-- KEYS: 1 leases (see book.lua). ARGV: 1 lease, 2 item. Reply: units spent of it, which is final.
local name = ARGV[1] .. ' ' .. ARGV[2]
redis.call('HSET', KEYS[1], 'closed ' .. name, 1)
return tonumber(redis.call('HGET', KEYS[1], name) or 0)
