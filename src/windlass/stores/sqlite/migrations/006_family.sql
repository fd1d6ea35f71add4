-- Children by their parent, so that a family is found without a walk through all jobs. Partial: a job without a parent
-- pays for one look through its meta, which is short. (`held.cancelling` is 2 where the children are cancelled as well.)
CREATE INDEX windlass_jobs_parent ON windlass_jobs (iif(json_valid(meta), meta ->> '$.parent_id', NULL))
WHERE instr(meta, '"parent_id"');
