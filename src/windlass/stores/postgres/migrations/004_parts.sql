-- How a part of `jobs` and `ended` goes as a whole: truncated, which costs nothing a job, where to delete the rows one
-- by one costs each of them as much as to run it did. What must stay is put back.

-- Wait until every enqueue that may have put something into a part is over, and answer the last number that one can
-- have used; NULL where somebody keeps the part. The lock is kept for the rest of the transaction.
CREATE FUNCTION windlass.part_known(part integer) RETURNS bigint LANGUAGE plpgsql SET lock_timeout = '50ms' AS $$
BEGIN
    EXECUTE format('LOCK TABLE windlass.%I IN ACCESS EXCLUSIVE MODE', 'jobs_' || part);
    RETURN (SELECT last_value * 16 + 15 FROM windlass.jobs_seq);
EXCEPTION WHEN lock_not_available THEN
    RETURN NULL;
END
$$;

-- Jobs of one part that have rows in other tables as well, behind a place, in order: they go one by one.
CREATE FUNCTION windlass.part_bound(part integer, behind bigint, most integer) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    high bigint := (SELECT max(j.seq) FROM windlass.jobs j WHERE j.part = part_bound.part);
BEGIN
    RETURN QUERY EXECUTE (
        SELECT string_agg(format(
            '(SELECT seq FROM windlass.%I WHERE seq > $1 AND seq <= $2 AND seq & 15 = $3 ORDER BY seq LIMIT $4)', t),
            ' UNION ') || ' ORDER BY 1 LIMIT $4'
        FROM unnest('{attempts, once, progress, logs, merged, keys, past_keys, unique_keys}'::text[]) t)
    USING behind, high, part, most;
END
$$;

-- Empty a part of all jobs that completed up to an instant, and answer how many those were; NULL, and nothing is done,
-- if too many others are in it, or somebody keeps it from being locked. `known` is what `part_known` has answered, in a
-- transaction before: what was enqueued since has a greater number, and stays, as does all that anybody may still want.
-- The part is locked for as long as that takes, not for the search before it.
CREATE FUNCTION windlass.part_empty(part integer, known bigint, before bigint, most integer, bytes bigint)
RETURNS bigint LANGUAGE plpgsql
SET lock_timeout = '50ms' SET enable_seqscan = on SET enable_hashjoin = on SET enable_mergejoin = on AS $$
DECLARE
    jobs name := 'jobs_' || part;
    ended name := 'ended_' || part;
    stays bigint[];
    gone bigint;
    size bigint;
    kept_jobs windlass.jobs[];
    kept_ended windlass.ended[];
BEGIN
    EXECUTE format(
        'SELECT count(*) FILTER (WHERE e.seq IS NOT NULL), array_agg(j.seq) FILTER (WHERE e.seq IS NULL)
         FROM windlass.%I j LEFT JOIN windlass.%I e
              ON e.seq = j.seq AND e.state = ''completed'' AND e.finished <= $1',
        jobs, ended) INTO gone, stays USING before;
    IF gone = 0 OR cardinality(stays) > most THEN
        RETURN NULL;
    END IF;
    gone := gone + coalesce(cardinality(stays), 0);
    stays := ARRAY(SELECT unnest(stays) UNION SELECT windlass.part_bound(part, 0, most + 1));
    gone := gone - cardinality(stays);
    EXECUTE format(
        'SELECT sum(pg_column_size(j.*)) FROM windlass.%I j WHERE j.seq = ANY ($1)', jobs) INTO size USING stays;
    IF cardinality(stays) > most OR size > bytes THEN
        RETURN NULL;
    END IF;
    EXECUTE format('LOCK TABLE windlass.%I, windlass.%I IN ACCESS EXCLUSIVE MODE', jobs, ended);
    stays := stays || ARRAY(SELECT j.seq FROM windlass.jobs j WHERE j.part = part_empty.part AND j.seq > known);
    EXECUTE format('SELECT array_agg(j::windlass.jobs) FROM windlass.%I j WHERE j.seq = ANY ($1)', jobs)
        INTO kept_jobs USING stays;
    EXECUTE format('SELECT array_agg(e::windlass.ended) FROM windlass.%I e WHERE e.seq = ANY ($1)', ended)
        INTO kept_ended USING stays;
    EXECUTE format('TRUNCATE windlass.%I, windlass.%I', jobs, ended);
    INSERT INTO windlass.jobs SELECT * FROM unnest(kept_jobs);
    INSERT INTO windlass.ended SELECT * FROM unnest(kept_ended);
    RETURN gone;
EXCEPTION WHEN lock_not_available THEN
    RETURN NULL;
END
$$;
