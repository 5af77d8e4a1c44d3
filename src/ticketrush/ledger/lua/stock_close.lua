-- stock_close.lua: close leases, the first step of reclaiming them. A closing lease gets and returns nothing.
-- KEYS: 1 stock (see stock.lua). ARGV map: lease (that one, whatever its deadline) or false (all past it); every.
-- Reply [[lease, units granted and not given back], ...] of all leases that are closing.
local call, ask = redis.call, cmsgpack.unpack(ARGV[1])
local time, closing = call('TIME'), {}
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local flat, stock = call('HGETALL', KEYS[1]), {}
for i = 1, #flat, 2 do stock[flat[i]] = flat[i + 1] end
for name, value in pairs(stock) do
  local lease = name:match('^until (.*)$')
  local state = lease and stock['state ' .. lease]
  if lease and not state and (ask.every or ask.lease == lease or not ask.lease and tonumber(value) < now_ms) then
    call('HSET', KEYS[1], name:gsub('^until', 'state'), 'closing')
    state = 'closing'
  end
  if state == 'closing' then
    closing[#closing + 1] = { lease, tonumber(stock['granted ' .. lease] or 0) - tonumber(stock['back ' .. lease] or 0) }
  end
end
return cmsgpack.pack(closing)
