-- book_epoch.lua: take a book through a recovery (see redis_recovery.py): raise its epoch, so that whoever still spends
-- under an older one is refused, and say how far the recovery is.
-- KEYS as in book.lua. ARGV map: epoch, whole (0, 2 or 1), items. A lower epoch changes nothing, nor does an equal one
--   that would take the recovery back. Reply: as of look.lua, the counters being those at this epoch.
if not epoch then return pack({ 'missing' }) end
local order = { ['0'] = 1, ['2'] = 2, ['1'] = 3 }
if ask.epoch < epoch or ask.epoch == epoch and order[tostring(ask.whole)] < order[head[9]] then
  return pack({ 'epoch', epoch, head[9] })
end
call('HSET', KEYS[1], 'epoch', ask.epoch, 'whole', ask.whole)
epoch = ask.epoch
for _, name in ipairs(ask.items) do item_of(name) end
return reply('ok', false)
