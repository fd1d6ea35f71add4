-- Filters, and the walk through all jobs, newest first.

local function in_meta(job, name)
    if not find(job[META], '"' .. name .. '"', 1, true) then
        return nil
    end
    local ok, meta = pcall(cjson.decode, job[META])
    return ok and type(meta) == 'table' and meta[name] or nil
end

local function has_tag(job, tag)
    local tags = in_meta(job, 'tags')
    for _, each in ipairs(type(tags) == 'table' and tags or {}) do
        if each == tag then
            return true
        end
    end
    return false
end

local function fingerprint_of(job)
    local ok, error = pcall(cjson.decode, job[ERROR] or '{}')
    return ok and type(error) == 'table' and type(error.fingerprint) == 'string' and error.fingerprint or ''
end

-- Whether every field of a filter fits the job; `f` is a map of the fields that are given.
local function matches(job, f)
    local states = f.states and #f.states > 0 and f.states
    local fits = not states
    for _, state in ipairs(states or {}) do
        fits = fits or state == job[STATE]
    end
    return fits and job[TENANT] == (f.tenant or '')
        and (f.queue == nil or f.queue == job[QUEUE])
        and (f.task == nil or f.task == job[TASK])
        and (f.reason == nil or f.reason == job[REASON])
        and (f.since == nil or job[CREATED] >= f.since)
        and (f.until_ == nil or job[CREATED] < f.until_)
        and (f.ended_before == nil or job[FINISHED] and job[FINISHED] < f.ended_before)
        and (f.fingerprint == nil or job[STATE] == 'dead' and fingerprint_of(job) == f.fingerprint)
        and (f.tag == nil or has_tag(job, f.tag))
        and (f.schedule == nil or (in_meta(job, 'schedule') or '') == f.schedule)
        and (f.parent == nil or (in_meta(job, 'parent_id') or '') == f.parent)
end
