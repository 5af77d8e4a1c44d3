-- The book of the test gateway: who was charged, and which webhooks are still to be delivered.

CREATE TABLE IF NOT EXISTS charges (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    order_id        TEXT NOT NULL,
    idempotency_key TEXT,             -- of the request that made it; NULL for none
    amount_minor    INTEGER NOT NULL,
    currency        TEXT NOT NULL,
    state           TEXT NOT NULL,    -- pending -> approved -> refunded, pending -> declined
    verdict         TEXT NOT NULL,    -- approved or declined: what a pending one becomes
    decide_at_ms    INTEGER NOT NULL  -- when it becomes that
) STRICT;

CREATE UNIQUE INDEX IF NOT EXISTS charges_by_key ON charges (idempotency_key) WHERE idempotency_key IS NOT NULL;

-- An order is not charged twice: at most one charge of it is pending or approved.
CREATE UNIQUE INDEX IF NOT EXISTS charge_of_order ON charges (order_id) WHERE state IN ('pending', 'approved');
CREATE INDEX IF NOT EXISTS charges_by_order ON charges (order_id, seq);
CREATE INDEX IF NOT EXISTS charges_to_decide ON charges (decide_at_ms) WHERE state = 'pending';

-- Written in the same transaction as the state it tells of; deleted when it was answered 2xx, or given up.
CREATE TABLE IF NOT EXISTS deliveries (
    seq       INTEGER PRIMARY KEY,
    message   TEXT NOT NULL,          -- the webhook-id; repetitions have the same
    body      BLOB NOT NULL,
    due_at_ms INTEGER NOT NULL,
    tries     INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS deliveries_by_due ON deliveries (due_at_ms);
