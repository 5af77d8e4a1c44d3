#!/bin/sh
# Valkey with the user of the nodes: its password from a file, only the commands and keys that the ledger needs.
set -eu
umask 077
password=$(cat /run/secrets/valkey_password)
{
  printf 'user default off\n'
  printf 'user health on nopass resetkeys resetchannels -@all +ping\n'
  printf 'user ticketrush on >%s ~ticketrush:* resetchannels &ticketrush:changed -@all %s\n' "$password" \
    '+evalsha +script|load +hello +auth +select +client|setinfo +client|setname +client|id +ping +info +config|get +time +wait +subscribe +unsubscribe +publish +hget +hmget +hset +hsetnx +hdel +hgetall +hkeys +hvals +hexists +hscan +hincrby +incr +incrby +set +get +pexpire +sadd +smembers +xadd +xrange +xrevrange +xread +rpush +lpop +lindex +del'
} > /tmp/users.acl
exec valkey-server --port 6379 --dir /data --save '' --appendonly yes --appendfsync always \
  --maxmemory-policy noeviction --protected-mode no --aclfile /tmp/users.acl
