-- wrk script: cancels one file of a list after the other and prints what it saw as one line of JSON.
-- Arguments: the list (an id a line), how many lines to skip, how many to use.
local ids, next_id = {}, 1

function init(args)
  local skip, count, line_no = tonumber(args[2]), tonumber(args[3]), 0
  for line in io.lines(args[1]) do
    line_no = line_no + 1
    if line_no > skip and #ids < count then ids[#ids + 1] = line end
  end
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  -- With the list at its end this names nothing, and the answer counts as refused.
  local id = ids[next_id] or "out-of-files"
  next_id = next_id + 1
  return wrk.format("POST", "/api/v1/upload/cancel/" .. id, nil, '{"reason": "not needed"}')
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "refused": %d, "broken": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
