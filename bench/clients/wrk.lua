-- Posts the files named in BENCH_BODIES, one a line, in turn, and prints one line of JSON at the end.
--
-- Closed loop: each connection sends its next request when the last one is answered.
--
-- Open loop, if BENCH_INTERVAL_US is set: requests are due at a constant rate, the next free
-- connection sends the next due request, and latency counts from the due time, so that a stalled
-- server is charged for every request that was due meanwhile (no coordinated omission). Each thread
-- has its own schedule. wrk does not say which request an answer belongs to: either a thread has one
-- connection, or the server echoes X-Request-ID, which holds the due time.

local ffi = require("ffi")
ffi.cdef([[
  typedef struct { long sec; long nsec; } bench_time;
  int clock_gettime(int clock, bench_time *to);
]])

local interval = tonumber(os.getenv("BENCH_INTERVAL_US") or "")
local echoed = os.getenv("BENCH_ECHOED") == "1"
local clock = ffi.new("bench_time")
local threads, bodies, requests, turn = {}, {}, {}, 0
local start, slots, waiting, first, last = nil, 0, {}, 1, 0
local current = 0
answers, lost = {}, 0

local function now()
  ffi.C.clock_gettime(1, clock)
  return tonumber(clock.sec) * 1e6 + tonumber(clock.nsec) / 1e3
end

function setup(thread)
  thread:set("index", #threads)
  table.insert(threads, thread)
end

function init()
  for path in os.getenv("BENCH_BODIES"):gmatch("[^\n]+") do
    local file = assert(io.open(path, "rb"))
    bodies[#bodies + 1] = file:read("*a")
    requests[#requests + 1] = wrk.format("POST", nil, nil, bodies[#bodies])
    file:close()
  end
end

local function next_request()
  turn = turn % #requests + 1
  return requests[turn]
end

if not interval then
  request = next_request
else
  function delay()
    if not start then
      local count = tonumber(os.getenv("BENCH_THREADS"))
      start = now() + interval * index / count
    end
    local due = start + slots * interval
    slots = slots + 1
    last = last + 1
    waiting[last] = due
    return math.max(0, math.floor((due - now()) / 1000))
  end

  function request()
    if not start then -- wrk tests the script
      return next_request()
    end
    local due = waiting[first]
    if due then
      waiting[first] = nil
      first = first + 1
      due = math.min(due, now()) -- the timer counts whole milliseconds: it may be early
    else -- the server closed the connection during a request: wrk reconnects and repeats it
      lost = lost + 1
      due = now()
    end
    current = due
    if not echoed then
      return next_request()
    end
    turn = turn % #bodies + 1
    return wrk.format("POST", nil, { ["X-Request-ID"] = string.format("%d", due),
      ["Content-Type"] = wrk.headers["Content-Type"], ["Host"] = wrk.headers["Host"] }, bodies[turn])
  end

  function response(status, headers)
    local due = echoed and tonumber(headers["X-Request-ID"]) or current
    answers[#answers + 1] = string.format("%d %d", status, now() - due)
  end
end

function done(summary, latency)
  local errors = summary.errors
  if interval then
    for _, thread in ipairs(threads) do
      for _, answer in ipairs(thread:get("answers")) do
        io.write("answer ", answer, "\n")
      end
      io.write("lost ", thread:get("lost"), "\n")
    end
  end
  io.write(string.format(
    '{"seconds": %f, "requests": %d, "p50_us": %d, "p99_us": %d, "refused": %d, "broken": %d}\n',
    summary.duration / 1e6, summary.requests, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
