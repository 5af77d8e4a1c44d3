-- stock.lua: everything a node asks of the stock of one item, in one step: take over what has become free, take
-- back what it no longer needs, lease it more. Every total only grows, so each step may be repeated and come late.
-- KEYS: 1 stock: epoch now clock capacity available; "seen k" units released by book k and taken over;
--   for each lease "granted l", "back l" (totals), "until l" (by this server's clock), "state l" closing | gone.
-- ARGV map: epoch, now, clock; lease, want, ahead (units wanted now, and in advance), back (total), ttl_ms; capacity (total),
--   released {book: total}; make (whether the stock may be made); channel, node, sale.
-- Reply [status, now, clock, available, capacity, granted (total), {book: seen}]. Keeps I1, I2: available >= 0.
local call, pack, ask = redis.call, cmsgpack.pack, cmsgpack.unpack(ARGV[1])
local lease, stock = ask.lease, {}
local flat = call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do stock[flat[i]] = flat[i + 1] end
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
local available, came = total('available'), false
if ask.capacity > total('capacity') then
  available, came = available + ask.capacity - total('capacity'), true
  write('capacity', ask.capacity)
end
local seen = {}
for book, released in pairs(ask.released) do
  if released > total('seen ' .. book) then
    available, came = available + released - total('seen ' .. book), true
    write('seen ' .. book, released)
  end
end
for name, value in pairs(stock) do
  local book = name:match('^seen (.*)$')
  if book then seen[book] = tonumber(value) end
end
local status = stock['state ' .. lease] and 'fenced' or 'ok'
if status == 'ok' then
  if ask.back > total('back ' .. lease) then
    available, came = available + ask.back - total('back ' .. lease), true
    write('back ' .. lease, ask.back)
  end
  -- What is wanted in advance is a share that shrinks with what is left, so that no node sits on the last units.
  local units = math.min(ask.want + math.min(ask.ahead, math.floor(available / 8)), available)
  if units > 0 then
    available, came = available - units, false
    write('granted ' .. lease, total('granted ' .. lease) + units)
  end
  if stock['granted ' .. lease] then
    local time = call('TIME')
    write('until ' .. lease, time[1] * 1000 + math.floor(time[2] / 1000) + ask.ttl_ms)
  end
end
local now, clock = math.max(total('now'), ask.now), math.max(total('clock'), ask.clock)
call('HSET', KEYS[1], 'available', available, 'now', now, 'clock', clock)
if came and available > 0 then call('PUBLISH', ask.channel, ask.node .. ' ' .. ask.sale) end
return pack({ status, now, clock, available, total('capacity'), total('granted ' .. lease), seen })
