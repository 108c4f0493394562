//! Every statement that the store sends; the functions they call are in `migrations/`.

/// Acknowledgements must be durable, and the functions presume READ COMMITTED, whatever the database's defaults are.
pub(super) const SESSION: &str = "SELECT set_config('default_transaction_isolation', 'read committed', false),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'off' THEN 'on' WHEN 'local' THEN 'on' ELSE current_setting('synchronous_commit') END, false)";

pub(super) const APPLY_BATCH: &str =
    "SELECT outcomes, prev_revs, create_revs, versions, written_us FROM apply_batch($1::uuid, $2, $3, $4, $5)";

pub(super) const PUT_ONE: &str =
    "SELECT outcomes, prev_revs, create_revs, versions, written_us FROM put_one($1::uuid, $2, $3, $4, $5)";

pub(super) const APPLY_TRANSACTION: &str = "SELECT outcome, refused, prev_revs, create_revs, versions, written_us
    FROM apply_transaction($1::uuid, $2, $3, $4, $5, $6, $7, $8)";

/// The batch that this writer committed last, with its changes.
pub(super) const LAST_BATCH: &str = "SELECT l.rev, l.key, l.prev_rev, l.create_rev, l.version, l.value,
        (extract(epoch FROM l.written_at) * 1000000)::bigint
    FROM writer w JOIN log l ON l.rev BETWEEN w.first_rev AND w.last_rev
    WHERE w.id = $1::uuid AND w.batch = $2 ORDER BY l.rev";

pub(super) const LIVE_REVISIONS: &str = "SELECT key, mod_rev FROM kv WHERE key = ANY($1)";

pub(super) const REVISION: &str = "SELECT rev, compact_rev FROM revision WHERE id = 1";

/// Where the history ends, and when the change of revision $1 was written if it is still the same history.
pub(super) const POSITION: &str = "SELECT r.rev, r.epoch::text,
        (SELECT (extract(epoch FROM l.written_at) * 1000000)::bigint FROM log l WHERE l.rev = coalesce($1, r.rev))
    FROM revision r WHERE r.id = 1";

/// The changes after $1. One statement, hence one snapshot: the changes reach up to `rev` unless $2 cuts them short.
pub(super) const TAIL: &str = "SELECT r.rev, r.compact_rev, r.epoch::text,
        l.rev, l.key, l.prev_rev, l.create_rev, l.version, l.value, (extract(epoch FROM l.written_at) * 1000000)::bigint
    FROM revision r LEFT JOIN LATERAL (SELECT * FROM log WHERE log.rev > $1 ORDER BY log.rev LIMIT $2) l ON true
    WHERE r.id = 1 ORDER BY l.rev";

pub(super) const GET: &str = "SELECT r.rev, r.compact_rev, l.key, l.value, l.create_rev, l.rev, l.version
    FROM revision r LEFT JOIN (kv k JOIN log l ON l.rev = k.mod_rev) ON k.key = $1 WHERE r.id = 1";

pub(super) const GET_AT: &str = "SELECT r.rev, r.compact_rev, l.key, l.value, l.create_rev, l.rev, l.version
    FROM revision r LEFT JOIN LATERAL (
        SELECT * FROM log WHERE log.key = $1 AND log.rev <= $2 ORDER BY log.rev DESC LIMIT 1
    ) l ON l.value IS NOT NULL WHERE r.id = 1";

/// $3: the limit, NULL for none.
pub(super) const RANGE: &str = "SELECT r.rev, r.compact_rev, l.key, l.value, l.create_rev, l.rev, l.version
    FROM revision r LEFT JOIN LATERAL (
        SELECT log.* FROM kv JOIN log ON log.rev = kv.mod_rev WHERE kv.key >= $1 AND kv.key < $2 ORDER BY kv.key LIMIT $3
    ) l ON true WHERE r.id = 1 ORDER BY l.key";

/// $3: the limit, NULL for none; $4: the revision.
pub(super) const RANGE_AT: &str = "SELECT r.rev, r.compact_rev, l.key, l.value, l.create_rev, l.rev, l.version
    FROM revision r LEFT JOIN LATERAL (
        SELECT * FROM (
            SELECT DISTINCT ON (log.key) log.* FROM log
            WHERE log.key >= $1 AND log.key < $2 AND log.rev <= $4 ORDER BY log.key, log.rev DESC
        ) last WHERE last.value IS NOT NULL ORDER BY last.key LIMIT $3
    ) l ON true WHERE r.id = 1 ORDER BY l.key";

pub(super) const COUNT: &str = "SELECT r.rev, r.compact_rev, (SELECT count(*) FROM kv WHERE key >= $1 AND key < $2)
    FROM revision r WHERE r.id = 1";

/// $3: the revision.
pub(super) const COUNT_AT: &str = "SELECT r.rev, r.compact_rev, (SELECT count(*) FROM (
            SELECT DISTINCT ON (log.key) log.value IS NOT NULL AS live FROM log
            WHERE log.key >= $1 AND log.key < $2 AND log.rev <= $3 ORDER BY log.key, log.rev DESC
        ) last WHERE live)
    FROM revision r WHERE r.id = 1";

pub(super) const SIZE: &str = "SELECT pg_database_size(current_database())";

pub(super) const COMPACT: &str = "UPDATE revision SET compact_rev = $1 WHERE id = 1 AND compact_rev < $1 AND rev >= $1";

/// $1: revisions in a partition, $2: revisions there must be room for.
pub(super) const ADD_PARTITIONS: &str = "SELECT add_partitions($1, $2)";

/// $1: seconds.
pub(super) const FORGET_PARTITION: &str = "SELECT forget_partition(now() - make_interval(secs => $1))";

/// $1: seconds.
pub(super) const FORGET_WRITERS: &str = "DELETE FROM writer WHERE written_at < now() - make_interval(secs => $1)";

pub(super) const CHANNEL: &str = "slipway_revision";
