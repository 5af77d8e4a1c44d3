-- stock_reclaim.lua: the third step: put what a closed lease did not spend back. Done once, however often it is asked.
-- KEYS: 1 stock (see stock.lua). ARGV map: epoch, lease, spent (on all books, all of which have closed it), now, clock,
--   channel, node, sale. Reply: units put back, or -1 if it was done before or the epoch is another.
local call, ask = redis.call, cmsgpack.unpack(ARGV[1])
local function total(name) return tonumber(call('HGET', KEYS[1], name) or 0) end
local state = call('HGET', KEYS[1], 'state ' .. ask.lease)
if state ~= 'closing' or total('epoch') ~= ask.epoch then return -1 end
local units = total('granted ' .. ask.lease) - total('back ' .. ask.lease) - ask.spent
assert(units >= 0, 'a lease was spent beyond its grant')
call('HINCRBY', KEYS[1], 'available', units)
call('HDEL', KEYS[1], 'granted ' .. ask.lease, 'back ' .. ask.lease, 'until ' .. ask.lease)
call('HSET', KEYS[1], 'state ' .. ask.lease, 'gone', 'now', math.max(total('now'), ask.now),
  'clock', math.max(total('clock'), ask.clock))
if units > 0 then call('PUBLISH', ask.channel, ask.node .. ' ' .. ask.sale) end
return units
