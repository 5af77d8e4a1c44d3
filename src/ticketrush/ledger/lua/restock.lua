-- restock.lua: write again the additions to an item that this book, the first one of its sale, has forgotten.
-- KEYS as in book.lua. ARGV map: item; added [[key, units], ...] that the node made itself; up_to, the largest capacity
--   that it knows of. The capacity becomes the larger one of that and its own, whoever adds, in whatever order.
-- Keeps I5: a key that is written again adds nothing when its addition is repeated.
if not epoch then return pack({ 'missing' }) end
local before = tonumber(call('HGET', KEYS[1], 'capacity:' .. ask.item))
local capacity = before
local function add(units, key)
  if units <= 0 then return end
  capacity = capacity + units
  happened('stock_added', now, ask.sale, ask.item, units, key)
end
for _, each in ipairs(ask.added) do
  local key, units = each[1], each[2]
  if call('HSETNX', KEYS[1], 'added:' .. ask.item .. ' ' .. key, units) == 1 then
    add(math.min(units, ask.up_to - capacity), key)
  end
end
add(ask.up_to - capacity, string.format('restored to %.0f', ask.up_to))
if capacity > before then call('HSET', KEYS[1], 'capacity:' .. ask.item, capacity) end
return reply('ok', false)
