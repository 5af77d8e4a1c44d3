-- name: others
-- Connections to this database besides this one.
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';

-- name: transactions
-- As PostgreSQL counts them itself. A process reports its own when it ends, so the others must have ended before.
SELECT xact_commit FROM pg_stat_database WHERE datname = current_database();
