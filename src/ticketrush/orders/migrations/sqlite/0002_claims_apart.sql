-- What was written once is guarded column by column: a row that is paid, or ends, has its claim neither read again nor
-- compared. (Nothing changes but the time that it takes.)

drop trigger orders_written_once;

create trigger orders_written_once before update of
    number, id, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, held_at
on orders
when old.number is not new.number
    or old.id is not new.id
    or (old.held_at is not null and
        (old.held_at, old.sale, old.item, old.buyer, old.quantity, old.expires_at, old.amount_minor, old.currency,
         old.key)
        is not
        (new.held_at, new.sale, new.item, new.buyer, new.quantity, new.expires_at, new.amount_minor, new.currency,
         new.key))
begin
    select raise(abort, 'orders_written_once');
end;

create trigger orders_ended_once before update of
    payment, paid_at, cancelled_at, expired_at, refunded_at
on orders
when (old.paid_at is not null and (old.paid_at, old.payment) is not (new.paid_at, new.payment))
    or (old.cancelled_at is not null and old.cancelled_at is not new.cancelled_at)
    or (old.expired_at is not null and old.expired_at is not new.expired_at)
    or (old.refunded_at is not null and old.refunded_at is not new.refunded_at)
begin
    select raise(abort, 'orders_written_once');
end;
