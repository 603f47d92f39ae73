-- Consumers that lease messages and acknowledge all of them: a pop, then its ack, on whichever connection is free. For bench/queue.sh.
local path, acks = nil, {}

function init(args)
  path = args[1]
end

function request()
  local ack = table.remove(acks)
  if ack then return wrk.format("POST", "/api/v1/ack/batch", { ["Content-Type"] = "application/json" }, ack) end
  return wrk.format("GET", path)
end

function response(status, _, body)
  if status ~= 200 or body:sub(1, 1) == "[" then return end
  local group = body:match('"consumerGroup":"([^"]*)"')
  local items = {}
  for id, rest in body:gmatch('"transactionId":"([^"]*)"(.-)"consumerGroup"') do
    local partition, lease = rest:match('"partitionId":"(%d+)","leaseId":"([^"]*)"')
    items[#items + 1] = string.format('{"transactionId":"%s","partitionId":"%s","leaseId":"%s","status":"completed"}', id, partition, lease)
  end
  acks[#acks + 1] = '{"consumerGroup":"' .. group .. '","acknowledgments":[' .. table.concat(items, ",") .. "]}"
end
