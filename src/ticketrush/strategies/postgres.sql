-- name: schema
-- The stock, and who ordered. An order goes from unpaid to paid, or to refunded.
CREATE TABLE stock (
    item      text PRIMARY KEY,
    capacity  integer NOT NULL,
    available integer NOT NULL CHECK (available BETWEEN 0 AND capacity)   -- never oversold, whoever asks
);
CREATE TABLE orders (
    id    text PRIMARY KEY,                                               -- made of buyer and key: once is once
    buyer text NOT NULL,
    item  text NOT NULL REFERENCES stock (item),
    state text NOT NULL CHECK (state IN ('unpaid', 'paid', 'refunded'))
);
CREATE INDEX orders_unpaid ON orders (item) WHERE state = 'unpaid';

-- name: fill
INSERT INTO stock (item, capacity, available) VALUES ($1, $2, $2);

-- name: look
-- The stock without a lock, whether any order waits for its payment, and the state of one order.
SELECT available,
       EXISTS (SELECT 1 FROM orders WHERE orders.item = stock.item AND state = 'unpaid'),
       (SELECT state FROM orders WHERE id = $2)
FROM stock WHERE item = $1;

-- name: lock
SELECT available FROM stock WHERE item = $1 FOR UPDATE;

-- name: place
-- -> unpaid
INSERT INTO orders (id, buyer, item, state) VALUES ($1, $2, $3, 'unpaid') ON CONFLICT (id) DO NOTHING;

-- name: take
UPDATE stock SET available = available - 1 WHERE item = $1 AND available > 0;

-- name: pay
-- unpaid -> paid
UPDATE orders SET state = 'paid' WHERE id = $1 AND buyer = $2 AND state = 'unpaid';

-- name: refund
-- paid, in the same transaction, without a unit to give -> refunded
UPDATE orders SET state = 'refunded' WHERE id = $1;

-- name: state
SELECT state FROM orders WHERE id = $1 AND buyer = $2;

-- name: paid
SELECT count(*) FROM orders WHERE state = 'paid';
