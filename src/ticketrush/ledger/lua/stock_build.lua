-- stock_build.lua: build the stock of an item anew from its books, all leases void. Once for each epoch.
-- KEYS: 1 stock (see stock.lua). ARGV map: epoch, now, clock, capacity, taken (held and sold on all books at this
--   epoch), released {book: total}. Reply: units available, or nil if this or a later epoch was built.
local call, ask = redis.call, cmsgpack.unpack(ARGV[1])
if tonumber(call('HGET', KEYS[1], 'epoch') or 0) >= ask.epoch then return false end
call('DEL', KEYS[1])
local available = ask.capacity - ask.taken
call('HSET', KEYS[1], 'epoch', ask.epoch, 'now', ask.now, 'clock', ask.clock, 'capacity', ask.capacity,
  'available', math.max(available, 0))
for book, released in pairs(ask.released) do call('HSET', KEYS[1], 'seen ' .. book, released) end
return available
