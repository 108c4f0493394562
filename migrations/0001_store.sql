-- The store: live keys, the log of every change, and the one counter that orders them.

-- The counter. Every writing transaction locks this row first, so revisions are numbered in the order of the commits,
-- and a transaction that is rolled back gives its numbers back.
CREATE TABLE revision (
    id smallint PRIMARY KEY CHECK (id = 1),
    rev bigint NOT NULL,
    -- Neither reads nor watches begin before this revision.
    compact_rev bigint NOT NULL CHECK (compact_rev <= rev),
    -- To be changed after the database was restored from a backup: every watch then begins again.
    epoch uuid NOT NULL DEFAULT gen_random_uuid()
) WITH (fillfactor = 10);
INSERT INTO revision (id, rev, compact_rev) VALUES (1, 0, 0);

-- One narrow row a live key. Its value is the log's at mod_rev.
CREATE TABLE kv (
    key text COLLATE "C" PRIMARY KEY,
    mod_rev bigint NOT NULL,
    create_rev bigint NOT NULL,
    version bigint NOT NULL
) WITH (fillfactor = 50);

-- Every change. A NULL value is a deletion.
CREATE TABLE log (
    rev bigint PRIMARY KEY,
    key text COLLATE "C" NOT NULL,
    prev_rev bigint NOT NULL,
    create_rev bigint NOT NULL,
    version bigint NOT NULL,
    written_at timestamptz NOT NULL,
    value bytea COMPRESSION lz4
) PARTITION BY RANGE (rev);
CREATE INDEX log_key_rev ON log (key, rev);

-- The partitions: the base, which holds what the forgotten revisions left alive, then the others in order.
CREATE TABLE log_partition (
    name name PRIMARY KEY,
    from_rev bigint NOT NULL,
    to_rev bigint NOT NULL UNIQUE,
    is_base boolean NOT NULL
);
CREATE TABLE log_base_1 PARTITION OF log FOR VALUES FROM (MINVALUE) TO (1);
INSERT INTO log_partition VALUES ('log_base_1', 0, 1, true);

-- What each writer last committed, so that it can find out after it lost its connection in a commit.
CREATE TABLE writer (
    id uuid PRIMARY KEY,
    batch bigint NOT NULL,
    first_rev bigint NOT NULL,
    last_rev bigint NOT NULL,
    written_at timestamptz NOT NULL
) WITH (fillfactor = 10);

-- Applies writes of distinct keys in one go. p_expected: -1 anything, 0 absent, else the mod_rev. A NULL value deletes.
-- outcomes: the revision of each write that was applied; of the others the negated mod_rev of the key, 0 if it is absent.
-- A batch that was committed before is refused with SW001. It presumes READ COMMITTED: each statement below must see
-- what was committed before the lock was taken.
CREATE FUNCTION apply_batch(
    p_writer uuid, p_batch bigint, p_keys text[], p_expected bigint[], p_values bytea[],
    OUT outcomes bigint[], OUT prev_revs bigint[], OUT create_revs bigint[], OUT versions bigint[], OUT written_us bigint
) LANGUAGE plpgsql
-- The plans are made once and kept; they must not be those for an empty table.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_base bigint;
    v_last bigint;
    v_now timestamptz;
BEGIN
    SELECT rev INTO STRICT v_base FROM revision WHERE id = 1 FOR UPDATE;
    IF EXISTS (SELECT FROM writer WHERE id = p_writer AND batch >= p_batch) THEN
        RAISE EXCEPTION 'batch % of writer % was committed before', p_batch, p_writer USING ERRCODE = 'SW001';
    END IF;
    v_now := clock_timestamp();
    written_us := (extract(epoch FROM v_now) * 1000000)::bigint;

    WITH judged AS (
        SELECT i.n, i.key, i.value, coalesce(k.mod_rev, 0) AS prev_rev, k.create_rev, coalesce(k.version, 0) + 1 AS version,
            (i.expected = -1 OR i.expected = coalesce(k.mod_rev, 0)) AND (i.value IS NOT NULL OR k.mod_rev IS NOT NULL) AS ok
        FROM unnest(p_keys, p_expected, p_values) WITH ORDINALITY AS i (key, expected, value, n)
        LEFT JOIN kv k ON k.key = i.key
    ), numbered AS MATERIALIZED (
        SELECT j.*, v_base + sum(ok::int) OVER (ORDER BY n) AS rev FROM judged j
    ), put AS (
        INSERT INTO kv (key, mod_rev, create_rev, version)
        SELECT key, rev, coalesce(create_rev, rev), version FROM numbered WHERE ok AND value IS NOT NULL
        ON CONFLICT (key) DO UPDATE SET mod_rev = excluded.mod_rev, version = excluded.version
    ), deleted AS (
        DELETE FROM kv USING numbered WHERE kv.key = numbered.key AND numbered.ok AND numbered.value IS NULL
    ), logged AS (
        INSERT INTO log (rev, key, prev_rev, create_rev, version, written_at, value)
        SELECT rev, key, prev_rev, coalesce(create_rev, rev), version, v_now, value FROM numbered WHERE ok ORDER BY rev
    )
    SELECT array_agg(CASE WHEN ok THEN rev ELSE -prev_rev END ORDER BY n), array_agg(prev_rev ORDER BY n),
        array_agg(coalesce(create_rev, rev) ORDER BY n), array_agg(version ORDER BY n), max(rev)
    INTO outcomes, prev_revs, create_revs, versions, v_last FROM numbered;

    IF v_last > v_base THEN
        PERFORM committed(p_writer, p_batch, v_base + 1, v_last, v_now);
    END IF;
END $$;

-- The same for a single write, with less to plan.
CREATE FUNCTION put_one(
    p_writer uuid, p_batch bigint, p_key text, p_expected bigint, p_value bytea,
    OUT outcomes bigint[], OUT prev_revs bigint[], OUT create_revs bigint[], OUT versions bigint[], OUT written_us bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_rev bigint;
    v_now timestamptz;
    v_live kv%ROWTYPE;
BEGIN
    SELECT rev + 1 INTO STRICT v_rev FROM revision WHERE id = 1 FOR UPDATE;
    IF EXISTS (SELECT FROM writer WHERE id = p_writer AND batch >= p_batch) THEN
        RAISE EXCEPTION 'batch % of writer % was committed before', p_batch, p_writer USING ERRCODE = 'SW001';
    END IF;
    v_now := clock_timestamp();
    written_us := (extract(epoch FROM v_now) * 1000000)::bigint;
    SELECT * INTO v_live FROM kv WHERE key = p_key;
    prev_revs := ARRAY[coalesce(v_live.mod_rev, 0)];
    create_revs := ARRAY[coalesce(v_live.create_rev, v_rev)];
    versions := ARRAY[coalesce(v_live.version, 0) + 1];
    IF (p_expected <> -1 AND p_expected <> prev_revs[1]) OR (p_value IS NULL AND prev_revs[1] = 0) THEN
        outcomes := ARRAY[-prev_revs[1]];
        RETURN;
    END IF;
    IF p_value IS NULL THEN
        DELETE FROM kv WHERE key = p_key;
    ELSIF prev_revs[1] = 0 THEN
        INSERT INTO kv (key, mod_rev, create_rev, version) VALUES (p_key, v_rev, v_rev, 1);
    ELSE
        UPDATE kv SET mod_rev = v_rev, version = versions[1] WHERE key = p_key;
    END IF;
    INSERT INTO log (rev, key, prev_rev, create_rev, version, written_at, value)
    VALUES (v_rev, p_key, prev_revs[1], create_revs[1], versions[1], v_now, p_value);
    outcomes := ARRAY[v_rev];
    PERFORM committed(p_writer, p_batch, v_rev, v_rev, v_now);
END $$;

-- The end of every batch that changed something.
CREATE FUNCTION committed(p_writer uuid, p_batch bigint, p_first bigint, p_last bigint, p_now timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE revision SET rev = p_last WHERE id = 1;
    INSERT INTO writer AS w (id, batch, first_rev, last_rev, written_at) VALUES (p_writer, p_batch, p_first, p_last, p_now)
    ON CONFLICT (id) DO UPDATE
    SET batch = excluded.batch, first_rev = excluded.first_rev, last_rev = excluded.last_rev, written_at = excluded.written_at;
    PERFORM pg_notify('slipway_revision', p_last || ' ' || p_writer);
END $$;

-- Sees to it that the log has room for p_room revisions more than there are, in partitions of p_size. A partition is attached, not created in
-- place, since that would lock the log against its readers.
CREATE FUNCTION add_partitions(p_size bigint, p_room bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_from bigint;
    v_name name;
BEGIN
    PERFORM pg_advisory_xact_lock(7307193);
    LOOP
        SELECT max(to_rev) INTO v_from FROM log_partition;
        EXIT WHEN v_from > (SELECT rev + p_room FROM revision WHERE id = 1);
        v_name := 'log_' || v_from;
        EXECUTE format('CREATE TABLE %I (LIKE log INCLUDING ALL, CONSTRAINT bounds CHECK (rev >= %s AND rev < %s))',
            v_name, v_from, v_from + p_size);
        EXECUTE format('ALTER TABLE log ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', v_name, v_from, v_from + p_size);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bounds', v_name);
        INSERT INTO log_partition VALUES (v_name, v_from, v_from + p_size, false);
    END LOOP;
END $$;

-- Forgets the oldest partition if all of it is compacted and was written before p_before: what the keys were at its end
-- is copied to a new base, without any lock, and then the two are swapped. False if there is nothing to forget.
CREATE FUNCTION forget_partition(p_before timestamptz) RETURNS boolean LANGUAGE plpgsql
SET lock_timeout = '2s'
AS $$
DECLARE
    v_base name;
    v_oldest log_partition%ROWTYPE;
    v_name name;
    v_newest timestamptz;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7307193) THEN
        RETURN false;
    END IF;
    SELECT p.* INTO v_oldest FROM log_partition p, revision r
    WHERE NOT p.is_base AND p.to_rev - 1 <= r.compact_rev ORDER BY p.from_rev LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT written_at FROM %I ORDER BY rev DESC LIMIT 1', v_oldest.name) INTO v_newest;
    IF v_newest >= p_before THEN
        RETURN false;
    END IF;
    SELECT name INTO STRICT v_base FROM log_partition WHERE is_base;

    v_name := 'log_base_' || v_oldest.to_rev;
    EXECUTE format('CREATE TABLE %I (LIKE log INCLUDING ALL, CONSTRAINT bounds CHECK (rev < %s))', v_name, v_oldest.to_rev);
    EXECUTE format('INSERT INTO %I SELECT b.* FROM %I b WHERE NOT EXISTS (SELECT FROM %I o WHERE o.key = b.key)',
        v_name, v_base, v_oldest.name);
    EXECUTE format('INSERT INTO %I SELECT l.* FROM (SELECT DISTINCT ON (key) * FROM %I ORDER BY key, rev DESC) l
        WHERE l.value IS NOT NULL', v_name, v_oldest.name);

    EXECUTE format('ALTER TABLE log DETACH PARTITION %I', v_base);
    EXECUTE format('ALTER TABLE log DETACH PARTITION %I', v_oldest.name);
    EXECUTE format('DROP TABLE %I, %I', v_base, v_oldest.name);
    EXECUTE format('ALTER TABLE log ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%s)', v_name, v_oldest.to_rev);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bounds', v_name);
    DELETE FROM log_partition WHERE name IN (v_base, v_oldest.name);
    INSERT INTO log_partition VALUES (v_name, 0, v_oldest.to_rev, true);
    RETURN true;
END $$;
