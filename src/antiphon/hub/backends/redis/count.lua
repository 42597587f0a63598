-- How many members a topic has: users, not connections.
-- ARGV: word, topic

local count = 0
for _, field in ipairs(redis.call('HKEYS', root .. 'm:' .. ARGV[2])) do
  if string.sub(field, 1, 1) == 'u' then
    count = count + 1
  end
end
return count
