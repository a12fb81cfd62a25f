#!lua name=killick_v3

-- The only way in which a partition's ledger changes. A Redis function does not roll back:
-- every check comes before the first write. All keys of one call share one hash tag.
--
-- Every writing function begins with KEYS[1] = head and ARGV = the caller's fence token, the name of the call that
-- the caller made before this one, the name of this one. `guarded` looks at them, and passes on the token and the rest.

local FORMAT = '2' -- of the ledger: which keys there are, and what is in them

local function head_of(key)
  local flat = redis.call('HGETALL', key)
  local head = {}
  for i = 1, #flat, 2 do head[flat[i]] = flat[i + 1] end
  return head
end

-- Lets a call change the ledger only as the next one of whoever took it last. A server that comes back without its
-- tail may still know that token: then what was written last is gone, and the caller has to begin anew. A call that
-- was done already, its answer lost, is not done twice; one that comes late, after others, is not done at all.
local function guarded(change)
  return function(keys, args)
    local this, before = table.remove(args, 3), table.remove(args, 2)
    local head = head_of(keys[1])
    if head['token'] ~= args[1] then return {'fenced'} end
    if head['last'] == this then return {'done', 0} end
    if head['last'] ~= before then return {'behind', head['next'], 'what was written last is gone'} end
    local reply = change(keys, args, head)
    if reply[1] == 'ok' then redis.call('HSET', keys[1], 'last', this) end
    return reply
  end
end

-- The name that this server has had since it started; empty where it keeps that to itself.
local function run_id()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
end

-- KEYS: head   ARGV: token, start, form, topic id, partitions, slots in a chunk, end of what may have been published,
--              whether anything was ('' where nobody knows of it)
-- Takes the partition: from now on only this token may write. An empty ledger begins at `start`.
-- A server that was started since the last take may have lost its tail: up to the end of the log, as it is now,
-- forecasts may have been published that nobody remembers.
local function take(keys, args)
  local head = head_of(keys[1])
  if head['next'] and head['format'] ~= FORMAT then return {'differs', 'format', head['format'] or '1', FORMAT} end
  local fixed = {form = args[3], topic_id = args[4], partitions = args[5]}
  for name, value in pairs(fixed) do
    if head[name] and head[name] ~= '' and value ~= '' and head[name] ~= value then
      return {'differs', name, head[name], value}
    end
  end
  if not head['next'] then
    redis.call('HSET', keys[1], 'next', args[2], 'mark', args[2], 'first', args[2], 'seq', '0',
      'chunk_slots', args[6], 'format', FORMAT)
  end
  local run = run_id()
  if run == '' or head['run_id'] ~= run then
    local published = (head['next'] or args[8] ~= '') and tonumber(args[7]) or 0
    redis.call('HSET', keys[1], 'run_id', run, 'doubt', math.max(tonumber(head['doubt'] or '0'), published))
  end
  redis.call('HSET', keys[1], 'token', args[1], 'last', args[1])
  for name, value in pairs(fixed) do
    if value ~= '' then redis.call('HSET', keys[1], name, value) end
  end
  return {'ok'}
end

-- KEYS: head, blocks, history, names, refusals, counters, roster
-- ARGV: token, expected offset, next offset, block, history, roster, generation ('' for none),
--       n, n names, m, m × (offset, reason, error, record), k, k × (counter, amount)
local function commit(keys, args, head)
  if tonumber(head['next']) ~= tonumber(args[2]) then return {'offset', head['next']} end
  if tonumber(args[3]) < tonumber(args[2]) then return {'invalid', 'the next offset is before the expected one'} end
  local first_refusal = 8 + tonumber(args[8]) + 1
  local least = tonumber(args[2])
  for i = 1, tonumber(args[first_refusal]) do
    local offset = tonumber(args[first_refusal + 4 * (i - 1) + 1])
    if offset < least or offset >= tonumber(args[3]) then
      return {'invalid', 'a refusal is out of order, or not of the span that is committed'}
    end
    least = offset + 1
  end

  local seq = 1
  if args[3] == head['next'] then seq = tonumber(head['seq']) + 1 end
  local id = args[3] .. '-' .. seq
  if args[4] ~= '' then redis.call('XADD', keys[2], id, 'b', args[4]) end
  if args[5] ~= '' then redis.call('XADD', keys[3], id, 'b', args[5]) end
  if args[6] ~= '' then redis.call('SET', keys[7], args[6]) end
  local at = 8
  local n = tonumber(args[at])
  for i = at + 1, at + n do redis.call('RPUSH', keys[4], args[i]) end
  at = at + n + 1
  for i = 1, tonumber(args[at]) do
    local j = at + 4 * (i - 1)
    redis.call('XADD', keys[5], args[j + 1] .. '-1', 'reason', args[j + 2], 'error', args[j + 3], 'record', args[j + 4])
  end
  at = at + 4 * tonumber(args[at]) + 1
  for i = 1, tonumber(args[at]) do
    redis.call('HINCRBY', keys[6], args[at + 2 * i - 1], args[at + 2 * i])
  end
  redis.call('HSET', keys[1], 'next', args[3], 'seq', seq)
  if args[7] ~= '' then redis.call('HSET', keys[1], 'generation', args[7]) end
  return {'ok'}
end

-- KEYS: head, refusals   ARGV: token, mark
-- Everything before `mark` has been published; refusals that were delivered are let go.
local function mark(keys, args, head)
  if tonumber(args[2]) > tonumber(head['next']) then return {'behind', head['next'], 'the mark is ahead of the ledger'} end
  if tonumber(args[2]) < tonumber(head['mark']) then return {'invalid', 'the published mark went back'} end
  redis.call('HSET', keys[1], 'mark', args[2])
  redis.call('XTRIM', keys[2], 'MINID', args[2] .. '-0')
  return {'ok'}
end

-- KEYS: head, series snapshots, carried snapshots, snapshot index, needs
-- ARGV: token, least offset that is still needed,
--       n × (chunk, offset, index entry, field, series state, carried state ('' = unchanged since), fields to forget)
local function snapshot(keys, args, head)
  for i = 3, #args, 7 do
    if tonumber(args[i + 1]) > tonumber(head['mark']) then return {'behind', head['mark'], 'a snapshot ran ahead of the mark'} end
  end
  for i = 3, #args, 7 do
    redis.call('HSET', keys[4], args[i], args[i + 2])
    if args[i + 4] ~= '' then
      redis.call('HSET', keys[2], args[i + 3], args[i + 4])
      redis.call('HSET', keys[3], args[i], args[i + 5])
    end
    for field in string.gmatch(args[i + 6], '%S+') do redis.call('HDEL', keys[2], field) end
  end
  redis.call('HSET', keys[5], 'snapshot', args[2])
  return {'ok'}
end

-- KEYS: head, state   ARGV: token, state
-- What its consumer says of the partition, for people.
local function note(keys, args)
  redis.call('SET', keys[2], args[2])
  return {'ok'}
end

-- KEYS: head, blocks, needs   ARGV: token, wanted first id
-- Lets blocks go that end at or before the wanted offset, and that nothing needs any more; the head remembers up to
-- where, so that whoever reads ledger and archive knows what he must find there.
local function trim(keys, args, head)
  local least = math.min(tonumber(args[2]), tonumber(head['mark']))
  local needs = redis.call('HVALS', keys[3])
  if #needs == 0 then return {'ok', 0} end
  for _, offset in ipairs(needs) do least = math.min(least, tonumber(offset)) end
  if least < 0 then return {'ok', 0} end
  local newest = redis.call('XREVRANGE', keys[2], string.format('%.0f', least), '-', 'COUNT', 1)
  if #newest == 0 then return {'ok', 0} end
  redis.call('HSET', keys[1], 'trimmed', (string.match(newest[1][1], '^%d+')))
  return {'ok', redis.call('XTRIM', keys[2], 'MINID', string.format('%.0f-0', least + 1))}
end

redis.register_function('killick_v3_take', take)
redis.register_function('killick_v3_commit', guarded(commit))
redis.register_function('killick_v3_mark', guarded(mark))
redis.register_function('killick_v3_snapshot', guarded(snapshot))
redis.register_function('killick_v3_note', guarded(note))
redis.register_function('killick_v3_trim', guarded(trim))
