-- The members of a topic, and the live processes.
-- ARGV: word, operation, ...; see the operations at the end.
--
--   <root>m:<topic>     hash: v -> version, one more with each change; u<user> -> refs, oldest first; l<user> -> those of them that linger;
--                       r<ref> -> {user, meta, process, until}
--   <root>p:<process>   set of the process's connections (topic and ref)
--   <root>leases        sorted set: process by the end of its lease
--   <root>linger        sorted set: lingering connection by the end of its grace

local leases, linger = root .. 'leases', root .. 'linger'
local LISTED = 8   -- connections of one member that watchers see: the newest; as in records.py
local STEP = 1000  -- ms by which a lease may end too late before it means that the clock was set back
local BATCH = 500  -- connections dropped per call, so that no call blocks the server for long
local AHEAD = 20000 -- changes that a reader of a roster may wait for; behind by more, it gets the whole roster

local function join(topic, ref)
  return struct.pack('>I4', #topic) .. topic .. ref
end

local function split(connection)
  local length = struct.unpack('>I4', connection)
  return string.sub(connection, 5, 4 + length), string.sub(connection, 5 + length)
end

local function unpacked(value)
  return value and cmsgpack.unpack(value) or nil
end

-- Where the connections begin that are listed, and how many others there are.
local function listed(refs)
  local more = math.max(#refs - LISTED, 0)
  return more + 1, more
end

local function announce(topic, user, refs)
  local members = root .. 'm:' .. topic
  -- Without gaps while there are members, so that a process can tell whether it got all changes. Microseconds at first:
  -- more than the topic's last version of an earlier life.
  local before = tonumber(redis.call('HGET', members, 'v'))
  local version = before and before + 1 or micros
  if #refs > 0 or redis.call('HLEN', members) > 1 then
    redis.call('HSET', members, 'v', whole(version))
    redis.call('PEXPIRE', members, LIFE)
  else
    redis.call('DEL', members)
  end
  local first, more = listed(refs)
  local words = { 'P', whole(version), '+', whole(more), '\n', struct.pack('>I4', #user), user }
  for i = first, #refs do
    local meta = cmsgpack.unpack(redis.call('HGET', members, 'r' .. refs[i]))[2]
    words[#words + 1] = struct.pack('>I4', #meta)
    words[#words + 1] = meta
  end
  redis.call('PUBLISH', root .. 't:' .. topic, table.concat(words))
end

local function position_of(refs, wanted)
  for i, ref in ipairs(refs) do
    if ref == wanted then
      return i
    end
  end
end

local function set_refs(members, field, refs)
  if #refs > 0 then
    redis.call('HSET', members, field, cmsgpack.pack(refs))
  else
    redis.call('HDEL', members, field)
  end
end

local function without(refs, ref)
  local position = position_of(refs, ref)
  if position then
    table.remove(refs, position)
  end
  return refs
end

local function lingering_of(members, user)
  return unpacked(redis.call('HGET', members, 'l' .. user)) or {}
end

local function linger_no_more(members, ref, record)
  if record[4] > 0 then
    set_refs(members, 'l' .. record[1], without(lingering_of(members, record[1]), ref))
  end
end

local function remove(topic, ref, record)
  local members = root .. 'm:' .. topic
  local user = record[1]
  local refs = without(unpacked(redis.call('HGET', members, 'u' .. user)) or {}, ref)
  redis.call('HDEL', members, 'r' .. ref)
  linger_no_more(members, ref, record)
  set_refs(members, 'u' .. user, refs)
  redis.call('SREM', root .. 'p:' .. record[3], join(topic, ref))
  redis.call('ZREM', linger, join(topic, ref))
  announce(topic, user, refs)
end

local function record_of(topic, ref)
  return unpacked(redis.call('HGET', root .. 'm:' .. topic, 'r' .. ref))
end

local function end_lingering()
  for _, connection in ipairs(redis.call('ZRANGEBYSCORE', linger, '-inf', now, 'LIMIT', 0, BATCH)) do
    local topic, ref = split(connection)
    local record = record_of(topic, ref)
    redis.call('ZREM', linger, connection)
    if record and record[4] > 0 then
      remove(topic, ref, record)
    end
  end
end

local function end_leases()
  for _, process in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 8)) do
    for _, connection in ipairs(redis.call('SPOP', root .. 'p:' .. process, BATCH)) do
      local topic, ref = split(connection)
      local record = record_of(topic, ref)
      if record and record[3] == process then
        remove(topic, ref, record)
      end
    end
    if redis.call('EXISTS', root .. 'p:' .. process) == 0 then
      redis.call('ZREM', leases, process)
    end
  end
end

local function sweep()
  end_lingering()
  end_leases()
end

-- The lingering connection of the user whose place a new one takes: one with the same meta before any other.
local function place_for(members, user, meta)
  local any, any_record
  for _, ref in ipairs(lingering_of(members, user)) do
    local record = cmsgpack.unpack(redis.call('HGET', members, 'r' .. ref))
    if record[2] == meta then
      return ref, record
    end
    if not any then
      any, any_record = ref, record
    end
  end
  return any, any_record
end

local operations = {}

-- ref, user, meta, process, lease (ms): 1; 0 when the process had no lease, or none any more; -1 when it had run out and
-- some of its connections may be gone. Then it is not renewed: the rest expires, and the process comes back under
-- another name.
function operations.track(topic, ref, user, meta, process, lease)
  local members = root .. 'm:' .. topic
  local ends = tonumber(redis.call('ZSCORE', leases, process) or 0)
  local ran_out = ends > 0 and ends <= now and redis.call('EXISTS', root .. 'p:' .. process) == 1
  local refs = unpacked(redis.call('HGET', members, 'u' .. user)) or {}
  local replaced, record = ref, record_of(topic, ref)
  if record and record[1] ~= user then
    return redis.error_reply('ERR the ref belongs to another user')
  end
  if not record then
    replaced, record = place_for(members, user, meta)
  end
  if replaced and record then
    refs[position_of(refs, replaced)] = ref
    redis.call('HDEL', members, 'r' .. replaced)
    linger_no_more(members, replaced, record)
    redis.call('SREM', root .. 'p:' .. record[3], join(topic, replaced))
    redis.call('ZREM', linger, join(topic, replaced))
  else
    refs[#refs + 1] = ref
  end
  redis.call('HSET', members, 'r' .. ref, cmsgpack.pack({ user, meta, process, 0 }))
  redis.call('HSET', members, 'u' .. user, cmsgpack.pack(refs))
  redis.call('PEXPIRE', members, LIFE)
  redis.call('SADD', root .. 'p:' .. process, join(topic, ref))
  redis.call('PEXPIRE', root .. 'p:' .. process, LIFE)
  if not ran_out then
    redis.call('ZADD', leases, whole(now + lease), process)
    redis.call('PEXPIRE', leases, LIFE)
  end
  if not record or record[2] ~= meta then
    announce(topic, user, refs)
  end
  return ran_out and -1 or ends > now and 1 or 0
end

-- topic, ref, grace (ms)
function operations.untrack(topic, ref, grace)
  local record = record_of(topic, ref)
  if not record then
    return 0
  end
  if tonumber(grace) <= 0 then
    remove(topic, ref, record)
    return 1
  end
  local members = root .. 'm:' .. topic
  if record[4] == 0 then
    local lingering = lingering_of(members, record[1])
    lingering[#lingering + 1] = ref
    set_refs(members, 'l' .. record[1], lingering)
  end
  record[4] = now + grace
  redis.call('HSET', members, 'r' .. ref, cmsgpack.pack(record))
  redis.call('ZADD', linger, whole(now + grace), join(topic, ref))
  redis.call('PEXPIRE', linger, whole(grace + LIFE))
  return 1
end

-- topic, version of which the caller knows the roster or '': {version, user, {meta, ...}, how many connections more, user,
-- ...}; {version, 'known'} when all changes from that one to this one have been told of.
function operations.roster(topic, known)
  sweep()
  local members = root .. 'm:' .. topic
  local version = tonumber(redis.call('HGET', members, 'v'))
  known = tonumber(known)
  if version and known and known <= version and version - known <= AHEAD then
    return { version, 'known' }
  end
  local roster = { version or micros }
  local fields = redis.call('HGETALL', members)
  local users, metas = {}, {}
  for i = 1, #fields, 2 do
    local kind, name = string.sub(fields[i], 1, 1), string.sub(fields[i], 2)
    if kind == 'u' then
      users[#users + 1] = { name, cmsgpack.unpack(fields[i + 1]) }
    elseif kind == 'r' then
      metas[name] = cmsgpack.unpack(fields[i + 1])[2]
    end
  end
  for _, user in ipairs(users) do
    local list = {}
    local first, more = listed(user[2])
    for i = first, #user[2] do
      list[#list + 1] = metas[user[2][i]]
    end
    roster[#roster + 1] = user[1]
    roster[#roster + 1] = list
    roster[#roster + 1] = more
  end
  return roster
end

-- The clock was set back by so many ms: all deadlines would come later by as much. Leases renewed since, by the new
-- clock, do not end that late.
local function set_back(ms, lease)
  local function shift(key, from)
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', key, whole(from), '+inf')) do
      redis.call('ZINCRBY', key, whole(-ms), name)
    end
  end
  shift(leases, now + lease + STEP)
  shift(linger, now + ms)
end

-- process or '', lease (ms), topics whose keys shall live on: 1, or 0 when the process's lease had run out
function operations.tick(process, lease, ...)
  sweep()
  forget_expired(BATCH)
  keep(LIFE)
  if process == '' then
    return 1
  end
  local until_then = tonumber(redis.call('ZSCORE', leases, process))
  if not until_then or until_then <= now then -- in the second case some of its connections may still be there
    return 0
  end
  local ahead = until_then - now - lease
  if ahead > STEP then
    set_back(ahead, lease)
  end
  redis.call('ZADD', leases, whole(now + lease), process)
  for _, key in ipairs({ leases, root .. 'p:' .. process }) do
    redis.call('PEXPIRE', key, LIFE)
  end
  for _, topic in ipairs({ ... }) do
    redis.call('PEXPIRE', root .. 'm:' .. topic, LIFE)
  end
  return 1
end

-- a write that leaves nothing: it shows whether writes are refused
function operations.probe()
  redis.call('SET', root .. 'probe', '', 'PX', '1')
  redis.call('DEL', root .. 'probe')
  return 1
end

-- process: its connections leave; how many are still there
function operations.leave(process)
  redis.call('ZADD', leases, '0', process)
  redis.call('PEXPIRE', leases, LIFE)
  end_leases()
  return redis.call('SCARD', root .. 'p:' .. process)
end

return operations[ARGV[2]](unpack(ARGV, 3))
