#!/bin/sh
# Rendered by `ticketrush edge nginx`: change the cluster file, and render again.
# Beside Nginx on a proxy, as root: it resets clients whose request does not come to its end.
#
# Nginx bounds the headers, but of a body only the gaps in it: who sends a byte a second stays. The kernel knows who that
# is: a client that goes on sending, and has been sent nothing since it began. It is told of that connection to end it
# (ss --kill: Linux with CONFIG_INET_DIAG_DESTROY, as that of Debian 12). IPv4 alone, as nginx.conf listens.
set -u
PATH="${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin"
export LC_ALL=C

every_s=2
looks=5  # so many after the first bytes of a request, more of it is too late
clients="sport = :8080"  # at our ports

say() {
  echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $*"
}

cannot() {
  say "cannot end clients that are too slow ($1): it needs root, and a kernel with CONFIG_INET_DIAG_DESTROY"
}

folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
trap 'exit 0' TERM INT HUP
: > "$folder/known"

# A line of what is known: connection, bytes sent and received, at which look its request was first and last seen to
# grow, how often, and whether it was to be ended. Three times at least: a request after a pause is one, and a browser's
# small talk another.
number=0
while :; do
  number=$((number + 1))
  ss -4tinHO state established "( $clients )" > "$folder/seen" || say "ss fails: no client is ended"
  awk -v now="$number" -v looks="$looks" -v known="$folder/known.new" -v late="$folder/late" -v stays="$folder/stays" '
    BEGIN { printf "" > known; printf "" > late; printf "" > stays }
    FILENAME ~ /known$/ { sent[$1] = $2; got[$1] = $3; began[$1] = $4; last[$1] = $5; times[$1] = $6; told[$1] = $7; next }
    {
      out = into = 0
      for (i = 5; i <= NF; i++) {
        if ($i ~ /^bytes_sent:/) out = substr($i, 12)
        else if ($i ~ /^bytes_received:/) into = substr($i, 16)
      }
      name = $3 "," $4
      is_new = !(name in sent) || into + 0 < got[name] + 0
      if (!is_new && told[name]) print name > stays
      told[name] = 0
      if (is_new ? into > 0 : sent[name] == out && got[name] != into) {
        if (is_new || !times[name] || now - last[name] > looks) { began[name] = now; times[name] = 0 }
        last[name] = now
        times[name]++
        if (times[name] >= 3 && now - began[name] >= looks) {
          filter = filter (count % 50 ? " or " : count ? "\n" : "") "( src " $3 " and dst " $4 " )"
          count++
          told[name] = 1
        }
      } else if (is_new || sent[name] != out) times[name] = began[name] = last[name] = 0
      print name, out, into, began[name], last[name], times[name], told[name] > known
    }
    END { if (count) print filter > late }' "$folder/known" "$folder/seen"
  mv "$folder/known.new" "$folder/known"
  ended=0
  : > "$folder/words"
  while read -r filter; do
    ended=$((ended + $(ss -4tnHOK state established "( $filter )" 2>> "$folder/words" | wc -l)))
  done < "$folder/late"
  [ "$ended" -eq 0 ] || say "ended $ended clients that were too slow"
  # Nothing is said of who has gone by himself. A kernel that ends nobody says nothing, but the client is still there.
  if [ -s "$folder/words" ]; then
    cannot "$(head -n 1 "$folder/words")"
  elif [ -s "$folder/stays" ]; then
    cannot "they are still there"
  fi
  sleep "$every_s" &
  wait $!
done
