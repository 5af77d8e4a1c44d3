#!/bin/sh
# Secrets come as files, settings as variables: the one becomes the other here, and never shows in `ps`.
set -eu
secrets=/run/secrets
if [ -f "$secrets/token_secrets" ]; then
  TICKETRUSH_TOKEN_SECRETS=$(cat "$secrets/token_secrets")
  export TICKETRUSH_TOKEN_SECRETS
fi
# A node is Valkey's user `ticketrush`; who makes orders is `orders`, with a password of its own.
if [ -f "$secrets/valkey_password" ]; then
  TICKETRUSH_LEDGER="redis://ticketrush:$(cat "$secrets/valkey_password")@${VALKEY_HOST:-valkey}:6379/0"
  export TICKETRUSH_LEDGER
elif [ -f "$secrets/valkey_orders_password" ]; then
  TICKETRUSH_LEDGER="redis://orders:$(cat "$secrets/valkey_orders_password")@${VALKEY_HOST:-valkey}:6379/0"
  export TICKETRUSH_LEDGER
fi
if [ -f "$secrets/postgres_password" ]; then
  TICKETRUSH_ORDERS="postgresql://ticketrush:$(cat "$secrets/postgres_password")@${POSTGRES_HOST:-postgres}:5432/ticketrush"
  export TICKETRUSH_ORDERS
fi
exec ticketrush "$@"
