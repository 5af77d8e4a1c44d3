-- restored.lua: a node has written again what it remembers of a sale (see redis_restore.py): the next one's turn.
-- KEYS: 1 the sale's restoring key. ARGV: 1 the node's token; another's is left alone. Reply: whether it was this one's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
