#!/bin/sh
# Secrets come as files, settings as variables: the one becomes the other here, and never shows in `ps`.
set -eu
if [ -f /run/secrets/token_secrets ]; then
  TICKETRUSH_TOKEN_SECRETS=$(cat /run/secrets/token_secrets)
  export TICKETRUSH_TOKEN_SECRETS
fi
if [ -f /run/secrets/valkey_password ]; then
  TICKETRUSH_LEDGER="redis://ticketrush:$(cat /run/secrets/valkey_password)@${VALKEY_HOST:-valkey}:6379/0"
  export TICKETRUSH_LEDGER
fi
exec ticketrush "$@"
