-- book_end.lua: write down what a script has done to a book, and word its reply. Put behind book_move.lua.
local function put(command, key, flat)
  for i = 1, #flat, 4000 do call(command, key, unpack(flat, i, math.min(i + 3999, #flat))) end
end

local function save()
  if #events == 0 then return end
  seq, version = seq + #events, math.max(version, ask.total) + #events
  local returned = false
  put('HSET', KEYS[1], { 'now', now, 'clock', clock, 'seq', seq, 'version', version })
  for name, of in pairs(items) do
    if of then
      put('HSET', KEYS[1], { 'held:' .. name, of.held, 'sold:' .. name, of.sold, 'released:' .. name, of.released })
      returned = returned or of.freed
      if of.spent > 0 then call('HINCRBY', KEYS[7], ask.leases[name][1] .. ' ' .. name, of.spent) end
    end
  end
  local records, units, none, keys = {}, {}, {}, {}
  for id, row in pairs(touched) do fresh[id] = pack(row) end
  for id, record in pairs(fresh) do records[#records + 1] = id; records[#records + 1] = record end
  for named, id in pairs(winners) do keys[#keys + 1] = named; keys[#keys + 1] = id end
  for name in pairs(moved) do
    if bought[name] > 0 then units[#units + 1] = name; units[#units + 1] = bought[name] else none[#none + 1] = name end
  end
  put('HSET', KEYS[2], records)
  put('HSET', KEYS[3], keys)
  put('HSET', KEYS[4], units)
  put('HDEL', KEYS[4], none)
  put('RPUSH', KEYS[5], due)
  call('XADD', KEYS[6], string.format('%.0f-%.0f', now, first), 'seq', seq, 'events',
    string.char(220, math.floor(#events / 256), #events % 256) .. table.concat(events))
  if returned then call('PUBLISH', ask.channel, ask.node .. ' ' .. ask.sale) end
end

-- at: when the newest event of this book happened. before: seq when the script began.
-- levels: item -> [held, sold, released, spent by this call]. epoch: of the book, as it is now.
local function reply(status, outcomes)
  local falls_due = next_due()
  save()
  local levels = {}
  for name, of in pairs(items) do
    if of then levels[name] = { of.held, of.sold, of.released, of.spent } end
  end
  local at = #events > 0 and now or tonumber(head[2]) or 0
  return pack({ status, at, clock, before, seq, version, falls_due, levels, outcomes, epoch })
end
