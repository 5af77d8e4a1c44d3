-- stock_reclaim.lua: the third step: put what a closed lease did not spend back. Done once, however often it is asked.
-- KEYS: 1 stock (see stock.lua). ARGV map: epoch, lease, spent (on all books, all of which have closed it), now, clock,
--   channel, node, sale. Reply [units put back, granted, back]; in the place of the units -1 if it was done before or
--   the epoch is another, -2 if more was spent than it had: then nothing is done, and the lease stays closed.
local call, ask = redis.call, cmsgpack.unpack(ARGV[1])
local function total(name) return tonumber(call('HGET', KEYS[1], name) or 0) end
local state, granted, back = call('HGET', KEYS[1], 'state ' .. ask.lease), total('granted ' .. ask.lease), total('back ' .. ask.lease)
if state ~= 'closing' or total('epoch') ~= ask.epoch then return cmsgpack.pack({ -1, granted, back }) end
local units = granted - back - ask.spent
if units < 0 then return cmsgpack.pack({ -2, granted, back }) end
local life, number = ask.lease:match('^(.*)%.(%d+)$')
call('HINCRBY', KEYS[1], 'available', units)
call('HDEL', KEYS[1], 'granted ' .. ask.lease, 'back ' .. ask.lease, 'until ' .. ask.lease, 'state ' .. ask.lease)
call('HSET', KEYS[1], 'fence ' .. life, math.max(total('fence ' .. life), tonumber(number)),
  'now', math.max(total('now'), ask.now), 'clock', math.max(total('clock'), ask.clock))
if units > 0 then call('PUBLISH', ask.channel, ask.node .. ' ' .. ask.sale) end
return cmsgpack.pack({ units, granted, back })
