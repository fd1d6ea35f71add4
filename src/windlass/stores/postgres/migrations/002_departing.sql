-- What is set aside on its way to another store: whole, as JSON, and in no other table any more.
CREATE TABLE windlass.departing (
    n      bigint PRIMARY KEY,
    id     text COLLATE "C" NOT NULL UNIQUE,
    target text NOT NULL,
    kind   text NOT NULL,
    body   text NOT NULL
);

-- Jobs that went, for a day: one that is sent again, as its answer was lost, must not be stored a second time.
CREATE TABLE windlass.departed (
    id text COLLATE "C" PRIMARY KEY,
    at bigint NOT NULL
);
CREATE INDEX departed_at ON windlass.departed (at);
