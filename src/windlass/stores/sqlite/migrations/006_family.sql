-- Children by their parent, so that a family is found without a walk through all jobs. Partial: a job without a parent
-- pays for one look through its meta, which is short. (From here on `held.cancelling` may be 2: the children are
-- cancelled as well. An older worker takes that for what it knows, but stores what such a job still enqueues.)
CREATE INDEX windlass_jobs_parent ON windlass_jobs (iif(json_valid(meta), meta ->> '$.parent_id', NULL))
WHERE instr(meta, '"parent_id"');
