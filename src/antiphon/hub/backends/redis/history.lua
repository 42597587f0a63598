-- One page of a topic's history, or the first part of it:
-- {epoch, offset behind the part, recovered (0 or 1), {entry, ...}, entries of the page behind the part}.
-- ARGV: word, topic, since offset or '', since epoch, limit or '', size (bytes), an entry's overhead besides its data

-- Entries read at a time, at most. No command tells their sizes, and reading one costs as much as sending it: a read
-- never covers more than the number that was small enough before.
local BATCH = 16

local topic, since, since_epoch, limit = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local size, cost = tonumber(ARGV[6]), tonumber(ARGV[7])
local epoch, head, length = look(topic)
local ring = ring_key(epoch, topic)
length = trim_expired(ring, length)

-- Of the first `count` of the last `missed` entries as many as `size` allows, but one at least.
local function part(missed, count)
  local entries, bytes = {}, 0
  while #entries < count do
    local from = #entries - missed
    local few = math.min(math.max(#entries, 1), BATCH, count - #entries)
    local batch = redis.call('LRANGE', ring, from, from + few - 1)
    if #batch == 0 then
      return entries
    end
    for _, entry in ipairs(batch) do
      bytes = bytes + #entry - 16 + cost
      if bytes > size and #entries > 0 then
        return entries
      end
      entries[#entries + 1] = entry
    end
  end
  return entries
end

local recovered, missed = 0, math.min(limit or length, length)
local count = missed
if since then
  missed = head - since
  if since_epoch ~= epoch or missed < 0 or missed > length then
    return { epoch, head, 0, {}, 0 }
  end
  recovered, count = 1, math.min(limit or missed, missed)
end
local entries = part(missed, count)
return { epoch, head - missed + #entries, recovered, entries, count - #entries }
