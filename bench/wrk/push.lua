-- wrk script: one buffered one-message push, the same bytes to whatever server; a line of figures at the end.
-- wrk renders the request once, since no request() is defined: the load costs the loading core as little as can be.

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"items":[{"queue":"bench","payload":{"n":1234567890}}],"bufferMs":100,"bufferMax":100}'

-- FIGURES <requests> <seconds> <p50 µs> <p99 µs> <answers of 400 and above> <socket errors and time-outs>
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("FIGURES %d %.6f %d %d %d %d\n",
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
