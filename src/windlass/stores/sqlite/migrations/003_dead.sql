-- Dead letters by their fingerprints and when they died, so that neither counting them nor finding a group reads a
-- single error. Partial: a job that completes pays for one comparison.
CREATE INDEX windlass_ended_dead
ON windlass_ended (iif(json_valid(error), coalesce(error ->> '$.fingerprint', ''), ''), finished, seq)
WHERE state = 'dead';
