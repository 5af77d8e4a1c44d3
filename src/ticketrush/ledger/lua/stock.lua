-- stock.lua: everything a node asks of the stock of one item, in one step: take over what has become free, take
-- back what it no longer needs, lease it more. Every total only grows, so each step may be repeated and come late.
-- KEYS: 1 stock: epoch now clock capacity available; "seen k" units released by book k and taken over;
--   for each lease l that is not reclaimed "granted l", "back l" (totals), "until l" (by this server's clock),
--   "state l" closing. A lease is "life.number", numbered as its node takes them; "fence life": those up to this
--   number are closed for ever, whatever of them is still here to be reclaimed.
-- ARGV map: epoch, now, clock; lease, want, ahead (units wanted now, and in advance), back (total), ttl_ms (0: the lease
--   needs none); capacity (total), books (how many), released {book: total}; make (whether the stock may be made);
--   channel, node, sale.
-- Reply [status, now, clock, available, capacity, granted (total), {book: seen}]. Keeps I1, I2: available >= 0.
local call, pack, ask = redis.call, cmsgpack.pack, cmsgpack.unpack(ARGV[1])
local lease, stock = ask.lease, {}
local life, number = lease:match('^(.*)%.(%d+)$')
local names = { 'epoch', 'now', 'clock', 'available', 'capacity', 'granted ' .. lease, 'back ' .. lease,
  'state ' .. lease, 'fence ' .. life }
for book = 0, ask.books - 1 do names[#names + 1] = 'seen ' .. book end
for i, value in ipairs(call('HMGET', KEYS[1], unpack(names))) do stock[names[i]] = value end
local function total(name) return tonumber(stock[name] or 0) end
local function write(name, value)
  stock[name] = value
  call('HSET', KEYS[1], name, value)
end
if not stock.epoch then
  if not ask.make then return pack({ 'missing' }) end
  write('epoch', ask.epoch)
end
if total('epoch') ~= ask.epoch then return pack({ 'epoch', total('epoch') }) end
local available, came, seen = total('available'), false, {}
local function grow(name, to) -- by as much as a total has grown there is more
  available, came = available + to - total(name), true
  write(name, to)
end
if ask.capacity > total('capacity') then grow('capacity', ask.capacity) end
for book, released in pairs(ask.released) do
  if released > total('seen ' .. book) then grow('seen ' .. book, released) end
end
for book = 0, ask.books - 1 do
  if stock['seen ' .. book] then seen[tostring(book)] = total('seen ' .. book) end
end
local is_fenced = stock['state ' .. lease] or tonumber(number) <= total('fence ' .. life)
if not is_fenced then
  if ask.back > total('back ' .. lease) then grow('back ' .. lease, ask.back) end
  -- What is wanted in advance is a share that shrinks with what is left, so that no node sits on the last units.
  local units = math.min(ask.want + math.min(ask.ahead, math.floor(available / 8)), available)
  if units > 0 then
    available, came = available - units, false
    write('granted ' .. lease, total('granted ' .. lease) + units)
  end
  if ask.ttl_ms > 0 and stock['granted ' .. lease] then
    local time = call('TIME')
    call('HSET', KEYS[1], 'until ' .. lease, time[1] * 1000 + math.floor(time[2] / 1000) + ask.ttl_ms)
  end
end
local now, clock = math.max(total('now'), ask.now), math.max(total('clock'), ask.clock)
call('HSET', KEYS[1], 'available', available, 'now', now, 'clock', clock)
if came and available > 0 then call('PUBLISH', ask.channel, ask.node .. ' ' .. ask.sale) end
return pack({ is_fenced and 'fenced' or 'ok', now, clock, available, total('capacity'), total('granted ' .. lease), seen })
