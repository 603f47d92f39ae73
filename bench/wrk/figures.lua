-- Prints a line of figures at the end of a run, for the scripts that start wrk:
--
--   FIGURES <requests> <seconds> <p50 µs> <p99 µs> <responses with status 400 or above> <socket errors and timeouts>

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("FIGURES %d %.6f %d %d %d %d\n",
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
