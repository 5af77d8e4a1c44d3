-- sale.lua: create, open, close or restock a sale; its record and schedule are in its first book. On the other books,
-- silent (no event), create makes the book, and close or copy sets its schedule.
-- A copy is as of clock `at` of the first book; an older one than the book has does nothing.
-- ARGV 1 map: op; for create, with the sale in MessagePack as 2: place (its number), shards, opens, closes, hold,
--   items [[id, capacity, limit]]; for add: item, units, id (the idempotency key), most.
-- Reply: 'ok' when it was done and an event written, else why not. Keeps I5 for additions.
local function written(event)
  clock, seq, version = clock + 1, seq + 1, math.max(version, ask.total) + 1
  call('HSET', KEYS[1], 'now', now, 'clock', clock, 'seq', seq, 'version', version)
  call('XADD', KEYS[6], string.format('%.0f-%.0f', now, first), 'seq', seq, 'events', event)
  call('PUBLISH', ask.channel, ask.node .. ' ' .. ask.sale)
  return reply('ok', false)
end
local one, none = '\145', cjson.null -- a MessagePack array of one
if ask.op == 'create' then
  local blob = call('HGET', KEYS[1], 'created')
  if blob then return reply(blob == ARGV[2] and 'repeated' or 'exists', false) end
  local meta = { 'epoch', ask.epoch, 'whole', ask.whole, 'created', ARGV[2], 'number', ask.place, 'shards', ask.shards, 'hold', ask.hold }
  for _, name in ipairs({ 'opens', 'closes' }) do
    if ask[name] then meta[#meta + 1] = name; meta[#meta + 1] = ask[name] end
  end
  for _, item in ipairs(ask.items) do
    local id, limit = item[1], tonumber(item[3])
    if limit then meta[#meta + 1] = 'limit:' .. id; meta[#meta + 1] = limit end
    for _, field in ipairs({ 'held:', 'sold:', 'released:' }) do meta[#meta + 1] = field .. id; meta[#meta + 1] = 0 end
    meta[#meta + 1] = 'capacity:' .. id; meta[#meta + 1] = item[2]
  end
  put('HSET', KEYS[1], meta)
  epoch = ask.epoch
  return ask.silent and reply('ok', false) or written(one .. '\147' .. pack('sale_created') .. pack(now) .. ARGV[2])
end
if not epoch then return pack({ 'missing' }) end
local is_closed, is_open = closes and now >= closes, opens and now >= opens
if ask.op == 'add' then
  local field, capacity = 'added:' .. ask.item .. ' ' .. ask.id, tonumber(call('HGET', KEYS[1], 'capacity:' .. ask.item))
  if not capacity then return reply('unknown_item', false) end
  local units = tonumber(call('HGET', KEYS[1], field))
  if units then return reply(units == ask.units and 'repeated' or 'reused', false) end
  if capacity + ask.units > ask.most then return reply('limit', false) end
  call('HSET', KEYS[1], 'capacity:' .. ask.item, capacity + ask.units, field, ask.units)
  return written(pack({ { 'stock_added', now, ask.sale, ask.item, ask.units, ask.id } }))
elseif ask.op == 'open' then
  if is_open and not is_closed then return reply('repeated', false) end
  if is_closed then call('HDEL', KEYS[1], 'closes'); closes = nil end
  opens = now
elseif ask.op == 'close' then
  if is_closed then return reply('repeated', false) end
  closes = now
end
if ask.op == 'copy' then
  if ask.at and ask.at < (tonumber(call('HGET', KEYS[1], 'scheduled')) or 0) then return reply('repeated', false) end
  if ask.at then call('HSET', KEYS[1], 'scheduled', ask.at) end
  opens, closes = tonumber(ask.opens), tonumber(ask.closes)
end
call('HSET', KEYS[1], 'opens', opens or '', 'closes', closes or '')
if ask.silent then return reply('ok', false) end
if not ask.at then call('HSET', KEYS[1], 'scheduled', clock + 1) end
return written(pack({ { 'sale_scheduled', now, ask.sale, opens or none, closes or none } }))
