-- Load for wrk: every request is another purchase. A buyer's token in turn, a fresh Idempotency-Key, which says so.
-- Arguments: file of tokens (a line each), path, item, prefix of the keys (fresh for every run), and the
-- milliseconds that each connection waits before a request, 0 for none.
-- Prints one line "figures {...}" at the end; counts and times are wrk's own.
-- All that does not change is put together before the run: wrk's own CPU is part of the contest.
local heads, tail, count, sent = {}, "", 0, 0

function init(args)
  local body = '{"item":"' .. args[3] .. '","quantity":1}'
  local start = "POST " .. args[2] .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nAuthorization: Bearer "
  local rest = "\r\nContent-Type: application/json\r\nContent-Length: " .. #body
    .. "\r\nIdempotency-Attempt: 1\r\nIdempotency-Key: " .. args[4]
  for token in io.lines(args[1]) do
    heads[#heads + 1] = start .. token .. rest
  end
  count = #heads
  tail = "\r\n\r\n" .. body
  local pause = tonumber(args[5])
  if pause > 0 then
    delay = function() return math.random(0, 2 * pause) end -- wrk asks for it, if it is there
  end
end

function request()
  sent = sent + 1
  return heads[sent % count + 1] .. sent .. tail
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'figures {"requests":%d,"duration_us":%d,"bytes":%d,"refusals":%d,"connect_errors":%d,"read_errors":%d,'
      .. '"write_errors":%d,"timeouts":%d,"latency_us_p50":%d,"latency_us_p99":%d,"latency_us_max":%d}\n',
    summary.requests, summary.duration, summary.bytes, errors.status, errors.connect, errors.read,
    errors.write, errors.timeout, latency:percentile(50), latency:percentile(99), latency.max))
end
