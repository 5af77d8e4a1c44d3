-- Orders, and what belongs to them, in the schema that comes first in search_path. Identifiers compare by bytes.

-- Which migrations have been applied.
create table schema_version (
    number     integer     primary key,
    name       text        not null,
    applied_at timestamptz not null default now()
);

-- One row for each reservation that was heard of. What is written once stays: a row only ever gains.
--
--   incomplete -> held -> paid -> refunded
--                 held -> cancelled
--                 held -> expired
--
-- Facts may come in any order; until those before are known, the row is incomplete. A row that was held is
-- usually written once more, and longer: with room for that on the same page, no index has to be told (94 of 100
-- times; 50 of 100 with a fillfactor of 75), and a fifth less is logged.
create table orders (
    id           text   collate "C" primary key,
    number       bigint not null generated always as identity,
    sale         text   collate "C",
    item         text   collate "C",
    buyer        text   collate "C",
    quantity     integer,
    expires_at   timestamptz,
    amount_minor bigint,
    currency     text   collate "C",
    key          text   collate "C",
    payment      text   collate "C",
    held_at      timestamptz,
    paid_at      timestamptz,
    cancelled_at timestamptz,
    expired_at   timestamptz,
    refunded_at  timestamptz,
    state        text   not null generated always as (
        case
            when held_at      is null     then 'incomplete'
            when refunded_at  is not null then case when paid_at is null then 'incomplete' else 'refunded' end
            when paid_at      is not null then 'paid'
            when cancelled_at is not null then 'cancelled'
            when expired_at   is not null then 'expired'
            else 'held'
        end
    ) stored,
    constraint orders_whole_claim check (
        num_nulls(held_at, sale, item, buyer, quantity, expires_at, amount_minor, currency, key) in (0, 9)
    ),
    constraint orders_whole_payment check ((paid_at is null) = (payment is null)),
    constraint orders_amounts check (quantity >= 1 and amount_minor >= 0),
    constraint orders_one_end check (num_nonnulls(paid_at, cancelled_at, expired_at) <= 1),
    constraint orders_refund_of_paid check (
        refunded_at is null or (cancelled_at is null and expired_at is null)
    )
) with (fillfactor = 50);

-- The orders in the order in which they were heard of, and those of a buyer.
create unique index orders_by_number on orders (number);
create index orders_of_buyer on orders (buyer, number) where buyer is not null;

create function orders_refuse() returns trigger language plpgsql as $$
begin
    raise exception 'orders are never changed nor removed' using
        errcode = 'integrity_constraint_violation',
        constraint = tg_name,
        detail = case when tg_level = 'ROW' then format('Failing row contains (%s, ...)', old.id) else '' end;
end
$$;

-- Nothing that was written changes, whoever writes.
create trigger orders_written_once before update on orders for each row
when (
    old.number is distinct from new.number
    or old.id is distinct from new.id
    or (old.held_at is not null and
        (old.held_at, old.sale, old.item, old.buyer, old.quantity, old.expires_at, old.amount_minor, old.currency,
         old.key)
        is distinct from
        (new.held_at, new.sale, new.item, new.buyer, new.quantity, new.expires_at, new.amount_minor, new.currency,
         new.key))
    or (old.paid_at is not null and (old.paid_at, old.payment) is distinct from (new.paid_at, new.payment))
    or (old.cancelled_at is not null and old.cancelled_at is distinct from new.cancelled_at)
    or (old.expired_at is not null and old.expired_at is distinct from new.expired_at)
    or (old.refunded_at is not null and old.refunded_at is distinct from new.refunded_at)
)
execute function orders_refuse();

create trigger orders_stay before delete on orders for each row execute function orders_refuse();
create trigger orders_all_stay before truncate on orders for each statement execute function orders_refuse();

-- Messages that cannot become part of an order. A settled one stays, so that the same message is known again.
create table dead_letters (
    number     bigint      primary key generated always as identity,
    place      text        collate "C" not null unique,
    payload    bytea       not null,
    error      text        not null,
    at         timestamptz not null,
    settled_at timestamptz,
    outcome    text,
    check ((settled_at is null) = (outcome is null))
);

create index dead_letters_open on dead_letters (number) where settled_at is null;

-- Differences between ledger and store that were put right. The same one is written once.
create table repairs (
    number   bigint      primary key generated always as identity,
    order_id text        collate "C" not null,
    before   text        not null,
    after    text        not null,
    reason   text        not null,
    at       timestamptz not null,
    unique (order_id, at, before, after, reason)
);

-- How far each source has been read.
create table positions (
    source text collate "C" primary key,
    place  text not null
);
