-- Append one entry to a topic's history and tell the subscribers, in one step: {offset, epoch}.
-- ARGV: word, topic, data, size, ttl (ms)

-- F: the first entry of a history (nothing that could have been missed stands before it); E: any other.
local topic, data, size, ttl = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
forget_expired(SWEEP)
local epoch, head, length = look(topic)
local ring = ring_key(epoch, topic)
local offset = head + 1
local kind = length == 0 and 'F' or 'E'

length = redis.call('RPUSH', ring, struct.pack('>dd', offset, now + ttl) .. data)
if length > size then
  redis.call('LTRIM', ring, -size, -1)
  length = size
end
trim_expired(ring, length)
redis.call('PEXPIRE', ring, whole(ttl + LIFE))
redis.call('ZADD', rings, whole(now + ttl), topic)
keep(ttl + 2 * LIFE, kind == 'F')

redis.call('PUBLISH', root .. 't:' .. topic, kind .. whole(offset) .. '-' .. epoch .. '\n' .. data)
return { offset, epoch }
