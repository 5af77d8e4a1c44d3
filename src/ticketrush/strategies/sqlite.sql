-- name: schema
-- The stock, and who ordered. An order goes from unpaid to paid, or to refunded.
CREATE TABLE stock (
    item      TEXT PRIMARY KEY,
    capacity  INTEGER NOT NULL,
    available INTEGER NOT NULL CHECK (available BETWEEN 0 AND capacity)   -- never oversold, whoever asks
) STRICT;
CREATE TABLE orders (
    id    TEXT PRIMARY KEY,                                               -- made of buyer and key: once is once
    buyer TEXT NOT NULL,
    item  TEXT NOT NULL REFERENCES stock (item),
    state TEXT NOT NULL CHECK (state IN ('unpaid', 'paid', 'refunded'))
) STRICT, WITHOUT ROWID;
CREATE INDEX orders_unpaid ON orders (item) WHERE state = 'unpaid';

-- name: fill
INSERT INTO stock (item, capacity, available) VALUES (:item, :capacity, :capacity);

-- name: look
-- The stock without a lock, whether any order waits for its payment, and the state of one order.
SELECT available,
       EXISTS (SELECT 1 FROM orders WHERE orders.item = stock.item AND state = 'unpaid'),
       (SELECT state FROM orders WHERE id = :id)
FROM stock WHERE item = :item;

-- name: available
SELECT available FROM stock WHERE item = :item;

-- name: place
-- -> unpaid
INSERT INTO orders (id, buyer, item, state) VALUES (:id, :buyer, :item, 'unpaid') ON CONFLICT (id) DO NOTHING;

-- name: take
UPDATE stock SET available = available - 1 WHERE item = :item AND available > 0;

-- name: pay
-- unpaid -> paid
UPDATE orders SET state = 'paid' WHERE id = :id AND buyer = :buyer AND state = 'unpaid';

-- name: refund
-- paid, in the same transaction, without a unit to give -> refunded
UPDATE orders SET state = 'refunded' WHERE id = :id;

-- name: state
SELECT state FROM orders WHERE id = :id AND buyer = :buyer;

-- name: paid
SELECT count(*) FROM orders WHERE state = 'paid';
