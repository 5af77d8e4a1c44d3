-- reserve.lua: how a purchase is decided. Put before decide.lua, which says what is asked and replied.
-- Nothing is done under another epoch or a closed lease. Keeps I1 (spent <= units), I5 and I6.
if not epoch then return pack({ 'missing' }) end
if epoch ~= ask.epoch or head[9] ~= '1' then return pack({ 'epoch', epoch, head[9] }) end
for name, lease in pairs(ask.leases) do
  local life, number = lease[1]:match('^(.*)%.(%d+)$')
  local fence = call('HGET', KEYS[7], 'closed ' .. life .. ' ' .. name)
  if fence and tonumber(number) <= tonumber(fence) then return pack({ 'fenced', name }) end
end

-- What the purchases are decided by, fetched all at once: the keys that have won, and what the buyers own.
local function fetch(key, names, into, as)
  for i = 1, #names, 4000 do
    local found = call('HMGET', key, unpack(names, i, math.min(i + 3999, #names)))
    for j, value in ipairs(found) do into[names[i + j - 1]] = as and as(value or 0) or value end
  end
end
local named, by, known, expires = {}, {}, {}, now + hold
for _, op in ipairs(ask.ops) do
  if op[1] == 0 then
    if op[6] ~= '' then named[#named + 1] = op[4] .. ' ' .. op[6] end
    local of = item_of(op[3])
    if of and of.limit then by[#by + 1] = op[3] .. ' ' .. op[4] end
  end
end
fetch(KEYS[3], named, known)
fetch(KEYS[4], by, bought, tonumber)
local due_at, sale = string.format('%.0f ', expires), pack(ask.sale)
local begins, ends, tail = '\153' .. pack('held', now), pack(expires), pack(now, expires, 'held', now, '')

local function reserve(_, id, name, buyer, quantity, key)
  local of, pair = item_of(name), key ~= '' and buyer .. ' ' .. key
  local won = pair and (winners[pair] or known[pair])
  if won then
    local row = row_of(won)
    return { (row[1] == name and row[3] == quantity) and 'R' or 'K', won, { unpack(row) } }
  end
  if closes and now >= closes then return 'C' end
  if not opens or now < opens then return 'N' end
  if not of then return 'I' end
  local owner = of.limit and name .. ' ' .. buyer
  if owner and bought[owner] + quantity > of.limit then return 'L' end
  of.left = of.left or (ask.leases[name] and ask.leases[name][2] or 0)
  if quantity > of.left then
    local final = ask.final[name]
    if not final or of.released > final[2] then return nil end
    return quantity <= of.left + final[1] + of.held and { 'H', next_due() or now } or 'S'
  end
  of.left, of.spent, of.held = of.left - quantity, of.spent + quantity, of.held + quantity
  if owner then buy(owner, quantity) end
  if pair then winners[pair] = id end
  local front = pack(name, buyer, quantity, key)
  fresh[id], due[#due + 1] = '\153' .. front .. tail, due_at .. id
  events[#events + 1] = begins .. pack(id) .. sale .. front .. ends
  clock = clock + 1
  return 1
end
