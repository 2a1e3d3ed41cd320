-- How far messages were expired (SPEC.md, section 5.1): the last entry looked at, in the order of commits. So no look begins anew.
-- Its one row says nothing while its conversation is 0.

create table retention (
    only integer primary key check (only = 1),
    at integer not null,
    conversation integer not null,
    seq integer not null
);
insert into retention values (1, 0, 0, 0);
