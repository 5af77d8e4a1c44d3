-- expire.lua: HELD -> EXPIRED for at most `most` reservations that are due by `due_by`, oldest first.
-- Harmless when repeated, and under any epoch: it only gives units back (as released, for the stock to take over).
if not epoch then return pack({ 'missing' }) end
local count = 0
while count < ask.most do
  local at, id = next_due()
  if not id or at > math.min(now, ask.due_by) then break end
  call('LPOP', KEYS[5])
  move(id, row_of(id), 'expired')
  count = count + 1
end
return reply('ok', count)
