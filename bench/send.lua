-- Sends prepared requests, each once: the first argument is a file of records of one size.
-- First line: number of records, bytes in each, bytes in the tail that all share.

local records, size, count, tail
local next_record = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local head = file:read("*l")
  local n, s, t = head:match("^(%d+) (%d+) (%d+)$")
  count, size = tonumber(n), tonumber(s)
  records = file:read(count * size)
  tail = file:read(tonumber(t)) or ""
  file:close()
end

function request()
  local at = (next_record % count) * size
  next_record = next_record + 1
  return records:sub(at + 1, at + size) .. tail
end

-- Errors: `status` are answers of 400 and above, which some traffic is meant to get.
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"microseconds":%d,"refused":%d,"failed":%d}\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout))
end
