-- decide.lua: decide purchases, payments, cancellations and refunds of one book, in their order.
-- ARGV map: epoch; leases {item: [lease, units that may be spent]}; final {item: [units elsewhere, units released
--   that the node knows of]};
--   ops [[0, id, item, buyer, quantity, key] | [1, id, payment] | [2, id] | [3, id]].
-- Reply: an outcome for each op, up to the first for which the node must look for more units. Nothing
--   is done under another epoch or a closed lease (fenced). reserve.lua, put before this, decides a purchase.
local from, to = { 'held', 'held', 'paid' }, { 'paid', 'cancelled', 'refunded' }
local function change(kind, id, payment)
  local row = row_of(id)
  if not row then return 'U' end
  if row[7] == from[kind] then
    move(id, row, to[kind], payment)
    return { 'A', id, { unpack(row) } }
  end
  local same = row[7] == to[kind] and (not payment or row[9] == payment)
  return { same and 'B' or 'W', id, { unpack(row) } }
end

local outcomes = {}
for i, op in ipairs(ask.ops) do
  local outcome = (op[1] == 0 and reserve or change)(unpack(op))
  if not outcome then break end
  outcomes[i] = outcome
end
return reply('ok', outcomes)
