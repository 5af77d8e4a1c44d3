-- A ticketrush journal. Rows are only ever appended to `batches`.

-- One row for each commit: the events first_seq .. first_seq + count - 1, as a MessagePack array.
-- chain = crc32(events, chain of the row before): a missing, altered or torn row breaks it.
create table batches (
    first_seq integer primary key,
    count     integer not null check (count > 0),
    chain     integer not null,
    events    blob    not null
) strict;

-- The state after event seq, so that a start need not replay everything. At most one row.
-- chain = crc32(state, chain of the batch that ends with event seq).
create table snapshots (
    seq   integer primary key,
    chain integer not null,
    state blob    not null
) strict;

-- Written to and emptied again to see whether there is room on the disk.
create table probe (filling blob) strict;
