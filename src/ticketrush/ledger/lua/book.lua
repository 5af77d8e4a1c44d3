-- book.lua: one book of a sale. Put before every script that changes reservations.
-- KEYS: 1 meta, 2 records, 3 keys, 4 bought, 5 due, 6 events, 7 leases; all in one hash slot.
--   meta     epoch now clock seq version opens closes hold whole; for each item limit:i held:i sold:i released:i;
--            whole: 1 selling; after a failover 0 while nodes restore, 2 while the stock is built (redis_recovery.py)
--   records  id -> [item, buyer, quantity, key, held_at, expires_at, state, changed_at, payment]
--   keys     "buyer key" -> id of the reservation made with it (I5)
--   bought   "item buyer" -> units held and owned, of items with a purchase limit (I6)
--   due      "expires_at id", oldest first
--   leases   "lease item" -> units spent, only growing, until the lease is reclaimed; a lease is "life.number";
--            "closed life item" -> the number up to which the leases of that life are closed for ever (the fence)
-- ARGV: 1 a MessagePack map; now, clock, total, node and what the script says.
local call, pack, decode = redis.call, cmsgpack.pack, cmsgpack.unpack
local ask = decode(ARGV[1])
local head = call('HMGET', KEYS[1], 'epoch', 'now', 'clock', 'seq', 'version', 'opens', 'closes', 'hold',
  'whole')
local epoch, opens, closes, hold = tonumber(head[1]), tonumber(head[6]), tonumber(head[7]), tonumber(head[8])
local seq, version = tonumber(head[4]) or 0, tonumber(head[5]) or 0
-- now and clock never run backwards, and pass what any key has seen that led here: events of several
-- books, ordered by (now, clock), are in the order of cause and effect.
local now = math.max(tonumber(head[2]) or 0, ask.now)
local clock = math.max(tonumber(head[3]) or 0, ask.clock)
local first, before, events, items, rows, touched, due = clock + 1, seq, {}, {}, {}, {}, {}
local winners, bought, moved, fresh = {}, {}, {}, {}

local function item_of(name)
  if items[name] == nil then
    local v = call('HMGET', KEYS[1], 'limit:' .. name, 'held:' .. name, 'sold:' .. name, 'released:' .. name)
    items[name] = v[2] and { limit = tonumber(v[1]), held = tonumber(v[2]), sold = tonumber(v[3]),
      released = tonumber(v[4]), spent = 0, freed = false }
  end
  return items[name]
end

local function row_of(id)
  if rows[id] == nil then
    local packed = fresh[id] or call('HGET', KEYS[2], id)
    rows[id] = packed and decode(packed)
  end
  return rows[id]
end

local function bought_of(name)
  if bought[name] == nil then bought[name] = tonumber(call('HGET', KEYS[4], name)) or 0 end
  return bought[name]
end

local function buy(name, quantity)
  bought[name] = bought_of(name) + quantity
  moved[name] = true
end
