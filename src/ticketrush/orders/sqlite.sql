-- What the order store in SQLite asks. Each block is one statement, under its name.

-- put_new: one order that is not there yet: a third less work than put.
insert into orders (
    id, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment,
    held_at, paid_at, cancelled_at, expired_at, refunded_at
) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- put: one order, or what is new of it. A time that is there stays; a claim or a payment that differs from the one
-- that is there is refused by the trigger orders_written_once. A row that would not change is not written.
insert into orders (
    id, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment,
    held_at, paid_at, cancelled_at, expired_at, refunded_at
) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (id) do update set
    sale         = coalesce(excluded.sale, sale),
    item         = coalesce(excluded.item, item),
    buyer        = coalesce(excluded.buyer, buyer),
    quantity     = coalesce(excluded.quantity, quantity),
    expires_at   = coalesce(excluded.expires_at, expires_at),
    amount_minor = coalesce(excluded.amount_minor, amount_minor),
    currency     = coalesce(excluded.currency, currency),
    key          = coalesce(excluded.key, key),
    payment      = coalesce(excluded.payment, payment),
    held_at      = coalesce(held_at, excluded.held_at),
    paid_at      = coalesce(paid_at, excluded.paid_at),
    cancelled_at = coalesce(cancelled_at, excluded.cancelled_at),
    expired_at   = coalesce(expired_at, excluded.expired_at),
    refunded_at  = coalesce(refunded_at, excluded.refunded_at)
where (excluded.held_at is not null and
        (sale, item, buyer, quantity, expires_at, amount_minor, currency, key)
        is not
        (excluded.sale, excluded.item, excluded.buyer, excluded.quantity, excluded.expires_at,
         excluded.amount_minor, excluded.currency, excluded.key))
    or (excluded.paid_at is not null and payment is not excluded.payment)
    or (excluded.cancelled_at is not null and cancelled_at is null)
    or (excluded.expired_at is not null and expired_at is null)
    or (excluded.refunded_at is not null and refunded_at is null)

-- put_more: what is new of an order without its claim: id, payment, paid_at, cancelled_at, expired_at, refunded_at. The
-- same as put with nothing in the other columns, but a fifth less work.
insert into orders (id, payment, paid_at, cancelled_at, expired_at, refunded_at) values (?, ?, ?, ?, ?, ?)
on conflict (id) do update set
    payment      = coalesce(excluded.payment, payment),
    paid_at      = coalesce(paid_at, excluded.paid_at),
    cancelled_at = coalesce(cancelled_at, excluded.cancelled_at),
    expired_at   = coalesce(expired_at, excluded.expired_at),
    refunded_at  = coalesce(refunded_at, excluded.refunded_at)
where (excluded.paid_at is not null and payment is not excluded.payment)
    or (excluded.cancelled_at is not null and cancelled_at is null)
    or (excluded.expired_at is not null and expired_at is null)
    or (excluded.refunded_at is not null and refunded_at is null)

-- put_dead_letter: a message, once for each place.
insert into dead_letters (place, payload, error, at) values (?, ?, ?, ?) on conflict do nothing

-- put_repair: a repair, once.
insert into repairs (order_id, before, after, reason, at) values (?, ?, ?, ?, ?) on conflict do nothing

-- put_position: how far a source has been read.
insert into positions (source, place) values (?, ?) on conflict (source) do update set place = excluded.place

-- position: how far a source has been read.
select place from positions where source = ?

-- order: one order.
select id, number, state, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment,
    held_at, paid_at, cancelled_at, expired_at, refunded_at
from orders where id = ?

-- orders_of: a buyer's orders below a number, newest first.
select id, number, state, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment,
    held_at, paid_at, cancelled_at, expired_at, refunded_at
from orders where buyer = ? and number < ? and state <> 'incomplete' order by number desc limit ?

-- page: everybody's orders above a number, oldest first.
select id, number, state, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment,
    held_at, paid_at, cancelled_at, expired_at, refunded_at
from orders where number > ? order by number limit ?

-- states: of many orders, whose ids are a JSON array.
select id, state from orders where id in (select value from json_each(?))

-- totals: orders and units by item and state.
select iif(state = 'incomplete', '', sale) as in_sale, iif(state = 'incomplete', '', item) as of_item, state,
    count(*), total(iif(state = 'incomplete', 0, quantity))
from orders group by in_sale, of_item, state order by in_sale, of_item, state

-- dead_letters: those not settled, oldest first.
select place, payload, error, at, number from dead_letters
where settled_at is null and number > ? order by number limit ?

-- settle: a dead letter is dealt with.
update dead_letters set settled_at = ?, outcome = ? where number = ? and settled_at is null returning number

-- repairs: the latest, newest first.
select order_id, before, after, reason, at from repairs order by number desc limit ?

-- version: the migrations that were applied.
select number, name from schema_version order by number

-- put_version: a migration was applied.
insert into schema_version (number, name, applied_at) values (?, ?, ?)
