"""The Lua scripts of the store in Redis: what happens in a part of it whole or not at all. Pure texts.

A script touches one part only, and every key is declared, as a cluster wants it. Scripts compare and move octets: what
a record means is known to Python alone, so there is one implementation of the rules. Arguments lie in blocks, so that
most are handed on to a command as they are: a loop in Lua would be what takes the time.

Called by `redis_store`, which knows the formats; docs/formats.md has them in words.
"""

from __future__ import annotations

from typing import Final

WRITTEN: Final = 0
REFUSED: Final = 1
LOST: Final = 2

_HEAD: Final = """
-- Lua's stack holds 8,000 values, so what has no bound is handed on 3,000 at a time.
local function chunks(command, key, first, last)
  for from = first, last, 3000 do
    redis.call(command, key, unpack(ARGV, from, math.min(from + 2999, last)))
  end
end
local meta = redis.call('HMGET', KEYS[1], 'schema', 'revision', 'last')
if not meta[1] then return 2 end
if meta[1] ~= ARGV[1] then return redis.error_reply('SCHEMA ' .. meta[1]) end
local cursor = 0
if ARGV[2] ~= '' then
  cursor = tonumber(redis.call('HGET', KEYS[2], ARGV[2]) or '0')
  if cursor < tonumber(ARGV[4]) then return 2 end
end
"""
"""Begins what moves a cursor. KEYS: meta, cursors. ARGV: schema, source, position, where it is known to have been."""

MARK: Final = (
    _HEAD
    + """
if tonumber(ARGV[3]) > cursor then redis.call('HSET', KEYS[2], ARGV[2], ARGV[3]) end
return 0
"""
)

COMMIT: Final = (
    _HEAD
    + """
if (meta[2] or '0') ~= ARGV[5] then return 1 end
local devices, index, messages, queue, changes = KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local n, m, w = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
-- Where the blocks begin, less one.
local imeis = 15
local expected = imeis + n
local records = expected + n
local members = records + 2 * n
local withdrawn = members + 2 * n
local keys = withdrawn + w
local bodies = keys + m
local scores = bodies + 2 * m

local left = {}
for from = 1, n, 3000 do
  local to = math.min(from + 2999, n)
  local had = redis.call('HMGET', devices, unpack(ARGV, imeis + from, imeis + to))
  for i = from, to do
    local value = had[i - from + 1]
    if value then
      if string.sub(value, 1, 8) ~= ARGV[expected + i] then return 1 end
      local member = string.sub(value, 9, 19) .. ARGV[imeis + i]
      if member ~= ARGV[members + 2 * i] then left[#left + 1] = member end
    elseif ARGV[expected + i] ~= '' then
      return 1
    end
  end
end
-- From here on everything is written.
for from = 1, #left, 3000 do
  redis.call('ZREM', index, unpack(left, from, math.min(from + 2999, #left)))
end
if n > 0 then
  chunks('HSET', devices, records + 1, records + 2 * n)
  chunks('ZADD', index, members + 1, members + 2 * n)
end
-- Keys that are all new, and each there once, go the short way.
local new = m > 0 and ARGV[15] == '1'
for from = 1, m, 3000 do
  local to = math.min(from + 2999, m)
  for _, had in ipairs(redis.call('HMGET', messages, unpack(ARGV, keys + from, keys + to))) do
    if had then new = false end
  end
end
if new then
  chunks('HSET', messages, bodies + 1, bodies + 2 * m)
  chunks('ZADD', queue, scores + 1, scores + 2 * m)
else
  for i = 1, m do
    local key, body, at = ARGV[keys + i], ARGV[bodies + 2 * i], ARGV[scores + 2 * i - 1]
    local had = redis.call('HGET', messages, key)
    local apart = tonumber(string.match(body, '^%d+', 11))
    if not had or (apart > 0 and tonumber(at) - tonumber(string.sub(had, 1, 10)) >= apart) then
      redis.call('HSET', messages, key, body)
      redis.call('ZADD', queue, at, key)
      if had then
        redis.call('HDEL', KEYS[8], key)
        redis.call('ZREM', KEYS[9], key)
        redis.call('ZREM', KEYS[10], key)
      end
    end
  end
end
-- What is taken back waits no more; its key stays, so that it does not come back.
for i = 1, w do redis.call('ZREM', queue, ARGV[withdrawn + i]) end
if ARGV[9] ~= '' or ARGV[10] ~= '' then
  local id = redis.call('XADD', changes, 'MAXLEN', '~', ARGV[6], '*', 'before', meta[3] or '0-0', 'all', ARGV[9],
    'others', ARGV[10], 'writer', ARGV[8])
  redis.call('HSET', KEYS[1], 'last', id)
  redis.call('PUBLISH', ARGV[7], ARGV[14])
end
if ARGV[2] ~= '' and tonumber(ARGV[3]) > cursor then redis.call('HSET', KEYS[2], ARGV[2], ARGV[3]) end
return 0
"""
)

STEP: Final = """
local done = {}
for i = 1, #ARGV, 6 do
  local key, from, before, place, after, due = unpack(ARGV, i, i + 5)
  local had = redis.call('HGET', KEYS[4], key) or ''
  from, place = KEYS[tonumber(from)], KEYS[tonumber(place)]
  local taken = 0
  if had == before and redis.call('ZSCORE', from, key) then
    taken = 1
    if from ~= place then redis.call('ZREM', from, key) end
    redis.call('ZADD', place, due, key)
    redis.call('HSET', KEYS[4], key, after)
  elseif had == after and redis.call('ZSCORE', place, key) then
    taken = 1
  end
  done[#done + 1] = taken
end
return done
"""
"""Moves messages. KEYS: queue, sending, over, progress. ARGV in sixes: message, from (1 to 3), progress before ('' for
none), to, progress after, score. Returns for each whether it was moved, or had been before."""

PUT: Final = """
local new = 0
for i = 1, #ARGV, 3 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('ZADD', KEYS[2], ARGV[i + 2], ARGV[i])
    new = new + 1
  end
end
return new
"""
"""Queues messages once. KEYS: messages, queue. ARGV in threes: message, body, score. Returns how many were new."""

ALLOW: Final = """
local allowed = {}
for i = 3, #ARGV do
  local before = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0')
  if before < tonumber(ARGV[1]) then
    redis.call('HINCRBY', KEYS[1], ARGV[i], 1)
    allowed[#allowed + 1] = 1
  else
    allowed[#allowed + 1] = 0
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return allowed
"""
"""Counts messages to subscribers. KEYS: a day's counts. ARGV: most, seconds to keep, subscribers. Returns who may have
one more."""

FORGET: Final = """
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, key in ipairs(old) do
  redis.call('ZREM', KEYS[1], key)
  redis.call('HDEL', KEYS[2], key)
  if string.sub(key, 1, 1) == ARGV[3] then redis.call('HDEL', KEYS[3], key) end
end
return #old
"""
"""Forgets what is long over. KEYS: over, progress, messages. ARGV: before when, most, the letter of those whose key is
forgotten too."""

SCHEMA: Final = """
redis.call('HSETNX', KEYS[1], 'schema', ARGV[1])
return redis.call('HGET', KEYS[1], 'schema')
"""
"""Gives an empty part its schema. KEYS: meta. ARGV: schema. Returns the schema that the part has."""

PAGE: Final = """
local members = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
if #members == 0 then return {members, members} end
local imeis = {}
for i, member in ipairs(members) do imeis[i] = string.sub(member, 12) end
local records = {}
for from = 1, #imeis, 3000 do
  for _, record in ipairs(redis.call('HMGET', KEYS[2], unpack(imeis, from, math.min(from + 2999, #imeis)))) do
    records[#records + 1] = record
  end
end
return {members, records}
"""
"""Some devices. KEYS: index, devices. ARGV: first and last member as ZRANGEBYLEX has them, how many. Only reads."""

SHIFTS: Final = """
return {redis.call('HGET', KEYS[1], 'revision') or '0', redis.call('HGETALL', KEYS[2])}
"""
"""KEYS: meta, shifts. Returns the revision and the shifts with what is known of them. Only reads."""

MERGE_SHIFTS: Final = """
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HSET', KEYS[2], ARGV[i], '')
  else
    redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
local all = redis.call('HGETALL', KEYS[2])
local steps, digest = 0, 0
for i = 1, #all, 2 do
  steps = steps + (all[i + 1] == '' and 2 or 1)
  digest = bit.bxor(digest, tonumber(string.sub(redis.sha1hex(all[i] .. ' ' .. all[i + 1]), 1, 6), 16))
end
local revision = string.format('%d-%06x', steps, digest)
redis.call('HSET', KEYS[1], 'revision', revision)
return {revision, all}
"""
"""Puts in what is not known yet: a shift is added once, and one that was taken away (empty) stays so.

KEYS: meta, shifts. ARGV: identities and shifts in turn. Returns what SHIFTS does. The revision rises with every step,
and the same steps give the same one: parts that agree in it agree in everything.
"""

LEASE: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""KEYS: the lease. ARGV: who asks, milliseconds. Returns whether it is theirs."""
