-- Where histories stand: {epoch, head, head, ...}, as many heads as topics were asked for.
-- ARGV: word, topic...

local heads = {}
for i = 2, #ARGV do
  local _, head = look(ARGV[i])
  heads[i] = head
end
heads[1] = state()
return heads
