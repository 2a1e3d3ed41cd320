-- The first schema: a log per conversation, a cursor per member (SPEC.md, sections 1 and 5). It means what
-- migrations/sqlite/0001 means. MySQL commits after each of these statements, so each can be repeated: a migration that
-- was cut short is run again from its start.
-- Text is utf8mb4, compared byte by byte: what names are compared by is normalised by the node.

create table if not exists deployment (
    only_row tinyint not null primary key check (only_row = 1),
    id binary(16) not null
) default character set utf8mb4 collate utf8mb4_0900_bin;
insert ignore into deployment (only_row, id) values (1, random_bytes(16));

-- Account numbers are never reused. Compatibility forms make a name of 32 characters up to 576 long.
create table if not exists user (
    id bigint not null auto_increment primary key,
    name varchar(255) not null,
    name_key varchar(640) not null,
    password_hash varchar(255) not null,
    register_mid binary(16) not null,
    created_at bigint not null,
    unique key user_name (name_key),
    unique key user_register (register_mid)
) default character set utf8mb4 collate utf8mb4_0900_bin;

-- Resume tokens, by their SHA-256 hash.
create table if not exists token (
    hash binary(32) not null primary key,
    user_id bigint not null,
    expires_at bigint not null,
    key token_user (user_id, expires_at)
) default character set utf8mb4 collate utf8mb4_0900_bin;

-- The logs, clustered by conversation. The primary key is a compare-and-set on a log's head; the unique key makes retries
-- idempotent; committed_at is the database's time in UTC, for the sweep (a datetime: a timestamp ends in 2038).
create table if not exists entry (
    conversation bigint not null,
    seq bigint not null,
    sender bigint not null,
    mid binary(16) not null,
    kind smallint not null,
    at bigint not null,
    body mediumtext not null,
    committed_at datetime(3) not null default current_timestamp(3),
    primary key (conversation, seq),
    unique key entry_mid (conversation, sender, mid),
    key entry_committed (committed_at)
) default character set utf8mb4 collate utf8mb4_0900_bin;

-- What a user has to do with another: a row from the entry on that opened the direct conversation for the user.
create table if not exists friend (
    user_id bigint not null,
    peer_id bigint not null,
    after_seq bigint not null,
    friend tinyint not null default 0,
    blocked tinyint not null default 0,
    primary key (user_id, peer_id)
) default character set utf8mb4 collate utf8mb4_0900_bin;

-- "group" is a word of SQL. The pair (creator, mid) makes its creation idempotent.
create table if not exists chat_group (
    id bigint not null auto_increment primary key,
    name varchar(255) not null,
    description varchar(1024) not null,
    creator_id bigint not null,
    mid binary(16) not null,
    created_at bigint not null,
    unique key chat_group_mid (creator_id, mid)
) default character set utf8mb4 collate utf8mb4_0900_bin;

-- Periods of membership. until_seq is null while the user is a member.
create table if not exists membership (
    user_id bigint not null,
    group_id bigint not null,
    from_seq bigint not null,
    until_seq bigint,
    role tinyint not null,
    primary key (user_id, group_id, from_seq),
    key membership_open (group_id, until_seq, user_id, role)
) default character set utf8mb4 collate utf8mb4_0900_bin;

-- How far each user's entries were confirmed.
create table if not exists delivered (
    user_id bigint not null,
    conversation bigint not null,
    seq bigint not null,
    primary key (user_id, conversation)
) default character set utf8mb4 collate utf8mb4_0900_bin;
