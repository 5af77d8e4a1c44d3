-- restore.lua: write again, with the same ids, what a node acknowledged and this book has forgotten.
-- ARGV map: rows [[id, record], ...], each with the newest state that the node acknowledged; room {item: units that
--   the other books have not taken}.
-- Reply: for each 1 (restored), 0 (nothing was missing), -1 (another reservation has its key, its units or its buyer's
--   limit by now, or it was paid, and has expired or was cancelled here).
-- Only while nobody spends (whole is 0): the stock is built afterwards. Keeps I1, I3, I5, I6.
if not epoch then return pack({ 'missing' }) end
if head[9] ~= '0' then return pack({ 'epoch', epoch, head[9] }) end
local outcomes, later = {}, { held = 0, paid = 1, cancelled = 1, expired = 1, refunded = 2 }
for i, each in ipairs(ask.rows) do
  local id, told = each[1], each[2]
  local row, named, of = row_of(id), told[2] .. ' ' .. told[4], item_of(told[1])
  outcomes[i] = 0
  local taken = told[4] ~= '' and (winners[named] or call('HGET', KEYS[3], named))
  taken = taken or of.limit and bought_of(told[1] .. ' ' .. told[2]) + told[3] > of.limit
  if not row and (taken or told[3] > ask.room[told[1]] - of.held - of.sold) then
    outcomes[i] = -1
  elseif not row then
    row = { told[1], told[2], told[3], told[4], told[5], told[6], 'held', told[5], '' }
    rows[id], touched[id], outcomes[i] = row, row, 1
    of.held = of.held + told[3]
    if of.limit then buy(told[1] .. ' ' .. told[2], told[3]) end
    if told[4] ~= '' then winners[named] = id end
    if told[7] == 'held' then due[#due + 1] = string.format('%.0f %s', told[6], id) end
    happened('held', now, id, ask.sale, told[1], told[2], told[3], told[4], told[6])
  elseif (row[7] == 'cancelled' or row[7] == 'expired') and (told[7] == 'paid' or told[7] == 'refunded') then
    outcomes[i] = -1
  end
  if row and later[row[7]] < later[told[7]] and (row[7] == 'held' or row[7] == 'paid') then
    if row[7] == 'held' and told[7] == 'refunded' then move(id, row, 'paid', told[9]) end
    if told[7] == 'paid' then move(id, row, 'paid', told[9]) else move(id, row, told[7]) end
    outcomes[i] = 1
  end
end
-- The due list stays in order: what falls due later than the first of these is put behind them again.
local function at_of(entry) return tonumber(entry:match('^%d+')) end
local function is_sooner(a, b) return at_of(a) < at_of(b) end
table.sort(due, is_sooner)
local first_at = due[1] and at_of(due[1])
for _ = 1, first_at and 20000 or 0 do
  local last = call('LINDEX', KEYS[5], -1)
  if not last or at_of(last) <= first_at then break end
  due[#due + 1] = call('RPOP', KEYS[5])
end
table.sort(due, is_sooner)
return reply('ok', outcomes)
