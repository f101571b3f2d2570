-- The check as a script for Envoy's Lua filter, which has no HMAC of its own: SHA-256 in Lua.
-- It reads the id with a pattern, as there is no JSON library, and it remembers no events.
local bit = require("bit")
local band, bxor, bnot, rol, rshift, tobit = bit.band, bit.bxor, bit.bnot, bit.rol, bit.rshift, bit.tobit
local ror = bit.ror

local K = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
local START = {
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}
local w = {}

local function compress(state, text, at)
  for i = 0, 15 do
    local a, b, c, d = text:byte(at + i * 4, at + i * 4 + 3)
    w[i] = tobit(a * 16777216 + b * 65536 + c * 256 + d)
  end
  for i = 16, 63 do
    local x, y = w[i - 15], w[i - 2]
    local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
    local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
    w[i] = tobit(w[i - 16] + s0 + w[i - 7] + s1)
  end
  local a, b, c, d, e, f, g, h = unpack(state)
  for i = 0, 63 do
    local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
    local t1 = tobit(h + s1 + bxor(band(e, f), band(bnot(e), g)) + K[i + 1] + w[i])
    local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
    local t2 = tobit(s0 + bxor(band(a, b), band(a, c), band(b, c)))
    h, g, f, e, d, c, b, a = g, f, e, tobit(d + t1), c, b, a, tobit(t1 + t2)
  end
  return {
    tobit(state[1] + a), tobit(state[2] + b), tobit(state[3] + c), tobit(state[4] + d),
    tobit(state[5] + e), tobit(state[6] + f), tobit(state[7] + g), tobit(state[8] + h),
  }
end

local function word(n)
  return string.char(band(rshift(n, 24), 255), band(rshift(n, 16), 255), band(rshift(n, 8), 255), band(n, 255))
end

-- Goes on from `state`, which has seen `seen` bytes, and returns the digest as a string.
local function finish(state, seen, text)
  local length = seen + #text
  text = text .. "\128" .. string.rep("\0", (55 - length) % 64) .. word(0) .. word(length * 8)
  for at = 1, #text, 64 do
    state = compress(state, text, at)
  end
  local out = {}
  for i = 1, 8 do
    out[i] = word(state[i])
  end
  return table.concat(out)
end

-- The states after the key's block, once a worker.
local KEY = "@KEY@"
local function keyed(pad)
  local block = KEY .. string.rep("\0", 64 - #KEY)
  return compress(START, (block:gsub(".", function(c) return string.char(bxor(c:byte(), pad)) end)), 1)
end
local inner, outer = keyed(0x36), keyed(0x5c)

local function equal(a, b)
  if #a ~= #b then
    return false
  end
  local difference = 0
  for i = 1, #a do
    difference = bit.bor(difference, bxor(a:byte(i), b:byte(i)))
  end
  return difference == 0
end

local function refuse(handle, code)
  handle:respond({ [":status"] = "401", ["content-type"] = "application/problem+json" }, '{"code":"' .. code .. '"}')
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local timestamp, signature = headers:get("x-webhook-timestamp"), headers:get("x-webhook-signature")
  if not timestamp or not signature then
    return refuse(handle, "signature_missing")
  end
  if not timestamp:match("^%d%d%d%d%d%d%d%d%d%d$") or math.abs(os.time() - tonumber(timestamp)) > 300 then
    return refuse(handle, "timestamp_too_old")
  end
  local body = handle:body()
  local text = body and body:getBytes(0, body:length()) or ""
  local id = text:match('"task_id"%s*:%s*"([^"\\]+)"') or text:match('"taskId"%s*:%s*"([^"\\]+)"')
  if not id then
    return refuse(handle, "id_missing")
  end
  local mac = finish(outer, 64, finish(inner, 64, id .. "." .. timestamp))
  if not equal(handle:base64Escape(mac), signature) then
    return refuse(handle, "signature_mismatch")
  end
end
