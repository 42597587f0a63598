-- The gate's state for all processes: shares of limits, and notes.
-- ARGV: word, operation, ...; see the operations at the end.
--
--   <root>c:<name>      hash: ref -> <arrival in microseconds>:<process>
--   <root>l:<process>   exists while the process keeps its lease
--   <root>n             hash: name of a note -> <expiry in ms>:<value>
--   <root>nu            sorted set: name of a note by that time
--
-- Shares of processes whose lease has expired are removed when they stand in the way.

local notes, ends = root .. 'n', root .. 'nu'

local function lease_of(process)
  return root .. 'l:' .. process
end

-- The refs that are held, oldest first, and the ms until the first of their leases ends. Lets go of the dead.
local function living(claims)
  local fields, left, held, least = redis.call('HGETALL', claims), {}, {}, nil
  for i = 1, #fields, 2 do
    local came, process = string.match(fields[i + 1], '^(%d+):(.*)$')
    if not left[process] then
      left[process] = redis.call('PTTL', lease_of(process))
    end
    if left[process] < 0 then
      redis.call('HDEL', claims, fields[i])
    else
      held[#held + 1] = { fields[i], tonumber(came) }
      least = math.min(least or left[process], left[process])
    end
  end
  table.sort(held, function(a, b)
    return a[2] < b[2]
  end)
  return held, least or 0
end

local operations = {}

-- name, ref, process, lease (ms), limit or '', evict (0 or 1): {1, 1 or 0: whether the process had its lease, evicted...};
-- refused: {0, ms until the first lease ends}
function operations.claim(name, ref, process, lease, limit, evict)
  local claims, evicted = root .. 'c:' .. name, {}
  local known = redis.call('HGET', claims, ref)
  limit = tonumber(limit)
  if limit and not known and redis.call('HLEN', claims) >= limit then
    local held, least = living(claims)
    local over = #held + 1 - limit
    if over > 0 and evict == '0' then
      return { 0, least }
    end
    for i = 1, over do
      redis.call('HDEL', claims, held[i][1])
      evicted[i] = held[i][1]
    end
  end
  local leased = redis.call('EXISTS', lease_of(process))
  redis.call('SET', lease_of(process), '', 'PX', lease)
  local came = known and string.match(known, '^%d+') or whole(micros)
  redis.call('HSET', claims, ref, came .. ':' .. process)
  redis.call('PEXPIRE', claims, LIFE)
  return { 1, leased, unpack(evicted) }
end

-- how many there may be, then for each note: name, value, ttl (ms): how many had to go
function operations.note(most, ...)
  local words = { ... }
  for i = 1, #words, 3 do
    local name, value, until_then = words[i], words[i + 1], now + tonumber(words[i + 2])
    local known = redis.call('HGET', notes, name)
    if known then
      local kept, before = string.match(known, '^(%d+):(.*)$')
      if tonumber(kept) > now and tonumber(before) > tonumber(value) then
        value = before
      end
      until_then = math.max(until_then, tonumber(kept))
    end
    redis.call('HSET', notes, name, whole(until_then) .. ':' .. value)
    redis.call('ZADD', ends, whole(until_then), name)
  end
  local gone = 0
  local function drop(names)
    for _, name in ipairs(names) do
      redis.call('HDEL', notes, name)
      redis.call('ZREM', ends, name)
    end
    return #names
  end
  drop(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 1000))
  local over = redis.call('ZCARD', ends) - tonumber(most)
  if over > 0 then
    gone = drop(redis.call('ZRANGE', ends, 0, over - 1))
  end
  local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2]
  if last then
    local life = whole(math.max(tonumber(last) - now, 1) + LIFE)
    redis.call('PEXPIRE', notes, life)
    redis.call('PEXPIRE', ends, life)
  end
  return gone
end

return operations[ARGV[2]](unpack(ARGV, 3))
