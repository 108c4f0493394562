-- Writes of several keys that happen together or not at all, under guards: nobody has written in these ranges since.

-- Applies writes of distinct keys if no guard is broken and all of them are as expected (as of apply_batch). They get
-- consecutive revisions; a key that is created gets the last of them as its create_rev.
-- outcome: the last revision, or the negated revision that stands against it; refused: which write it stands against,
-- 0 for a guard.
CREATE FUNCTION apply_transaction(
    p_writer uuid, p_batch bigint, p_starts text[], p_ends text[], p_since bigint[],
    p_keys text[], p_expected bigint[], p_values bytea[],
    OUT outcome bigint, OUT refused bigint, OUT prev_revs bigint[], OUT create_revs bigint[], OUT versions bigint[],
    OUT written_us bigint
) LANGUAGE plpgsql
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
    v_last := v_base + cardinality(p_keys);

    -- In the order of the revisions: what is newer than a guard's is little, what is in its range may be much.
    SELECT -max(found.rev), 0 INTO outcome, refused
    FROM unnest(p_starts, p_ends, p_since) AS g (first, past, since)
    CROSS JOIN LATERAL (
        SELECT l.rev FROM log l WHERE l.rev > g.since AND l.key >= g.first AND l.key < g.past ORDER BY l.rev LIMIT 1
    ) found
    WHERE g.since < v_base;
    IF outcome IS NOT NULL THEN
        RETURN;
    END IF;

    SELECT -coalesce(k.mod_rev, 0), i.n INTO outcome, refused
    FROM unnest(p_keys, p_expected, p_values) WITH ORDINALITY AS i (key, expected, value, n)
    LEFT JOIN kv k ON k.key = i.key
    WHERE NOT ((i.expected = -1 OR i.expected = coalesce(k.mod_rev, 0)) AND (i.value IS NOT NULL OR k.mod_rev IS NOT NULL))
    ORDER BY i.n LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;

    WITH numbered AS MATERIALIZED (
        SELECT i.n, i.key, i.value, v_base + i.n AS rev, coalesce(k.mod_rev, 0) AS prev_rev,
            coalesce(k.create_rev, v_last) AS create_rev, coalesce(k.version, 0) + 1 AS version
        FROM unnest(p_keys, p_values) WITH ORDINALITY AS i (key, value, n)
        LEFT JOIN kv k ON k.key = i.key
    ), put AS (
        INSERT INTO kv (key, mod_rev, create_rev, version)
        SELECT key, rev, create_rev, version FROM numbered WHERE value IS NOT NULL
        ON CONFLICT (key) DO UPDATE SET mod_rev = excluded.mod_rev, version = excluded.version
    ), deleted AS (
        DELETE FROM kv USING numbered WHERE kv.key = numbered.key AND numbered.value IS NULL
    ), logged AS (
        INSERT INTO log (rev, key, prev_rev, create_rev, version, written_at, value)
        SELECT rev, key, prev_rev, create_rev, version, v_now, value FROM numbered ORDER BY rev
    )
    SELECT array_agg(prev_rev ORDER BY n), array_agg(create_rev ORDER BY n), array_agg(version ORDER BY n)
    INTO prev_revs, create_revs, versions FROM numbered;
    outcome := v_last;
    refused := 0;
    PERFORM committed(p_writer, p_batch, v_base + 1, v_last, v_now);
END $$;
