-- Orders, and what belongs to them. Times are UTC milliseconds.

-- Which migrations have been applied.
create table schema_version (
    number     integer primary key,
    name       text    not null,
    applied_at integer not null
) strict;

-- One row for each reservation that was heard of. What is written once stays: a row only ever gains.
--
--   incomplete -> held -> paid -> refunded
--                 held -> cancelled
--                 held -> expired
--
-- Facts may come in any order; until those before are known, the row is incomplete.
create table orders (
    number       integer primary key,
    id           text    not null,
    sale         text,
    item         text,
    buyer        text,
    quantity     integer,
    expires_at   integer,
    amount_minor integer,
    currency     text,
    key          text,
    payment      text,
    held_at      integer,
    paid_at      integer,
    cancelled_at integer,
    expired_at   integer,
    refunded_at  integer,
    state        text    not null generated always as (
        case
            when held_at      is null     then 'incomplete'
            when refunded_at  is not null then iif(paid_at is null, 'incomplete', 'refunded')
            when paid_at      is not null then 'paid'
            when cancelled_at is not null then 'cancelled'
            when expired_at   is not null then 'expired'
            else 'held'
        end
    ) virtual,
    constraint orders_once unique (id),
    constraint orders_whole_claim check (
        (held_at is null) = (sale is null)         and (held_at is null) = (item is null)
        and (held_at is null) = (buyer is null)    and (held_at is null) = (quantity is null)
        and (held_at is null) = (expires_at is null)
        and (held_at is null) = (amount_minor is null)
        and (held_at is null) = (currency is null) and (held_at is null) = (key is null)
    ),
    constraint orders_whole_payment check ((paid_at is null) = (payment is null)),
    constraint orders_amounts check (quantity >= 1 and amount_minor >= 0),
    constraint orders_one_end check (
        (paid_at is not null) + (cancelled_at is not null) + (expired_at is not null) <= 1
    ),
    constraint orders_refund_of_paid check (
        refunded_at is null or (cancelled_at is null and expired_at is null)
    )
) strict;

-- The orders of a buyer; the number, which is the row's own, follows by itself.
create index orders_of_buyer on orders (buyer) where buyer is not null;

-- Nothing that was written changes, whoever writes.
create trigger orders_written_once before update on orders
when old.number is not new.number
    or old.id is not new.id
    or (old.held_at is not null and
        (old.held_at, old.sale, old.item, old.buyer, old.quantity, old.expires_at, old.amount_minor, old.currency,
         old.key)
        is not
        (new.held_at, new.sale, new.item, new.buyer, new.quantity, new.expires_at, new.amount_minor, new.currency,
         new.key))
    or (old.paid_at is not null and (old.paid_at, old.payment) is not (new.paid_at, new.payment))
    or (old.cancelled_at is not null and old.cancelled_at is not new.cancelled_at)
    or (old.expired_at is not null and old.expired_at is not new.expired_at)
    or (old.refunded_at is not null and old.refunded_at is not new.refunded_at)
begin
    select raise(abort, 'orders_written_once');
end;

create trigger orders_stay before delete on orders
begin
    select raise(abort, 'orders_stay');
end;

-- Messages that cannot become part of an order. A settled one stays, so that the same message is known again.
create table dead_letters (
    number     integer primary key,
    place      text    not null unique,
    payload    blob    not null,
    error      text    not null,
    at         integer not null,
    settled_at integer,
    outcome    text,
    check ((settled_at is null) = (outcome is null))
) strict;

create index dead_letters_open on dead_letters (number) where settled_at is null;

-- Differences between ledger and store that were put right. The same one is written once.
create table repairs (
    number   integer primary key,
    order_id text    not null,
    before   text    not null,
    after    text    not null,
    reason   text    not null,
    at       integer not null,
    unique (order_id, at, before, after, reason)
) strict;

-- How far each source has been read.
create table positions (
    source text primary key,
    place  text not null
) strict, without rowid;
