-- The first schema: a log per conversation, a cursor per member (SPEC.md, sections 1 and 5).
-- Conversations are known by their key alone (protocol::ConversationId), so a log has no row of its own.

create table deployment (
    only integer primary key check (only = 1),
    id blob not null
);
insert into deployment values (1, randomblob(16));

-- Account numbers are never reused: hence autoincrement.
create table user (
    id integer primary key autoincrement,
    name text not null,
    name_key text not null unique,
    password_hash text not null,
    register_mid blob not null unique,
    created_at integer not null
);

-- Resume tokens, by their SHA-256 hash.
create table token (
    hash blob primary key,
    user_id integer not null references user,
    expires_at integer not null
) without rowid;
create index token_user on token (user_id, expires_at);

-- The logs. The primary key is a compare-and-set on a log's head; the unique key makes retries idempotent;
-- committed_at is the database's time, for the sweep.
create table entry (
    conversation integer not null,
    seq integer not null,
    sender integer not null,
    mid blob not null,
    kind integer not null,
    at integer not null,
    body text not null,
    committed_at integer not null default (cast(unixepoch('subsec') * 1000 as integer)),
    primary key (conversation, seq),
    unique (conversation, sender, mid)
) without rowid;
create index entry_committed on entry (committed_at);

-- What a user has to do with another: a row from the entry on that opened the direct conversation for the user.
create table friend (
    user_id integer not null,
    peer_id integer not null,
    after_seq integer not null,
    friend integer not null default 0,
    blocked integer not null default 0,
    primary key (user_id, peer_id)
) without rowid;

-- "group" is a word of SQL. The pair (creator, mid) makes its creation idempotent.
create table chat_group (
    id integer primary key autoincrement,
    name text not null,
    description text not null,
    creator_id integer not null,
    mid blob not null,
    created_at integer not null,
    unique (creator_id, mid)
);

-- Periods of membership. until_seq is null while the user is a member.
create table membership (
    user_id integer not null,
    group_id integer not null,
    from_seq integer not null,
    until_seq integer,
    role integer not null,
    primary key (user_id, group_id, from_seq)
) without rowid;
create index membership_open on membership (group_id, user_id, role) where until_seq is null;

-- How far each user's entries were confirmed.
create table delivered (
    user_id integer not null,
    conversation integer not null,
    seq integer not null,
    primary key (user_id, conversation)
) without rowid;
