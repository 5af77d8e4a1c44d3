-- look.lua: the levels of a book as they are, of the items named; with `barrier` [now, clock], every later event of
-- this book comes behind it (and behind where the book is, if that is further).
if not epoch then return pack({ 'missing' }) end
for _, name in ipairs(ask.items) do item_of(name) end
if ask.barrier then
  now, clock = math.max(now, ask.barrier[1]), math.max(clock, ask.barrier[2])
  call('HSET', KEYS[1], 'now', now, 'clock', clock)
end
local more = call('HMGET', KEYS[1], 'epoch', 'opens', 'closes', 'whole', 'scheduled')
for _, name in ipairs(ask.items) do more[#more + 1] = call('HGET', KEYS[1], 'capacity:' .. name) end
local last = call('XREVRANGE', KEYS[6], '+', '-', 'COUNT', 1)[1]
more[#more + 1] = last and last[1] or '0-0'
return reply('ok', more)
