#!lua name=killick_registry_v1

-- KEYS: state, architectures, weights, infos, audit   ARGV: architecture, weights, info, actor, reason, time (ms)
-- Registers a version under the next number; the first one becomes incumbent.
local function register(keys, args)
  local number = redis.call('HINCRBY', keys[1], 'versions', 1)
  redis.call('HSET', keys[2], number, args[1])
  redis.call('HSET', keys[3], number, args[2])
  redis.call('HSET', keys[4], number, args[3])
  redis.call('XADD', keys[5], '*', 'event', 'register', 'version', number, 'actor', args[4], 'reason', args[5],
    'time_ms', args[6])
  if redis.call('HSETNX', keys[1], 'incumbent', number) == 1 then
    redis.call('HINCRBY', keys[1], 'generation', 1)
    redis.call('XADD', keys[5], '*', 'event', 'incumbent', 'version', number, 'actor', args[4],
      'reason', 'the first version', 'time_ms', args[6])
  end
  return {number, redis.call('HGET', keys[1], 'incumbent')}
end

redis.register_function('killick_registry_v1_register', register)
