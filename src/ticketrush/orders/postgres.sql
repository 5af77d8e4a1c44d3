-- What the order store in PostgreSQL asks. Each block is one statement, under its name.

-- put: orders, or what is new of them, as one array for each column. A time that is there stays; a claim or a payment
-- that differs from the one that is there is refused by the trigger orders_written_once. A row that would not change
-- is not written.
insert into orders (
    id, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment,
    held_at, paid_at, cancelled_at, expired_at, refunded_at
)
select * from unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::timestamptz[], $7::bigint[], $8::text[],
    $9::text[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[],
    $15::timestamptz[]
)
on conflict (id) do update set
    sale         = coalesce(excluded.sale, orders.sale),
    item         = coalesce(excluded.item, orders.item),
    buyer        = coalesce(excluded.buyer, orders.buyer),
    quantity     = coalesce(excluded.quantity, orders.quantity),
    expires_at   = coalesce(excluded.expires_at, orders.expires_at),
    amount_minor = coalesce(excluded.amount_minor, orders.amount_minor),
    currency     = coalesce(excluded.currency, orders.currency),
    key          = coalesce(excluded.key, orders.key),
    payment      = coalesce(excluded.payment, orders.payment),
    held_at      = coalesce(orders.held_at, excluded.held_at),
    paid_at      = coalesce(orders.paid_at, excluded.paid_at),
    cancelled_at = coalesce(orders.cancelled_at, excluded.cancelled_at),
    expired_at   = coalesce(orders.expired_at, excluded.expired_at),
    refunded_at  = coalesce(orders.refunded_at, excluded.refunded_at)
where (excluded.held_at is not null and
        (orders.sale, orders.item, orders.buyer, orders.quantity, orders.expires_at, orders.amount_minor,
         orders.currency, orders.key)
        is distinct from
        (excluded.sale, excluded.item, excluded.buyer, excluded.quantity, excluded.expires_at, excluded.amount_minor,
         excluded.currency, excluded.key))
    or (excluded.paid_at is not null and orders.payment is distinct from excluded.payment)
    or (excluded.cancelled_at is not null and orders.cancelled_at is null)
    or (excluded.expired_at is not null and orders.expired_at is null)
    or (excluded.refunded_at is not null and orders.refunded_at is null)

-- put_dead_letters: messages, each once for its place.
insert into dead_letters (place, payload, error, at)
select * from unnest($1::text[], $2::bytea[], $3::text[], $4::timestamptz[])
on conflict do nothing

-- put_repairs: repairs, each once.
insert into repairs (order_id, before, after, reason, at)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
on conflict do nothing

-- put_position: how far a source has been read.
insert into positions (source, place) values ($1, $2) on conflict (source) do update set place = excluded.place

-- position: how far a source has been read.
select place from positions where source = $1

-- order: one order.
select id, number, state, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment,
    held_at, paid_at, cancelled_at, expired_at, refunded_at
from orders where id = $1

-- orders_of: a buyer's orders below a number, newest first.
select id, number, state, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment,
    held_at, paid_at, cancelled_at, expired_at, refunded_at
from orders where buyer = $1 and number < $2 and state <> 'incomplete' order by number desc limit $3

-- page: everybody's orders above a number, oldest first.
select id, number, state, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment,
    held_at, paid_at, cancelled_at, expired_at, refunded_at
from orders where number > $1 order by number limit $2

-- states: of many orders.
select id, state from orders where id = any($1::text[])

-- totals: orders and units by item and state.
select in_sale, of_item, state, count(*) as orders, sum(units)::bigint as units
from orders
cross join lateral (
    select
        case state when 'incomplete' then '' else sale end as in_sale,
        case state when 'incomplete' then '' else item end as of_item,
        case state when 'incomplete' then 0 else quantity end as units
) as complete
group by in_sale, of_item, state order by in_sale, of_item, state

-- dead_letters: those not settled, oldest first.
select place, payload, error, at, number from dead_letters
where settled_at is null and number > $1 order by number limit $2

-- settle: a dead letter is dealt with.
update dead_letters set settled_at = $1, outcome = $2 where number = $3 and settled_at is null returning number

-- repairs: the latest, newest first.
select order_id, before, after, reason, at from repairs order by number desc limit $1

-- has_version: whether there are tables of ours.
select to_regclass('schema_version') is not null

-- version: the migrations that were applied.
select number, name from schema_version order by number

-- put_version: a migration was applied.
insert into schema_version (number, name) values ($1, $2)

-- durable: for a connection to a server where commits are not durable unless one says so.
select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'

-- watch: how often the server looks, while it works for this connection, whether anybody still waits; in milliseconds.
set client_connection_check_interval = 500

-- lock: one program migrates at a time; until the end of the transaction. The number is "TRSO".
select pg_advisory_xact_lock(1414681423)

-- limit: the longest that a statement of this connection may take from now on, or a transaction wait for its next one,
-- in milliseconds.
select set_config('statement_timeout', $1, false), set_config('idle_in_transaction_session_timeout', $1, false)
