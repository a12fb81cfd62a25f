#!lua name=killick_registry_v3

-- The only way in which a model's aliases, statuses and versions change. A Redis function does not roll back:
-- every check comes before the first write. All keys share one hash tag.
--
-- Another meaning of a function needs another number in the library's name: processes of two ages may share a server.
--
-- KEYS 1-4: state, statuses, infos, audit
-- ARGV 1-4: call (a random word), actor, reason, time (ms)
-- A reply is {'ok', state as a flat list}, or what stands in the way, and nothing was written.

local function read(key)
  local flat = redis.call('HGETALL', key)
  local state = {}
  for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end
  return state
end

local function done(keys)
  return {'ok', redis.call('HGETALL', keys[1])}
end

-- Whether the newest entry of the audit was written by this very call: its answer was lost, and the client asks again.
local function repeated(keys, args)
  local newest = redis.call('XREVRANGE', keys[4], '+', '-', 'COUNT', 1)[1]
  if not newest then return false end
  for i = 1, #newest[2], 2 do
    if newest[2][i] == 'call' then return newest[2][i + 1] == args[1] end
  end
  return false
end

local function note(keys, args, event, version, before, after)
  redis.call('XADD', keys[4], '*', 'event', event, 'version', version or '', 'before', before or '',
    'after', after or '', 'actor', args[2], 'reason', args[3], 'time_ms', args[4],
    'generation', redis.call('HGET', keys[1], 'generation') or '0', 'call', args[1])
end

-- Lets a change be done once: if this very call was the last, it was; else the change is given the state.
local function once(change)
  return function(keys, args)
    if repeated(keys, args) then return done(keys) end
    return change(keys, args, read(keys[1]))
  end
end

-- An alias has moved: the generation counts it, the audit says from which to which; a sign-off was of what was before.
local function moved(keys, args, event, version, before)
  redis.call('HDEL', keys[1], 'approved')
  redis.call('HINCRBY', keys[1], 'generation', 1)
  note(keys, args, event, version, before, version)
  return done(keys)
end

-- Why a version may not be named by an alias; nil if it may.
local function unfit(keys, version)
  if redis.call('HEXISTS', keys[3], version) == 0 then return {'unknown', version} end
  local status = redis.call('HGET', keys[2], version)
  if status then return {status, version} end
end

-- Why a version is no candidate any more: it was made from another version than the one that answers. nil if it is one.
local function stale(keys, version, incumbent)
  local parent = cjson.decode(redis.call('HGET', keys[3], version)).parent
  parent = parent == cjson.null and 'none' or string.format('%d', parent)
  if parent ~= incumbent then return {'stale', version, parent, incumbent or 'none'} end
end

-- KEYS 5-6: architectures, weights   ARGV 5-7: architecture, weights, info
-- Registers a version under the next number; the first one becomes incumbent. One that is there already, to the
-- last byte of its info (which holds digests and time), is this call again: the number that it got then.
local function register(keys, args)
  local infos = redis.call('HGETALL', keys[3])
  for i = 1, #infos, 2 do
    if infos[i + 1] == args[7] then return {'ok', infos[i]} end
  end
  local number = tostring(redis.call('HINCRBY', keys[1], 'versions', 1))
  redis.call('HSET', keys[5], number, args[5])
  redis.call('HSET', keys[6], number, args[6])
  redis.call('HSET', keys[3], number, args[7])
  note(keys, args, 'register', number)
  if redis.call('HSETNX', keys[1], 'incumbent', number) == 1 then
    redis.call('HINCRBY', keys[1], 'generation', 1)
    args[3] = 'the first version'
    note(keys, args, 'incumbent', number, nil, number)
  end
  return {'ok', number}
end

-- ARGV 5-7: version, the incumbent that is expected, '1' if no person asks for it
local function promote(keys, args, state)
  local version, expected = args[5], args[6]
  if state.incumbent == version then return {'answers already', version} end
  local wrong = unfit(keys, version)
  if wrong then return wrong end
  if state.incumbent ~= expected then return {'another answers', state.incumbent or 'none', expected} end
  if args[7] == '1' then
    if state.paused == '1' then return {'paused'} end
    local old = stale(keys, version, state.incumbent)
    if old then return old end
  end

  redis.call('HSET', keys[1], 'incumbent', version, 'previous', expected)
  if state.candidate == version then redis.call('HDEL', keys[1], 'candidate') end
  return moved(keys, args, 'promote', version, expected)
end

-- ARGV 5-6: version to go back to ('': the previous one), the incumbent that is expected
-- The incumbent is withdrawn; automatic promotion pauses; there is no previous version any more.
local function rollback(keys, args, state)
  local to, expected = args[5], args[6]
  if state.incumbent ~= expected then return {'another answers', state.incumbent or 'none', expected} end
  if to == '' then to = state.previous end
  if not to then return {'no previous', expected} end
  if to == expected then return {'answers already', to} end
  local wrong = unfit(keys, to)
  if wrong then return wrong end

  redis.call('HSET', keys[1], 'incumbent', to, 'paused', '1')
  redis.call('HDEL', keys[1], 'previous')
  redis.call('HSET', keys[2], expected, 'withdrawn')
  if state.candidate == to then redis.call('HDEL', keys[1], 'candidate') end
  return moved(keys, args, 'rollback', to, expected)
end

-- ARGV 5-7: version ('': none), the candidate that is expected ('': none), '1' if no person asks for it
local function nominate(keys, args, state)
  local version, expected = args[5], args[6]
  local now = state.candidate or 'none'
  if version == '' and not state.candidate then return {'no candidate'} end
  if version == state.candidate then return {'candidate already', now} end
  if (state.candidate or '') ~= expected then return {'another candidate', now, expected == '' and 'none' or expected} end
  if version ~= '' then
    if version == state.incumbent then return {'answers', version} end
    local wrong = unfit(keys, version)
    if wrong then return wrong end
    local old = args[7] == '1' and stale(keys, version, state.incumbent)
    if old then return old end
  end

  redis.call('HDEL', keys[1], 'candidate')
  if version ~= '' then redis.call('HSET', keys[1], 'candidate', version) end
  return moved(keys, args, 'nominate', version, expected)
end

-- ARGV 5: version
-- A person signs the candidate off: it may be promoted once it has earned it.
local function approve(keys, args, state)
  local version = args[5]
  local wrong = unfit(keys, version)
  if wrong then return wrong end
  if state.incumbent == version then return {'answers already', version} end
  if state.candidate ~= version then return {'not the candidate', version, state.candidate or 'none'} end
  local old = stale(keys, version, state.incumbent)
  if old then return old end
  if state.approved == version then return {'approved already', version} end

  redis.call('HSET', keys[1], 'approved', version)
  note(keys, args, 'approve', version)
  return done(keys)
end

-- ARGV 5: version
-- It is never to be used again; one that an alias names can't be retired.
local function retire(keys, args, state)
  local version = args[5]
  if redis.call('HEXISTS', keys[3], version) == 0 then return {'unknown', version} end
  if redis.call('HGET', keys[2], version) == 'retired' then return {'retired already', version} end
  for _, alias in ipairs({'incumbent', 'candidate', 'previous'}) do
    if state[alias] == version then return {'named', version, alias} end
  end

  redis.call('HSET', keys[2], version, 'retired')
  note(keys, args, 'retire', version)
  return done(keys)
end

-- Switches automatic promotion off ('1') or on ('0').
local function switch(event, paused, already)
  return function(keys, args, state)
    if (state.paused or '0') == paused then return {already} end
    redis.call('HSET', keys[1], 'paused', paused)
    note(keys, args, event)
    return done(keys)
  end
end

redis.register_function('killick_registry_v3_register', register)
redis.register_function('killick_registry_v3_promote', once(promote))
redis.register_function('killick_registry_v3_rollback', once(rollback))
redis.register_function('killick_registry_v3_nominate', once(nominate))
redis.register_function('killick_registry_v3_approve', once(approve))
redis.register_function('killick_registry_v3_retire', once(retire))
redis.register_function('killick_registry_v3_pause', once(switch('pause', '1', 'paused already')))
redis.register_function('killick_registry_v3_resume', once(switch('resume', '0', 'not paused')))
