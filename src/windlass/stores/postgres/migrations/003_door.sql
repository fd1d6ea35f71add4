-- A door for psql and for services in other languages: `enqueue` stores a job as the Python client does, `job` reads
-- one. Both run with the rights of who calls them, inside the caller's transaction. What is given is hostile until it
-- was looked at: what could not be run, shown or typed is refused here, by the name of the parameter.

CREATE FUNCTION windlass.refuse(field text, problem text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%: %', field, problem USING ERRCODE = 'invalid_parameter_value';
END
$$;

-- `kind` is key, name or queue; see names.py.
CREATE FUNCTION windlass.check_name(field text, given text, kind text, most integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    never text := CASE kind WHEN 'key' THEN '[[:cntrl:]]' WHEN 'name' THEN '[[:cntrl:],]|^\s|\s$'
                            ELSE '[[:cntrl:],:]|^\s|\s$' END;
BEGIN
    IF given IS NULL OR length(given) NOT BETWEEN 1 AND most OR given ~ never THEN
        PERFORM windlass.refuse(field, format('%s must be printable text of 1 to %s characters%s',
            left(quote_nullable(given), 60), most,
            CASE kind WHEN 'key' THEN '' WHEN 'name' THEN ', without commas and without spaces at its ends'
                      ELSE ', without commas and colons and without spaces at its ends' END));
    END IF;
END
$$;

CREATE FUNCTION windlass.check_number(field text, given numeric, low numeric, high numeric) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF given NOT BETWEEN low AND high THEN
        PERFORM windlass.refuse(field, format('%s must be within %s..%s', left(given::text, 60), low, high));
    END IF;
END
$$;

-- Microseconds of a duration, up to a year; NULL for none.
CREATE FUNCTION windlass.micros(field text, given interval) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM windlass.check_number(field || ', in seconds', extract(epoch FROM given), 0, 31622400);
    RETURN extract(epoch FROM given) * 1000000;
END
$$;

-- What rides with a job, as JSON; see core/job.py, Meta.
CREATE FUNCTION windlass.meta_of(tags text[], limits jsonb, max_attempts integer, timeout interval) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    tag text;
    each record;
    keys jsonb := '[]';
    policy jsonb;
BEGIN
    PERFORM windlass.check_number('tags, of which there are', cardinality(tags), 0, 20);
    PERFORM windlass.check_number('tags, whose dimensions are', array_ndims(tags), 0, 1);
    FOREACH tag IN ARRAY coalesce(tags, '{}') LOOP
        PERFORM windlass.check_name('tags', tag, 'name', 200);
    END LOOP;
    IF jsonb_typeof(limits) <> 'object' THEN
        PERFORM windlass.refuse('limits', 'must be numbers by key, as {"send_email": 2}');
    END IF;
    FOR each IN SELECT l.key, l.value, count(*) OVER () AS many FROM jsonb_each(coalesce(limits, '{}')) l LOOP
        PERFORM windlass.check_name('limits', each.key, 'key', 456);
        -- A comma at the front is for keys of Windlass's own, of schedules.
        IF each.many > 8 OR each.key LIKE ',%' OR each.value::text !~ '^([1-9]\d{0,3}|10000)$' THEN
            PERFORM windlass.refuse('limits', 'must be at most 8 keys, each with a whole number, 1..10000');
        END IF;
        keys := keys || jsonb_build_array(jsonb_build_array(each.key, each.value));
    END LOOP;
    PERFORM windlass.check_number('max_attempts', max_attempts, 1, 10000);
    IF windlass.micros('timeout', timeout) = 0 THEN
        PERFORM windlass.refuse('timeout', 'leaves no time at all; NULL is no limit');
    END IF;
    policy := jsonb_strip_nulls(jsonb_build_object(
        'max_attempts', max_attempts, 'timeout', extract(epoch FROM timeout)));
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'tags', to_jsonb(nullif(tags, '{}')), 'limits', nullif(keys, '[]'), 'policy', nullif(policy, '{}')));
END
$$;

-- Whether a queue takes nothing more: NULL, shed or reject. Counted under its lock, or several at once would each fill
-- the same places; see core/flow.py, fullness.
CREATE FUNCTION windlass.fullness(wanted text, instant bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    most jsonb := (SELECT windlass.as_json(q.bounds) FROM windlass.queues q WHERE q.name = wanted);
    depth bigint;
    head bigint;
BEGIN
    IF most IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('windlass.bounds'), hashtext(wanted));
    SELECT count(*) INTO depth
    FROM (SELECT 1 FROM windlass.ready r WHERE r.lane = 0 AND r.queue = wanted
          LIMIT coalesce((most ->> 'depth')::bigint, 0)) counted;
    SELECT j.due INTO head FROM windlass.ready r JOIN windlass.jobs j ON j.seq = r.seq
    WHERE r.lane = 0 AND r.queue = wanted ORDER BY r.rank, r.seq LIMIT 1;
    IF depth >= (most ->> 'depth')::bigint OR instant - head > (most ->> 'age')::bigint THEN
        RETURN CASE WHEN (most ->> 'shed')::boolean THEN 'shed' ELSE 'reject' END;
    END IF;
    RETURN NULL;
END
$$;

-- Which job has an idempotency key. NULL: it is free, and the caller's until the end of the transaction.
CREATE FUNCTION windlass.owner_of(wanted_task text, wanted text, wanted_digest text, instant bigint) RETURNS text
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found record;
BEGIN
    PERFORM pg_advisory_xact_lock(
        hashtext('windlass.keys'), hashtext(jsonb_build_array('', wanted_task, wanted)::text) & 1023);
    -- A key is free a day after the end of its job.
    SELECT k.id, k.digest, k.seq, k.free_at, coalesce(k.free_at, e.finished + 86400000000) AS free INTO found
    FROM windlass.keys k LEFT JOIN windlass.ended e ON e.seq = k.seq
    WHERE k.tenant = '' AND k.task = wanted_task AND k.key = wanted;
    IF found.id IS NULL THEN
        RETURN NULL;
    ELSIF found.free <= instant THEN
        INSERT INTO windlass.past_keys (seq, id, tenant, task, key, digest)
        SELECT found.seq, found.id, '', wanted_task, wanted, found.digest WHERE found.free_at IS NULL
        ON CONFLICT (seq) DO UPDATE SET id = excluded.id, tenant = excluded.tenant, task = excluded.task,
                                        key = excluded.key, digest = excluded.digest;
        RETURN NULL;
    ELSIF found.digest <> wanted_digest THEN
        RAISE EXCEPTION 'idempotency_key: job % has it, with another payload or version', found.id
        USING ERRCODE = 'unique_violation';
    END IF;
    RETURN found.id;
END
$$;

-- Tell those who look and those who listen. Transactions that notify are flushed one after the other, so only one that
-- is open does so; what the others store is found within a second of their commit.
CREATE FUNCTION windlass.wake() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('windlass.changes_seq');
    IF pg_try_advisory_xact_lock(hashtext('windlass.hints'), 0) THEN
        PERFORM pg_notify('windlass:' || (parse_ident('windlass.jobs'))[1], '');
    END IF;
END
$$;

CREATE FUNCTION windlass.instant(micros bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
SELECT CASE WHEN micros IS NOT NULL THEN to_timestamp(least(greatest(micros, 0), 253402300799000000) / 1000000.0) END
$$;

-- Store one job and answer its id. `payload` is `[[by position], {by name}]` as JSON; `limits` are numbers by key.
CREATE FUNCTION windlass.enqueue(
    task text,
    payload text DEFAULT '[[],{}]',
    queue text DEFAULT 'default',
    priority integer DEFAULT 50,
    delay interval DEFAULT NULL,
    at timestamptz DEFAULT NULL,
    expires interval DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    tags text[] DEFAULT NULL,
    limits jsonb DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    timeout interval DEFAULT NULL,
    version integer DEFAULT 1,
    seconds_per_priority double precision DEFAULT 10
) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    given jsonb := windlass.as_json(enqueue.payload);
    about text := windlass.meta_of(enqueue.tags, enqueue.limits, enqueue.max_attempts, enqueue.timeout);
    instant bigint := extract(epoch FROM clock_timestamp()) * 1000000;
    start bigint;
    stop bigint := instant + windlass.micros('expires', enqueue.expires);
    ahead bigint;
    -- A UUIDv7 with a fraction of its millisecond in twelve bits, as core/placement.py makes them.
    tick text := lpad(to_hex(instant * 4096 / 1000), 15, '0');
    fresh text := format('%s-%s-7%s-%s', left(tick, 8), substr(tick, 9, 4), right(tick, 3),
                         right(gen_random_uuid()::text, 17));
    digest text;
    owner text;
    fullness text;
    place bigint;
BEGIN
    PERFORM windlass.check_name('task', enqueue.task, 'name', 200);
    PERFORM windlass.check_name('queue', enqueue.queue, 'queue', 200);
    IF enqueue.priority IS NULL OR enqueue.version IS NULL OR enqueue.seconds_per_priority IS NULL THEN
        PERFORM windlass.refuse('priority, version, seconds_per_priority', 'must not be NULL');
    END IF;
    PERFORM windlass.check_number('priority', enqueue.priority, 0, 100);
    PERFORM windlass.check_number('version', enqueue.version, 1, 2147483647);
    PERFORM windlass.check_number('seconds_per_priority', enqueue.seconds_per_priority::numeric, 0, 86400);
    PERFORM windlass.check_number('payload, in bytes', octet_length(enqueue.payload), 0, 262144);
    IF (jsonb_typeof(given) = 'array' AND jsonb_typeof(given -> 0) = 'array' AND jsonb_typeof(given -> 1) = 'object'
        AND given -> 2 IS NULL) IS NOT TRUE THEN
        PERFORM windlass.refuse('payload', 'must be JSON, arguments by position and by name: [["a", 1], {"b": 2}]');
    END IF;
    IF enqueue.at NOT BETWEEN '1970-01-01Z' AND '9999-12-31Z' OR enqueue.at + enqueue.delay IS NOT NULL THEN
        PERFORM windlass.refuse('at', 'must lie within the years 1970 to 9999, and not be given together with delay');
    END IF;
    start := coalesce(extract(epoch FROM enqueue.at) * 1000000,
                      instant + coalesce(windlass.micros('delay', enqueue.delay), 0));
    ahead := round(enqueue.priority * enqueue.seconds_per_priority::numeric * 1000000);
    IF enqueue.idempotency_key IS NOT NULL THEN
        PERFORM windlass.check_name('idempotency_key', enqueue.idempotency_key, 'key', 255);
        digest := md5(concat_ws(E'\n', enqueue.task, enqueue.version, given));
        owner := windlass.owner_of(enqueue.task, enqueue.idempotency_key, digest, instant);
        IF owner IS NOT NULL THEN
            RETURN owner;
        END IF;
    END IF;
    IF start <= instant THEN
        fullness := windlass.fullness(enqueue.queue, instant);
    END IF;
    IF fullness = 'reject' THEN
        RAISE EXCEPTION 'queue: % is full, try again later', quote_literal(enqueue.queue)
        USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
    -- Every part is locked before the number is taken; see 004_parts.sql, part_known.
    PERFORM 1 FROM windlass.jobs j WHERE j.id = fresh;
    INSERT INTO windlass.jobs (part, seq, id, tenant, task, version, queue, priority, head_start, created, due, rank,
                               expires, payload, meta)
    VALUES (windlass.part_of(fresh), nextval('windlass.jobs_seq') * 16 + windlass.part_of(fresh), fresh, '',
            enqueue.task, enqueue.version, enqueue.queue, enqueue.priority, ahead, instant, start, start - ahead, stop,
            enqueue.payload, about)
    RETURNING seq INTO place;
    IF fullness = 'shed' THEN
        INSERT INTO windlass.ended (part, seq, state, reason, finished, fence)
        VALUES (place & 15, place, 'cancelled', 'shed', instant, 0);
        INSERT INTO windlass.past_keys (seq, id, tenant, task, key, digest)
        SELECT place, fresh, '', enqueue.task, enqueue.idempotency_key, digest WHERE digest IS NOT NULL;
        RETURN fresh;
    END IF;
    IF start <= instant THEN
        INSERT INTO windlass.ready (part, lane, queue, rank, seq)
        SELECT coalesce((SELECT current FROM windlass.rings WHERE name = 'ready'), 0), 0, enqueue.queue,
               start - ahead, place;
    ELSE
        INSERT INTO windlass.waiting (part, seq, due, state)
        SELECT coalesce((SELECT current FROM windlass.rings WHERE name = 'waiting'), 0), place, start, 'scheduled';
    END IF;
    INSERT INTO windlass.expiring (expires, seq) SELECT stop, place WHERE stop IS NOT NULL;
    INSERT INTO windlass.keys (tenant, task, key, id, seq, digest)
    SELECT '', enqueue.task, enqueue.idempotency_key, fresh, place, digest WHERE digest IS NOT NULL
    ON CONFLICT (tenant, task, key) DO UPDATE SET id = excluded.id, seq = excluded.seq, digest = excluded.digest,
                                                  free_at = NULL;
    PERFORM windlass.wake();
    RETURN fresh;
END
$$;

-- A job as it is now; no row if there is none. `result`, `error` and `payload` are JSON text.
CREATE FUNCTION windlass.job(wanted text) RETURNS TABLE (
    id text, task text, version bigint, queue text, state text, reason text, priority bigint, attempt bigint,
    created timestamptz, due timestamptz, started timestamptz, finished timestamptz, worker text,
    payload text, result text, error text
) LANGUAGE sql STABLE AS $$
SELECT j.id, j.task, j.version::bigint, j.queue,
       CASE WHEN e.seq IS NOT NULL THEN e.state WHEN h.id IS NOT NULL THEN 'running'
            WHEN w.seq IS NOT NULL THEN w.state WHEN b.seq IS NOT NULL THEN 'blocked' ELSE 'queued' END,
       coalesce(e.reason, w.reason, CASE WHEN b.seq IS NULL THEN NULL WHEN b.key = '' THEN 'unique' ELSE 'limit' END),
       j.priority::bigint, coalesce(e.number - 1 + e.charged, h.attempt, j.attempt)::bigint,
       windlass.instant(j.created), windlass.instant(coalesce(w.due, j.due)),
       windlass.instant(coalesce(h.started, e.started)), windlass.instant(e.finished), coalesce(h.worker, e.worker),
       j.payload, e.result, CASE WHEN e.seq IS NULL THEN j.error ELSE e.error END
FROM windlass.jobs j LEFT JOIN windlass.ended e ON e.seq = j.seq LEFT JOIN windlass.held h ON h.id = j.id
LEFT JOIN windlass.waiting w ON w.seq = j.seq LEFT JOIN windlass.blocked b ON b.seq = j.seq
WHERE j.id = wanted
$$;

-- Rows that are put in by hand, past the door: a number with which no claim and no settle could count on would stop the
-- jobs beside it. Only as they come in: what counts up to there later must not be stopped by it, nor what moves to the
-- part of those that stay (14). The function is called for what is refused and for nothing else.
CREATE FUNCTION windlass.refuse_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job %: an instant, a count or a size is out of all bounds', left(quote_nullable(NEW.id), 60)
    USING ERRCODE = 'check_violation';
END
$$;

CREATE TRIGGER jobs_bounds BEFORE INSERT ON windlass.jobs FOR EACH ROW WHEN (NEW.part <> 14 AND (
    greatest(NEW.created, NEW.due, NEW.rank, NEW.head_start, NEW.expires) > 4611686018427387903
    OR least(NEW.created, NEW.due, NEW.rank, NEW.head_start, NEW.expires) < -4611686018427387903
    OR greatest(NEW.attempt, NEW.crashes, NEW.losses) > 1000000000 OR NEW.fence > 4611686018427387904
    OR least(NEW.attempt, NEW.crashes, NEW.losses, NEW.fence) < 0 OR NEW.lane NOT BETWEEN 0 AND 1
    OR octet_length(NEW.payload) > 67108864 OR octet_length(NEW.meta) > 1048576 OR octet_length(NEW.id) > 255)
) EXECUTE FUNCTION windlass.refuse_job();
