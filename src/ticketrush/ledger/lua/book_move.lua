-- book_move.lua: what happens to reservations of a book, and when the next falls due. Put behind book.lua.
-- An event, its fields: they are packed one behind the other, as an array of that many.
local function happened(...)
  events[#events + 1] = string.char(144 + select('#', ...)) .. pack(...)
  clock = clock + 1
end

-- Move a reservation to another state, and its units with it.
local function move(id, row, state, payment)
  local of, quantity, name = item_of(row[1]), row[3], row[1] .. ' ' .. row[2]
  if row[7] == 'held' then of.held = of.held - quantity else of.sold = of.sold - quantity end
  if state == 'paid' then
    of.sold = of.sold + quantity
  else
    of.released, of.freed = of.released + quantity, true
    if of.limit then buy(name, -quantity) end
  end
  row[7], row[8], row[9] = state, now, payment or row[9]
  touched[id] = row
  if payment then happened(state, now, id, payment) else happened(state, now, id) end
end

-- When the first hold falls due, and its id. Entries of reservations that are no longer held are dropped, a thousand
-- in one script: nobody waits for long. With more of them the time of the next entry is told, which has no id yet.
local to_drop = 1000
local function next_due()
  while true do
    local entry = call('LINDEX', KEYS[5], 0)
    if not entry then break end
    local at, id = entry:match('^(%d+) (.*)$')
    local row = row_of(id)
    if row and row[7] == 'held' then return tonumber(at), id end
    if to_drop == 0 then return tonumber(at) end
    to_drop = to_drop - 1
    call('LPOP', KEYS[5])
  end
  for _, entry in ipairs(due) do -- what this script has added, younger than all of those
    local at, id = entry:match('^(%d+) (.*)$')
    if row_of(id)[7] == 'held' then return tonumber(at) end
  end
  return false
end
