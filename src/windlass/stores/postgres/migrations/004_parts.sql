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

-- Jobs of one part that have rows in other tables as well, behind a place, in order: they go one by one. (A key that
-- has a time to be free has outlived its job.)
CREATE FUNCTION windlass.part_bound(part integer, behind bigint, most integer) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := (SELECT min(j.seq) - 1 FROM windlass.jobs j WHERE j.part = part_bound.part);
    high bigint := (SELECT max(j.seq) FROM windlass.jobs j WHERE j.part = part_bound.part);
BEGIN
    RETURN QUERY EXECUTE (
        SELECT string_agg(format(
            '(SELECT DISTINCT seq FROM windlass.%I WHERE seq > $1 AND seq <= $2 AND seq & 15 = $3 %s
              ORDER BY seq LIMIT $4)', t, CASE t WHEN 'keys' THEN 'AND free_at IS NULL' ELSE '' END),
            ' UNION ') || ' ORDER BY 1 LIMIT $4'
        FROM unnest('{attempts, once, progress, logs, merged, keys, past_keys, unique_keys}'::text[]) t)
    USING greatest(behind, low), high, part, most;
END
$$;

-- Move jobs of one part, the first ones of those given, to the part that is never emptied as a whole, with all rows
-- that they have, and answer how many: of a job's number the last four bits change, which tell the part, and nothing of
-- its order. For who has `moves` alone, which is why it ends after a moment, however large they are; all else that
-- changes such a job, or a key of it, has one of the locks that are taken here. 0 where somebody has one for long.
CREATE FUNCTION windlass.part_keep(part integer, seqs bigint[]) RETURNS integer LANGUAGE plpgsql
SET lock_timeout = '50ms' AS $$
#variable_conflict use_column
DECLARE
    began timestamptz := clock_timestamp();
    done integer := 0;
    few bigint[];
    t text;
BEGIN
    WHILE done < cardinality(seqs) AND clock_timestamp() < began + interval '30 ms' LOOP
        few := seqs[done + 1 : done + 10];
        done := done + cardinality(few);
        PERFORM pg_advisory_xact_lock(hashtext('windlass.keys'), b.n)
        FROM (SELECT DISTINCT hashtext(jsonb_build_array(k.tenant, k.task, k.key)::text) & 1023 AS n
              FROM windlass.keys k WHERE k.seq = ANY (few) ORDER BY n) b;
        PERFORM 1 FROM windlass.held WHERE seq = ANY (few) ORDER BY id FOR UPDATE;
        PERFORM 1 FROM windlass.unique_keys
        WHERE seq = ANY (few) OR successor = ANY (few) ORDER BY tenant, task, key FOR UPDATE;
        FOREACH t IN ARRAY '{ready, expiring}'::text[] LOOP
            EXECUTE format(
                'UPDATE windlass.%I t SET seq = t.seq & -16 | 14 FROM windlass.%I j
                 WHERE j.seq = ANY ($1) AND t.seq = j.seq AND ' || CASE t
                     WHEN 'ready' THEN 't.lane = j.lane AND t.queue = j.queue AND t.rank = j.rank'
                     ELSE 't.expires = j.expires' END, t, 'jobs_' || part_keep.part) USING few;
        END LOOP;
        UPDATE windlass.unique_keys SET successor = successor & -16 | 14 WHERE successor = ANY (few);
        FOREACH t IN ARRAY ('{waiting, blocked, held, unique_keys, passing, keys, past_keys, merged, attempts, once,
                              progress, logs}')::text[]
        LOOP
            EXECUTE format('UPDATE windlass.%I SET seq = seq & -16 | 14 WHERE seq = ANY ($1)', t) USING few;
        END LOOP;
        FOREACH t IN ARRAY '{ended, jobs}'::text[] LOOP
            EXECUTE format('UPDATE windlass.%I SET part = 14, seq = seq & -16 | 14 WHERE part = $1 AND seq = ANY ($2)',
                           t) USING part_keep.part, few;
        END LOOP;
    END LOOP;
    RETURN done;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$$;

-- Jobs of one part behind a place, in order, up to a last number: where the look ended, how many of them had completed
-- by an instant, and the others.
CREATE FUNCTION windlass.part_walk(part integer, behind bigint, known bigint, before bigint, most integer)
RETURNS TABLE (reached bigint, old bigint, others bigint[]) LANGUAGE plpgsql STABLE SET enable_mergejoin = on AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT max(j.seq), count(e.seq), coalesce(array_agg(j.seq ORDER BY j.seq) FILTER (WHERE e.seq IS NULL), ''{}'')
         FROM (SELECT seq FROM windlass.%I WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $4) j
         LEFT JOIN windlass.%I e ON e.seq = j.seq AND e.seq > $1 AND e.seq <= $2
                                    AND e.state = ''completed'' AND e.finished <= $3',
        'jobs_' || part, 'ended_' || part) USING behind, known, before, most;
END
$$;

-- Empty a part of which nobody wants anything any more; false if that is not so: something with a greater number than
-- `known` has come into it, something was `revived` since that was counted, or there are some of the jobs that were to
-- be moved, or jobs that have rows elsewhere, as their keys, which outlive them. NULL where somebody keeps the part, or
-- the right is missing.
CREATE FUNCTION windlass.part_empty(part integer, known bigint, revived bigint, others bigint[]) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '50ms' AS $$
DECLARE
    jobs name := 'jobs_' || part;
    ended name := 'ended_' || part;
    more boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM windlass.%I WHERE seq = ANY ($1))
                    OR EXISTS (SELECT 1 FROM windlass.part_bound($2, 0, 1000) b JOIN windlass.%I j ON j.seq = b)',
                   jobs, jobs) INTO more USING others, part;
    IF more THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE windlass.%I, windlass.%I IN ACCESS EXCLUSIVE MODE', jobs, ended);
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM windlass.%I WHERE seq > $1)', jobs) INTO more USING known;
    IF more OR EXISTS (SELECT 1 FROM windlass.marks m WHERE m.name = 'revived' AND m.value > revived) THEN
        RETURN false;
    END IF;
    EXECUTE format('TRUNCATE windlass.%I, windlass.%I', jobs, ended);
    RETURN true;
EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
    RETURN NULL;
END
$$;
