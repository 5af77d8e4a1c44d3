#!/bin/sh
# Valkey with a user for the nodes and one for who makes orders: passwords from files, only the commands and keys that
# each of them needs.
set -eu
umask 077
password=$(cat /run/secrets/valkey_password)
orders_password=$(cat /run/secrets/valkey_orders_password)
{
  printf 'user default off\n'
  printf 'user health on nopass resetkeys resetchannels -@all +ping\n'
  printf 'user ticketrush on >%s ~ticketrush:* resetchannels &ticketrush:changed -@all %s\n' "$password" \
    '+evalsha +script|load +hello +auth +select +client|setinfo +client|setname +client|id +ping +info +config|get +time +wait +subscribe +unsubscribe +publish +hget +hmget +hset +hsetnx +hdel +hgetall +hkeys +hvals +hlen +hexists +hscan +hincrby +incr +incrby +set +get +pexpire +sadd +smembers +xadd +xrange +xrevrange +xread +rpush +rpop +lpop +lindex +lrange +del'
  printf 'user orders on >%s ~ticketrush:*:events %%R~ticketrush:* resetchannels -@all %s\n' "$orders_password" \
    '+hello +auth +select +client|setinfo +client|setname +client|id +ping +info +config|get +hmget +hgetall +hscan +xreadgroup +xgroup|create +xgroup|delconsumer +xautoclaim +xack +xpending +xlen +xinfo|groups (~ticketrush:comparing -@all +set)'
} > /tmp/users.acl
exec valkey-server --port 6379 --dir /data --save '' --appendonly yes --appendfsync always --auto-aof-rewrite-min-size 256mb \
  --maxmemory-policy noeviction --protected-mode no --aclfile /tmp/users.acl
