-- wrk script: sends buffered pushes of many messages, the same bytes each time. Prints a line of figures at the end.
--
--   wrk … -s bench/wrk/body.lua URL -- items 100      100 items of 50 bytes to /api/v1/push
--   wrk … -s bench/wrk/body.lua URL -- lines 1048576  1 MiB of lines like those of an event log to /push/bench
--
-- Prefer: return=minimal leaves the lists out of the responses, since only the requests are to be measured.

dofile("bench/wrk/figures.lua")

local function event(n)
  return string.format(
    '{"event":"order.created","id":"%08x-5b1a-4c2e-9d3f-%012x","at":"2026-11-24T20:%02d:%02d.%03dZ","customer":{"id":%d,' ..
    '"name":"Jos\\u00e9 Mart\\u00edn","tier":"gold"},"lines":[{"sku":"A-%05d","quantity":%d,"price":%d.%02d},{"sku":"B-%05d",' ..
    '"quantity":1,"price":4.50}],"note":"leave with \\"Anna\\" at the door","total":%d.%02d,"paid":true,"coupon":null}',
    n * 2654435761 % 4294967296, n, n % 60, n * 7 % 60, n % 1000, n * 31 % 100000, n % 100000, n % 9 + 1, n % 90, n % 100,
    n * 3 % 100000, n % 500, n % 100)
end

function init(args)
  wrk.method = "POST"
  wrk.headers["Prefer"] = "return=minimal"
  local kind, count, parts = args[1], tonumber(args[2]), {}
  if kind == "items" then
    wrk.headers["Content-Type"] = "application/json"
    for n = 1, count do
      parts[n] = string.format('{"queue":"bench","payload":{"n":%d,"fill":"%s"}}', 1000000000 + n, string.rep("x", 24))
    end
    wrk.body = '{"items":[' .. table.concat(parts, ",") .. '],"bufferMs":100,"bufferMax":100}'
  else
    wrk.headers["Content-Type"] = "application/x-ndjson"
    local bytes, n = 0, 0
    while bytes < count do
      n = n + 1
      parts[n] = event(n)
      bytes = bytes + #parts[n] + 1
    end
    wrk.body = table.concat(parts, "\n") .. "\n"
  end
  request_bytes = wrk.format()
end

function request()
  return request_bytes
end
