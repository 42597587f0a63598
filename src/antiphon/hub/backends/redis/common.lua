-- Prelude of every script: the state of one bucket of topics, and the histories ("rings") in it.
--
-- KEYS[1]  <root>state   hash: epoch, floor. All other keys share its hash tag:
--          <root>rings   sorted set: topic by the expiry of its newest entry
--          <root>h:<epoch>:<topic>   list of entries: offset and deadline (8 bytes each), then the data
-- ARGV[1]  a word only this process uses, for making epochs.
--
-- The floor is the highest offset of all forgotten histories: a new history starts behind it, so that no
-- (offset, epoch) ever names two entries. An unexplained state (a missing key) means that data was lost: the bucket
-- gets a new epoch.

local LIFE = 3600000  -- ms that bookkeeping outlives its subject
local SWEEP = 8       -- expired histories forgotten per publish: more than one, so that they go faster than they come

local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

local root = string.sub(KEYS[1], 1, -6)
local rings = root .. 'rings'

local function whole(number)
  return string.format('%.0f', number)
end

-- State and index live for `life` ms at least, and end in the same moment: a state that outlived its index would not
-- know its forgotten histories. Not written each time: each write would also go to the replicas.
local function keep(life, always)
  if always or redis.call('PTTL', KEYS[1]) < life then
    redis.call('PEXPIRE', KEYS[1], whole(life + LIFE))
    redis.call('PEXPIRE', rings, whole(life + LIFE))
  end
end

local function new_epoch()
  local epoch = ARGV[1] .. string.format('%x', micros)
  redis.call('DEL', rings)
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'floor', '0')
  redis.call('PEXPIRE', KEYS[1], 2 * LIFE)
  return epoch
end

local function state()
  local found = redis.call('HMGET', KEYS[1], 'epoch', 'floor')
  if found[1] then
    return found[1], tonumber(found[2])
  end
  return new_epoch(), 0
end

local function ring_key(epoch, topic)
  return root .. 'h:' .. epoch .. ':' .. topic
end

local function forget(topic, ring, head, floor)
  redis.call('DEL', ring)
  redis.call('ZREM', rings, topic)
  if head > floor then
    redis.call('HSET', KEYS[1], 'floor', whole(head))
    return head
  end
  return floor
end

-- Epoch, head and length of a topic's history now.
local function look(topic)
  local epoch, floor = state()
  local deadline = redis.call('ZSCORE', rings, topic)
  local ring = ring_key(epoch, topic)
  if not deadline then
    if redis.call('EXISTS', ring) == 1 then
      return new_epoch(), 0, 0
    end
    return epoch, floor, 0
  end
  local last = redis.call('LINDEX', ring, -1)
  if not last then
    return new_epoch(), 0, 0
  end
  local head = struct.unpack('>d', last)
  if tonumber(deadline) <= now then
    return epoch, forget(topic, ring, head, floor), 0
  end
  return epoch, head, redis.call('LLEN', ring)
end

-- Drop entries past their time from the old end; the newest is never among them (see `look`).
local function trim_expired(ring, length)
  while length > 1 do
    local _, deadline = struct.unpack('>dd', redis.call('LINDEX', ring, 0))
    if deadline > now then
      return length
    end
    redis.call('LPOP', ring)
    length = length - 1
  end
  return length
end

local function forget_expired(most)
  for _, topic in ipairs(redis.call('ZRANGEBYSCORE', rings, '-inf', now, 'LIMIT', 0, most)) do
    look(topic)
  end
end
