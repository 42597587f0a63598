-- One page of a topic's history: {epoch, offset behind the page, recovered (0 or 1), {entry, ...}}.
-- ARGV: word, topic, since offset or '', since epoch, limit or ''

local topic, since, since_epoch, limit = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local epoch, head, length = look(topic)
local ring = ring_key(epoch, topic)
length = trim_expired(ring, length)

if not since then
  local count = math.min(limit or length, length)
  local entries = count > 0 and redis.call('LRANGE', ring, -count, -1) or {}
  return { epoch, head, 0, entries }
end

local missed = head - since
if since_epoch ~= epoch or missed < 0 or missed > length then
  return { epoch, head, 0, {} }
end
local count = math.min(limit or missed, missed)
local entries = count > 0 and redis.call('LRANGE', ring, -missed, count - missed - 1) or {}
return { epoch, since + count, 1, entries }
