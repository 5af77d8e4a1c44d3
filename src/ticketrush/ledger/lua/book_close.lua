-- book_close.lua: close a lease on one book, the second step of reclaiming it: from here on nothing is spent of it, nor
-- of those that its node took before, which it no longer uses.
-- KEYS: 1 leases (see book.lua). ARGV: 1 lease, 2 item. Reply: units spent of it, which is final.
local life, number = ARGV[1]:match('^(.*)%.(%d+)$')
local fence = 'closed ' .. life .. ' ' .. ARGV[2]
if tonumber(number) > tonumber(redis.call('HGET', KEYS[1], fence) or 0) then redis.call('HSET', KEYS[1], fence, number) end
return tonumber(redis.call('HGET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2]) or 0)
