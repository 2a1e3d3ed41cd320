-- How far messages were expired (SPEC.md, section 5.1): the last entry looked at, in the order of commits. So no look begins anew.
-- Its one row says nothing while its conversation is 0. MySQL commits after each of these statements, so each can be repeated.

create table if not exists retention (
    only_row tinyint not null primary key check (only_row = 1),
    at bigint not null,
    conversation bigint not null,
    seq bigint not null
) default character set utf8mb4 collate utf8mb4_0900_bin;
insert ignore into retention (only_row, at, conversation, seq) values (1, 0, 0, 0);
