-- How a part of `jobs` and `ended` goes as a whole: truncated, which costs nothing a job, where to delete the rows one
-- by one costs each of them as much as to run it did.

-- Wait until every enqueue that may have put something into a part is over, and answer the last number that one can
-- have used; NULL where somebody keeps the part. The lock is kept for the rest of the transaction.
CREATE FUNCTION windlass.part_known(part integer) RETURNS bigint LANGUAGE plpgsql SET lock_timeout = '50ms' AS $$
BEGIN
    EXECUTE format('LOCK TABLE windlass.%I IN ACCESS EXCLUSIVE MODE', 'jobs_' || part);
    RETURN (SELECT last_value * 16 + 15 FROM windlass.jobs_seq);
EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
    RETURN NULL;
END
$$;

-- Jobs of one part that have rows in other tables as well, behind a place, in order: they go one by one.
CREATE FUNCTION windlass.part_bound(part integer, behind bigint, most integer) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := (SELECT min(j.seq) - 1 FROM windlass.jobs j WHERE j.part = part_bound.part);
    high bigint := (SELECT max(j.seq) FROM windlass.jobs j WHERE j.part = part_bound.part);
BEGIN
    RETURN QUERY EXECUTE (
        SELECT string_agg(format(
            '(SELECT seq FROM windlass.%I WHERE seq > $1 AND seq <= $2 AND seq & 15 = $3 ORDER BY seq LIMIT $4)', t),
            ' UNION ') || ' ORDER BY 1 LIMIT $4'
        FROM unnest('{attempts, once, progress, logs, merged, keys, past_keys, unique_keys}'::text[]) t)
    USING greatest(behind, low), high, part, most;
END
$$;

-- Empty a part in which every job completed before an instant, and answer how many those were; -1 if others are in it:
-- put back behind a TRUNCATE, they would be missing for whoever has an older snapshot, as a dump that was just begun.
-- NULL where somebody keeps the part, or the right is missing. `known` is what `part_known` has answered, in a
-- transaction before: what was enqueued since has a greater number. The part is locked for the end of it only.
CREATE FUNCTION windlass.part_empty(part integer, known bigint, before bigint) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout = '50ms' SET enable_seqscan = on SET enable_hashjoin = on SET enable_mergejoin = on AS $$
DECLARE
    jobs name := 'jobs_' || part;
    ended name := 'ended_' || part;
    gone bigint;
    stay bigint;
BEGIN
    EXECUTE format(
        'SELECT count(e.seq), count(*) - count(e.seq) FROM windlass.%I j LEFT JOIN windlass.%I e
         ON e.seq = j.seq AND e.state = ''completed'' AND e.finished <= $1', jobs, ended) INTO gone, stay USING before;
    -- The keys of a job outlive it.
    IF stay > 0 OR EXISTS (SELECT 1 FROM windlass.part_bound(part, 0, 1000) b JOIN windlass.jobs j
                           ON j.part = part_empty.part AND j.seq = b) THEN
        RETURN -1;
    END IF;
    EXECUTE format('LOCK TABLE windlass.%I, windlass.%I IN ACCESS EXCLUSIVE MODE', jobs, ended);
    IF EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.part = part_empty.part AND j.seq > known) THEN
        RETURN -1;
    END IF;
    EXECUTE format('TRUNCATE windlass.%I, windlass.%I', jobs, ended);
    RETURN gone;
EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
    RETURN NULL;
END
$$;
