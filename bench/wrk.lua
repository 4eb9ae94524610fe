-- For wrk: how many requests a write carries is in the variable WRK_PIPELINE; the results are printed as one
-- line of JSON, because wrk's own text has no percentile beyond the 99th. Pipelined there are none: wrk takes one
-- time for a whole write and then corrects the distribution as if it were one request's.
local depth = tonumber(os.getenv("WRK_PIPELINE") or "1")

if depth > 1 then
    local batch

    function init()
        local requests = {}
        for i = 1, depth do
            requests[i] = wrk.format("GET")
        end
        batch = table.concat(requests)
    end

    function request()
        return batch
    end
end

local function percentiles(latency)
    if depth > 1 then
        return '"p50_us": null, "p90_us": null, "p99_us": null, "p999_us": null, "max_us": null'
    end
    return string.format('"p50_us": %d, "p90_us": %d, "p99_us": %d, "p999_us": %d, "max_us": %d',
        latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9),
        latency.max)
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format('{"requests": %d, "seconds": %.6f, %s, "errors": %d}\n',
        summary.requests, summary.duration / 1e6, percentiles(latency),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
